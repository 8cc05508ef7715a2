// Held-out activations taken again from a model, from the texts that stand beside them: for evaluating a pair on another
// checkpoint of its target, or on data that was published without its vectors.
import { NlaError } from "../error.js";
import { activationsOf } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import type { EvalRow } from "./explained-rows.js";

/** Options of {@link activationsAnew}. */
export interface AnewOptions {
  readonly layer: number;
  /** Texts per pass. Defaults to 16. */
  readonly batch?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The rows with the model's own activations. A text that does not have as many tokens as its row says is left out: it was
 * cut inside a character, or comes from another tokenizer, and its last token is not the one that was read.
 *
 * @throws NlaError `evaluate.texts` where no text fits, `model.layer`
 */
export async function activationsAnew(
  target: Target,
  rows: readonly EvalRow[],
  { layer, batch = 16, signal }: AnewOptions,
): Promise<EvalRow[]> {
  const { dim, contextLength } = target.model.config;
  const fitting = rows.flatMap((row) => {
    const ids = row.text === null ? [] : target.tokenizer.encode(row.text, { addSpecialTokens: true });
    return ids.length === row.position + 1 && ids.length <= contextLength ? [{ row, ids }] : [];
  });
  if (fitting.length === 0) {
    throw new NlaError({
      code: "evaluate.texts",
      subject: `the texts of ${rows.length} held-out rows, read by ${target.name}`,
      found: "none with as many tokens as its row says",
      wanted: "texts of the model's own tokenizer",
      next: "Leave --model out to use the activations in the file.",
    });
  }
  const anew: EvalRow[] = [];
  for (let start = 0; start < fitting.length; start += batch) {
    const part = fitting.slice(start, start + batch);
    const sequences = part.map(({ ids }) => ids);
    const activations = await activationsOf(target, layer, sequences, { signal });
    part.forEach(({ row }, i) => anew.push({ ...row, vector: (activations[i] as Float32Array).slice(-dim) }));
  }
  return anew;
}
