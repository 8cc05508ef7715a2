// Linear probes as readers of unspoken facts: what a weighted sum of the activation tells, fitted to other documents. The ceiling of what an
// explanation of that activation can be asked for, near enough: for questions of many values a larger reader may do better.
import type { Target } from "../nla/target.js";
import { worldDocumentOf } from "../world/corpus.js";
import { truthAt } from "../world/facts.js";
import type { Category } from "../world/facts.js";
import type { EvalRow } from "./explained-rows.js";
import { product } from "./linear-algebra.js";
import { designOf, fitClasses, fittingDesign } from "./probe.js";
import { QUESTIONS } from "./unspoken-questions.js";
import type { Reader } from "./unspoken-questions.js";
import { worldRows } from "./world-rows.js";

const FIRST_DOCUMENT = 42_000_000;
const POSITIONS = 8;
// Fewer rows than this teach a probe nothing.
const LEAST_ROWS = 40;

/**
 * Fits a probe per category to activations of other documents.
 *
 * @param rows that it will be asked about
 */
export async function probeReader(
  target: Target,
  {
    layer,
    documents,
    rows,
    signal,
  }: {
    readonly layer: number;
    readonly documents: number;
    readonly rows: readonly EvalRow[];
    readonly signal?: AbortSignal | undefined;
  },
): Promise<Reader> {
  const known = await worldRows(target, {
    layer,
    documents,
    positions: POSITIONS,
    start: FIRST_DOCUMENT,
    signal,
  });
  const truths = known.map(({ docId, position }) => truthAt(worldDocumentOf(docId), position - 1));
  const answers = new Map<Category, Map<string, number>[]>();
  for (const category of new Set(QUESTIONS.map((question) => question.category))) {
    signal?.throwIfAborted();
    const told = truths.flatMap((truth, i) => {
      const fact = truth.find((each) => each.category === category);
      return fact ? [{ vector: (known[i] as EvalRow).vector, value: fact.value }] : [];
    });
    const values = [...new Set(told.map(({ value }) => value))].sort();
    if (told.length < LEAST_ROWS || values.length < 2) continue;
    const design = fittingDesign(designOf(told.map(({ vector }) => vector)));
    const labels = told.map(({ value }) => values.indexOf(value));
    const weights = fitClasses(design, labels, values.length);
    const { values: logits } = product(
      designOf(
        rows.map(({ vector }) => vector),
        design,
      ).x,
      weights,
    );
    answers.set(
      category,
      rows.map((_, row) => softmax(logits.subarray(row * values.length, (row + 1) * values.length), values)),
    );
  }
  return {
    name: "linear probe",
    floor: 1e-12,
    weight(row, category, value) {
      const answer = answers.get(category);
      return answer ? (answer[row]?.get(value) ?? 0) : null;
    },
  };
}

function softmax(logits: Float64Array, values: readonly string[]): Map<string, number> {
  const highest = Math.max(...logits);
  const weights = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = weights.reduce((a, b) => a + b, 0);
  return new Map(values.map((value, i) => [value, (weights[i] as number) / sum]));
}
