// A labeller that asks nobody: it answers each prompt with the completion that was recorded for it, so that a labelled set can be
// made again, offline and at no cost. Rows whose text was labelled before can be answered from the files of that time.
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { openParquet } from "../data/parquet.js";
import { NlaError, messageOf } from "../error.js";
import { stripPython } from "../nla/python-text.js";
import { fillTemplate, parseTemplate } from "../nla/template.js";
import { LABEL_COLUMN, TEXT_COLUMN } from "./columns.js";
import { cleanLabel, isUsableLabel } from "./label-cleaning.js";
import type { Labeller } from "./labels.js";

/** Recorded answers: completions by prompt, in the order in which they were given; null where the model refused. */
export type RecordedCalls = ReadonlyMap<string, readonly (string | null)[]>;

function recordError(code: string, subject: string, found: string, wanted: string, next: string): NlaError {
  return new NlaError({ code: `labels.${code}`, subject, found, wanted, next });
}

/** Reads `{"prompt", "completion"}` objects, one a line. @throws NlaError `labels.record` for a line that is none */
export async function readRecordedCalls(file: string): Promise<RecordedCalls> {
  const calls = new Map<string, (string | null)[]>();
  let number = 0;
  const wanted = '{"prompt": text, "completion": text or null} on every line';
  for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) {
    number++;
    if (line.trim() === "") continue;
    const subject = `${file}, line ${number}`;
    let call: unknown;
    try {
      call = JSON.parse(line);
    } catch (thrown) {
      throw recordError("record", subject, messageOf(thrown), wanted, "Mend or remove the line.");
    }
    const { prompt, completion } = (call ?? {}) as { prompt?: unknown; completion?: unknown };
    if (typeof prompt !== "string" || !(completion === null || typeof completion === "string")) {
      throw recordError("record", subject, line.slice(0, 80), wanted, "Mend or remove the line.");
    }
    const given = calls.get(prompt);
    if (given) given.push(completion);
    else calls.set(prompt, [completion]);
  }
  return calls;
}

/** Explanations by text, from labelled files. Of a text that stands there twice the last counts. @throws NlaError `parquet.*` */
export async function readLabelCache(files: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const cache = new Map<string, string>();
  for (const file of files) {
    const parquet = await openParquet(file);
    try {
      for await (const chunk of parquet.chunks({ columns: [TEXT_COLUMN, LABEL_COLUMN] })) {
        const labels = chunk.strings(LABEL_COLUMN);
        chunk.strings(TEXT_COLUMN).forEach((text, row) => cache.set(text, labels[row] as string));
      }
    } finally {
      parquet.close();
    }
  }
  return cache;
}

/** Options of {@link recordedLabeller}. */
export interface RecordedOptions {
  readonly calls: RecordedCalls;
  /** The labelling prompt, with `{text}` in it. */
  readonly instruction: string;
  /** Texts that need no call. Defaults to none. */
  readonly cache?: ReadonlyMap<string, string>;
  /** The model that was asked, and how, for the sidecar. */
  readonly model: string;
  readonly maxTokens: number | null;
  readonly temperature: number | null;
}

/**
 * Answers from records. A prompt that was answered several times gets its answers in order, and the last one from then on.
 *
 * @throws NlaError `template.*` for an instruction without `{text}`; its `label` rejects with `labels.unrecorded` for a prompt that
 *   is not on record and `labels.empty` for a recorded answer without text
 */
export function recordedLabeller(options: RecordedOptions): Labeller {
  const { calls, instruction, cache, model, maxTokens, temperature } = options;
  const template = parseTemplate(instruction, "text");
  const used = new Map<string, number>();
  const answer = (text: string, where: string): string | null => {
    const known = cache?.get(text);
    if (known !== undefined) return isUsableLabel(known) ? known : null;
    const prompt = fillTemplate(template, text);
    const answers = calls.get(prompt);
    if (answers === undefined) {
      throw recordError(
        "unrecorded",
        where,
        `no answer on record for the prompt ending in ${JSON.stringify(prompt.slice(-60))}`,
        "one for every row",
        "The records are of other texts or another instruction: take --templates from a file of the same run.",
      );
    }
    const next = used.get(prompt) ?? 0;
    used.set(prompt, next + 1);
    const completion = answers[Math.min(next, answers.length - 1)] as string | null;
    if (completion === null) return null;
    if (stripPython(completion) === "") {
      const wanted = "text, or null for a refusal";
      throw recordError("empty", where, "an empty completion", wanted, "Record null if the model refused.");
    }
    const label = cleanLabel(completion);
    return label !== null && isUsableLabel(label) ? label : null;
  };
  return {
    name: model,
    settings: { max_tokens: maxTokens, temperature, instruction_prompt: instruction },
    label: async (requests, { signal } = {}) => {
      signal?.throwIfAborted();
      return requests.map(({ textBefore, docId, position }) =>
        answer(textBefore, `${docId}, position ${position}`),
      );
    },
  };
}
