// What reinforcement learning added, taken apart: whose choice of categories with whose values, the best list of categories that is the same
// everywhere, the best of several samples, and other runs from the same warm start. All on the same held-out tokens, by FVE of both
// reconstructors, precision and recall.
import { FidelityAccumulator, reconstructionScores } from "../nla/fidelity.js";
import type { Nla } from "../nla/read.js";
import type { Reconstructor } from "../nla/reconstructor.js";
import { keyedRandom } from "../data/python-random.js";
import { Chooser } from "../world/chooser.js";
import { parseExplanation } from "../world/claims.js";
import { worldDocumentOf } from "../world/corpus.js";
import { CATEGORIES, truthAt } from "../world/facts.js";
import type { Category } from "../world/facts.js";
import { labelAt } from "../world/labels.js";
import type { BootstrapOptions } from "./bootstrap.js";
import type { ClaimScores } from "./claims.js";
import { explainRows } from "./explained-rows.js";
import type { EvalRow } from "./explained-rows.js";
import { forcedClaims } from "./forced-claims.js";
import { rowsOfOtherDocuments } from "./other-documents.js";
import { worldClaims } from "./world-claims.js";

/** One way of explaining. */
export interface ApartLine {
  readonly name: string;
  /** FVE that the warm start's reconstructor reaches from these texts, and the trained one's. */
  readonly warmFve: number;
  readonly trainedFve: number;
  readonly scores: ClaimScores | null;
}

/** What {@link takeApart} finds. */
export interface ApartReport {
  /** Tokens that are scored, and those that only the fixed list was chosen on. */
  readonly tokens: number;
  readonly choosing: number;
  readonly fixedList: readonly Category[];
  readonly lines: readonly ApartLine[];
}

/** Another run from the same warm start. */
export interface Arm {
  readonly name: string;
  readonly nla: Pick<Nla, "verbalizer" | "reconstructor">;
}

/** Options of {@link takeApart}. */
export interface ApartOptions {
  readonly warm: Pick<Nla, "verbalizer" | "reconstructor">;
  readonly trained: Pick<Nla, "verbalizer" | "reconstructor">;
  readonly arms?: readonly Arm[];
  readonly maxNewTokens: number;
  /** Samples of which the best is taken. Defaults to 8. */
  readonly samples?: number;
  readonly bootstrap: BootstrapOptions;
  readonly signal?: AbortSignal | undefined;
  readonly onStage?: (name: string) => void;
}

// Every so many-th document chooses the fixed list, and is not scored.
const CHOOSING = 3;

/**
 * Takes a gain apart.
 *
 * @param rows held-out tokens of documents of the world
 * @throws NlaError `world.document` for other rows, and those of the models
 */
export async function takeApart(
  rows: readonly EvalRow[],
  { warm, trained, arms = [], maxNewTokens, samples = 8, bootstrap, signal, onStage }: ApartOptions,
): Promise<ApartReport> {
  const documents = [...new Set(rows.map(({ docId }) => docId))];
  const choosing = new Set(documents.filter((_, i) => i % CHOOSING === CHOOSING - 1));
  const judged = rows.filter(({ docId }) => !choosing.has(docId));
  const others = rows.filter(({ docId }) => choosing.has(docId));
  const lines: ApartLine[] = [];
  const add = async (name: string, texts: readonly (string | null)[]) => {
    const said = judged.map((row, i) => ({ ...row, explanation: texts[i] ?? null }));
    lines.push({
      name,
      warmFve: await fveOf(warm.reconstructor, judged, texts, signal),
      trainedFve: await fveOf(trained.reconstructor, judged, texts, signal),
      scores: worldClaims(said, bootstrap),
    });
  };
  const greedy = async ({ verbalizer, reconstructor }: ApartOptions["warm"]) =>
    (await explainRows({ verbalizer, reconstructor }, judged, { maxNewTokens, signal })).map(
      ({ explanation }) => explanation,
    );
  const forced = (by: ApartOptions["warm"], choices: readonly (readonly Category[])[]) =>
    forcedClaims(
      by.verbalizer,
      judged.map(({ vector }, i) => ({ vector, categories: choices[i] as readonly Category[] })),
      { signal },
    );
  onStage?.("greedy");
  const warmTexts = await greedy(warm);
  const trainedTexts = await greedy(trained);
  await add("warm start, greedy", warmTexts);
  await add("after RL, greedy", trainedTexts);
  onStage?.("swaps");
  const warmChoice = warmTexts.map(categoriesIn);
  const trainedChoice = trainedTexts.map(categoriesIn);
  await add("RL's categories, warm start's values", await forced(warm, trainedChoice));
  // The same choices, each made for another document's token: what is left of the gain does not depend on the token.
  const donors = rowsOfOtherDocuments(
    judged.map(({ docId }) => docId),
    { seed: bootstrap.seed },
  );
  const elsewhere = donors.map((donor) => trainedChoice[donor] as Category[]);
  await add("RL's categories of another document, warm start's values", await forced(warm, elsewhere));
  await add("RL's categories, RL's values, decoded the same way", await forced(trained, trainedChoice));
  await add("warm start's categories, RL's values", await forced(trained, warmChoice));
  const random = judged.map((row, i) => randomTrue(row, (trainedChoice[i] as Category[]).length));
  await add("as many true categories at random, warm start's values", await forced(warm, random));
  onStage?.("fixed list");
  const count = Math.round(
    trainedChoice.reduce((sum, { length }) => sum + length, 0) / Math.max(1, trainedChoice.length),
  );
  const fixedList = await bestFixedList(warm, others, count, signal);
  const fixed = judged.map(() => fixedList);
  await add(`the best fixed list, warm start's values`, await forced(warm, fixed));
  await add(`the best fixed list, RL's values`, await forced(trained, fixed));
  onStage?.(`best of ${samples}`);
  await add(`best of ${samples} warm samples`, await bestOf(warm, judged, { samples, maxNewTokens, signal }));
  await add(
    `best of ${samples} RL samples`,
    await bestOf(trained, judged, { samples, maxNewTokens, signal }),
  );
  for (const { name, nla } of arms) {
    onStage?.(name);
    const texts = await greedy(nla);
    const choice = texts.map(categoriesIn);
    for (const [what, said] of [
      ["greedy", texts],
      ["its categories, warm start's values", await forced(warm, choice)],
      ["its categories, its values, decoded the same way", await forced(nla, choice)],
    ] as const) {
      await add(`${name}, ${what}`, said);
      const own = lines.at(-1) as ApartLine;
      // Read by its own reconstructor, which may have learnt with it.
      lines[lines.length - 1] = { ...own, trainedFve: await fveOf(nla.reconstructor, judged, said, signal) };
    }
  }
  await add("the complete true label", judged.map(wholeLabel));
  return { tokens: judged.length, choosing: others.length, fixedList, lines };
}

/** The categories of an explanation's claims, each once, in its order. */
function categoriesIn(text: string | null): Category[] {
  const claims = parseExplanation(text ?? "").flatMap(({ claim }) => (claim ? [claim.category] : []));
  return [...new Set(claims)];
}

function wholeLabel({ docId, position }: EvalRow): string {
  const document = worldDocumentOf(docId);
  return labelAt(document, position - 1, new Chooser(document.index, position));
}

function randomTrue({ docId, position }: EvalRow, count: number): Category[] {
  const live = truthAt(worldDocumentOf(docId), position - 1).map(({ category }) => category);
  const drawn = keyedRandom(0, `categories ${docId} ${position}`).sample(live, Math.min(count, live.length));
  return CATEGORIES.filter((category) => drawn.includes(category));
}

async function fveOf(
  reconstructor: Reconstructor,
  rows: readonly EvalRow[],
  texts: readonly (string | null)[],
  signal?: AbortSignal,
): Promise<number> {
  const { dim, mseScale } = reconstructor.contract;
  const rebuilt = await reconstructor.reconstructSome(
    texts.map((text) => (text === "" ? null : text)),
    { signal },
  );
  const mean = new Float32Array(dim);
  for (const { vector } of rows) {
    const factor = 1 / lengthOf(vector);
    vector.forEach((value, i) => (mean[i]! += (value * factor) / rows.length));
  }
  const fidelity = new FidelityAccumulator(dim, { mseScale });
  // What says nothing counts as the mean direction.
  rows.forEach(({ vector }, i) => fidelity.add(rebuilt[i] ?? mean, vector));
  return fidelity.result().fve;
}

function lengthOf(vector: Float32Array): number {
  let sum = 0;
  for (const value of vector) sum += value * value;
  return Math.max(1e-12, Math.sqrt(sum));
}

/** Forward selection by the warm start's reconstructor, of categories that are named at every token, with the warm start's values. */
async function bestFixedList(
  { verbalizer, reconstructor }: ApartOptions["warm"],
  rows: readonly EvalRow[],
  count: number,
  signal?: AbortSignal,
): Promise<Category[]> {
  const sentences = new Map<Category, string[]>();
  for (const category of CATEGORIES) {
    const choices = rows.map(({ vector }) => ({ vector, categories: [category] }));
    sentences.set(category, await forcedClaims(verbalizer, choices, { signal }));
  }
  const list = new Set<Category>();
  while (list.size < Math.min(count, CATEGORIES.length)) {
    let best: { category: Category; fve: number } | null = null;
    for (const category of CATEGORIES) {
      if (list.has(category)) continue;
      const named = CATEGORIES.filter((each) => list.has(each) || each === category);
      const texts = rows.map((_, i) => named.map((each) => sentences.get(each)?.[i] ?? "").join(" "));
      const fve = await fveOf(reconstructor, rows, texts, signal);
      if (best === null || fve > best.fve) best = { category, fve };
    }
    list.add((best as { category: Category }).category);
  }
  return CATEGORIES.filter((category) => list.has(category));
}

/** Of several samples the one that the pair's own reconstructor gets most from. */
async function bestOf(
  { verbalizer, reconstructor }: ApartOptions["warm"],
  rows: readonly EvalRow[],
  options: {
    readonly samples: number;
    readonly maxNewTokens: number;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<(string | null)[]> {
  const { samples, maxNewTokens, signal } = options;
  const { mseScale } = reconstructor.contract;
  const best: (string | null)[] = [];
  const size = 16;
  for (let start = 0; start < rows.length; start += size) {
    const part = rows.slice(start, start + size);
    const said = await verbalizer.explain(
      part.map(({ vector }) => vector),
      { samples, temperature: 1, maxNewTokens, seed: start * samples, signal },
    );
    const rebuilt = await reconstructor.reconstructSome(
      said.map(({ text }) => text),
      { signal },
    );
    part.forEach(({ vector }, i) => {
      let [least, text]: [number, string | null] = [Infinity, null];
      for (let s = i * samples; s < (i + 1) * samples; s++) {
        const vectorOf = rebuilt[s];
        if (!vectorOf) continue;
        const { mse } = reconstructionScores(vectorOf, vector, { mseScale });
        if (mse < least) [least, text] = [mse, said[s]?.text ?? null];
      }
      best.push(text);
    });
  }
  return best;
}
