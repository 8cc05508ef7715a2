// What a pair knows of facts that the text no longer shows: test or real, hidden motives, secret aims, the coming rhyme. Each is a question
// with a score per token, and AUROC says how well the scores tell true from false: for the pair's samples, for its verbalizer when it is
// asked, for a model that sees the last words only, one that sees all, and a linear probe of the activation as the ceiling.
import { wordingsOf } from "../world/claim-table.js";
import { parseExplanation } from "../world/claims.js";
import { worldDocumentOf } from "../world/corpus.js";
import { truthAt } from "../world/facts.js";
import type { WorldDocument } from "../world/facts.js";
import type { Nla } from "../nla/read.js";
import type { Target } from "../nla/target.js";
import { bootstrapAuroc } from "./auroc.js";
import type { ScoredRow } from "./auroc.js";
import { bootstrapRatio } from "./bootstrap.js";
import type { BootstrapOptions, Interval } from "./bootstrap.js";
import { claimLogProbs } from "./claim-likelihood.js";
import type { EvalRow } from "./explained-rows.js";
import { probeReader } from "./unspoken-probe.js";
import { asks, chooseTokens, QUESTIONS } from "./unspoken-questions.js";
import type { Question, Reader } from "./unspoken-questions.js";
import type { TextOnly } from "./text-only.js";
import { worldRows } from "./world-rows.js";

/** How well a reader answers a question. */
export interface UnspokenScore {
  readonly question: string;
  readonly reader: string;
  readonly tokens: number;
  /** Tokens since the cue: median. */
  readonly distance: number;
  readonly auroc: Interval;
}

/** How often a pair's greedy explanation names something where it is true and where it is not, over tokens drawn at random. */
export interface NamedScore {
  readonly question: string;
  readonly pair: string;
  /** null where no such token was drawn. */
  readonly named: Interval | null;
  readonly trueTokens: number;
  readonly falselyNamed: Interval | null;
  readonly otherTokens: number;
}

/** What {@link measureUnspoken} finds. */
export interface UnspokenReport {
  readonly documents: number;
  readonly tokens: number;
  readonly samples: number;
  readonly scores: readonly UnspokenScore[];
  readonly named: readonly NamedScore[];
}

/** Options of {@link measureUnspoken}. */
export interface UnspokenOptions {
  /** The pair first, then its warm start where there is one. */
  readonly pairs: readonly { readonly name: string; readonly nla: Pick<Nla, "verbalizer" | "layer"> }[];
  readonly texts: readonly { readonly name: string; readonly model: TextOnly }[];
  readonly documents: number;
  /** Samples per token. Defaults to 8. */
  readonly samples?: number;
  readonly maxNewTokens?: number;
  /** Documents that the probe is fitted to. Defaults to 1200. */
  readonly probeDocuments?: number;
  readonly bootstrap: BootstrapOptions;
  readonly signal?: AbortSignal | undefined;
  readonly onStage?: (name: string) => void;
}

const FIRST_DOCUMENT = 41_000_000;
const BATCH = 32;
const TINY = 1e-9;

interface AskedRow extends EvalRow {
  readonly document: WorldDocument;
  /** Without BOS. */
  readonly place: number;
  /** Drawn at random, so that it stands for all tokens. */
  readonly random: boolean;
}

/** Measures all questions. @throws NlaError of the models; `auroc.rows` never: a question without both kinds is left out */
export async function measureUnspoken(
  target: Target,
  {
    pairs,
    texts,
    documents,
    samples = 8,
    maxNewTokens = 96,
    probeDocuments = 1200,
    ...options
  }: UnspokenOptions,
): Promise<UnspokenReport> {
  const { bootstrap, signal, onStage } = options;
  const layer = (pairs[0] as (typeof pairs)[number]).nla.layer;
  const drawn = new Map<number, ReturnType<typeof chooseTokens>>();
  const choose = (document: WorldDocument) => {
    const tokens = chooseTokens(document, bootstrap.seed);
    drawn.set(document.index, tokens);
    return [...new Set([...tokens.asked, ...tokens.random])];
  };
  onStage?.("activations");
  const made = await worldRows(target, {
    layer,
    documents,
    positions: 0,
    start: FIRST_DOCUMENT,
    choose,
    signal,
  });
  const rows = made.map((row): AskedRow => {
    const document = worldDocumentOf(row.docId);
    const place = row.position - 1;
    const random = drawn.get(document.index)?.random.includes(place) ?? false;
    return Object.assign(row, { document, place, random });
  });
  const readers: Reader[] = [];
  const named: NamedScore[] = [];
  for (const { name, nla } of pairs) {
    onStage?.(`${name}: samples`);
    readers.push(
      await samplesReader(`${name}, ${samples} samples`, nla, rows, { samples, maxNewTokens, signal }),
    );
    onStage?.(`${name}: asked`);
    readers.push(await askedReader(`${name}, asked`, nla, rows, signal));
    onStage?.(`${name}: greedy`);
    named.push(...(await namedScores(name, nla, rows, { maxNewTokens, bootstrap, signal })));
  }
  readers.push(...texts.map(({ name, model }) => textReader(name, model, rows)));
  onStage?.("probe");
  readers.push(await probeReader(target, { layer, documents: probeDocuments, rows, signal }));
  const scores = QUESTIONS.flatMap((question) =>
    readers.flatMap((reader) => scoreOf(question, reader, rows, bootstrap) ?? []),
  );
  return { documents, tokens: rows.length, samples, scores, named };
}

/** AUROC of a reader at a question; null where it has no answers or the tokens are all of one kind. */
function scoreOf(
  question: Question,
  { name, floor, weight }: Reader,
  rows: readonly AskedRow[],
  bootstrap: BootstrapOptions,
): UnspokenScore | null {
  const scored: ScoredRow[] = [];
  const distances: number[] = [];
  for (const [i, { docId, document, place }] of rows.entries()) {
    const fact = asks(question, document, place);
    const candidates = fact && question.candidates(fact.value);
    if (!fact || !candidates) continue;
    const weights = candidates.map((value) => weight(i, question.category, value));
    if (weights.includes(null)) return null;
    distances.push(place - fact.from);
    if (question.form === "which") {
      candidates.forEach((value, c) => {
        const score = Math.log((weights[c] as number) + floor);
        scored.push({ docId, positive: value === fact.value, score });
      });
      continue;
    }
    const sum = (side: boolean) =>
      candidates.reduce(
        (all, value, c) => all + (question.positive(value) === side ? (weights[c] as number) : 0),
        floor,
      );
    scored.push({ docId, positive: question.positive(fact.value), score: Math.log(sum(true) / sum(false)) });
  }
  const positives = scored.filter(({ positive }) => positive).length;
  if (positives === 0 || positives === scored.length) return null;
  distances.sort((a, b) => a - b);
  return {
    question: question.name,
    reader: name,
    tokens: distances.length,
    distance: distances[Math.floor(distances.length / 2)] as number,
    auroc: bootstrapAuroc(scored, bootstrap),
  };
}

/** The share of a pair's samples at T=1 that claim a value. */
async function samplesReader(
  name: string,
  { verbalizer }: Pick<Nla, "verbalizer">,
  rows: readonly AskedRow[],
  {
    samples,
    maxNewTokens,
    signal,
  }: Required<Pick<UnspokenOptions, "samples" | "maxNewTokens">> & Pick<UnspokenOptions, "signal">,
): Promise<Reader> {
  const shares: Map<string, number>[] = [];
  for (let start = 0; start < rows.length; start += BATCH) {
    const part = rows.slice(start, start + BATCH);
    const said = await verbalizer.explain(
      part.map(({ vector }) => vector),
      { samples, temperature: 1, maxNewTokens, seed: start * samples, signal },
    );
    part.forEach((_, i) => {
      const share = new Map<string, number>();
      for (const { text } of said.slice(i * samples, (i + 1) * samples)) {
        const claims = new Set(
          parseExplanation(text ?? "").map(({ claim }) => `${claim?.category} ${claim?.value}`),
        );
        for (const claim of claims) share.set(claim, (share.get(claim) ?? 0) + 1 / samples);
      }
      shares.push(share);
    });
  }
  return {
    name,
    floor: 1 / (2 * samples),
    weight: (row, category, value) => shares[row]?.get(`${category} ${value}`) ?? 0,
  };
}

/** A verbalizer's probability of each claim as a first sentence, among those that the question offers. */
async function askedReader(
  name: string,
  { verbalizer }: Pick<Nla, "verbalizer">,
  rows: readonly AskedRow[],
  signal?: AbortSignal,
): Promise<Reader> {
  const claims = rows.map(({ document, place, vector }) => {
    const values = QUESTIONS.flatMap((question) => {
      const fact = asks(question, document, place);
      const candidates = (fact && question.candidates(fact.value)) ?? [];
      return candidates.map((value) => ({ category: question.category, value }));
    });
    const unique = [...new Map(values.map((each) => [`${each.category} ${each.value}`, each])).entries()];
    return { vector, said: unique.map(([key, fact]) => ({ key, wordings: wordingsOf(fact) })) };
  });
  const found = await claimLogProbs(
    verbalizer,
    claims.map(({ vector, said }) => ({ vector, sentences: said.flatMap(({ wordings }) => wordings) })),
    { signal },
  );
  const weights = claims.map(({ said }, row) => {
    const logs = found[row] as Float64Array;
    let at = 0;
    const sums = said.map(({ key, wordings }) => {
      const sum = wordings.reduce((all) => all + Math.exp(logs[at++] as number), 0);
      return [key, sum] as const;
    });
    // Within a category: how much of what it would say of it.
    const totals = new Map<string, number>();
    for (const [key, sum] of sums) {
      const category = key.slice(0, key.indexOf(" "));
      totals.set(category, (totals.get(category) ?? 0) + sum);
    }
    return new Map(
      sums.map(([key, sum]) => [key, sum / ((totals.get(key.slice(0, key.indexOf(" "))) ?? 0) || 1)]),
    );
  });
  return {
    name,
    floor: TINY,
    weight: (row, category, value) => weights[row]?.get(`${category} ${value}`) ?? 0,
  };
}

function textReader(name: string, model: TextOnly, rows: readonly AskedRow[]): Reader {
  return {
    name,
    floor: TINY,
    weight(row, category, value) {
      const { document, place } = rows[row] as AskedRow;
      const guess = model.guesses(document, place, category).find((each) => each.value === value);
      return guess?.probability ?? 0;
    },
  };
}

/** How often greedy explanations name the side that is asked about, where it is true and elsewhere. */
async function namedScores(
  pair: string,
  { verbalizer }: Pick<Nla, "verbalizer">,
  rows: readonly AskedRow[],
  {
    maxNewTokens,
    bootstrap,
    signal,
  }: Pick<UnspokenOptions, "bootstrap" | "signal"> & { maxNewTokens: number },
): Promise<NamedScore[]> {
  const random = rows.filter((row) => row.random);
  const texts: string[] = [];
  for (let start = 0; start < random.length; start += BATCH) {
    const part = random.slice(start, start + BATCH).map(({ vector }) => vector);
    const said = await verbalizer.explain(part, { temperature: 0, maxNewTokens, signal });
    texts.push(...said.map(({ text }) => text ?? ""));
  }
  const whole = QUESTIONS.filter(({ form, near }) => form === "is" || near);
  return whole.map(({ name: question, category, positive, near }): NamedScore => {
    const tokens = random.map(({ docId, document, place }, i) => {
      const truth = truthAt(document, place).find((each) => each.category === category)?.value;
      const claims = parseExplanation(texts[i] as string).flatMap(({ claim }) =>
        claim?.category === category && claim.value !== null && positive(claim.value) ? [claim.value] : [],
      );
      const holds = truth !== undefined && positive(truth);
      // Of a rhyme the word itself has to be the right one; of the others the side.
      const right = near ? claims.includes(truth ?? "") : claims.length > 0;
      const wrong = near ? claims.some((value) => value !== truth) : claims.length > 0;
      return { docId, holds, right, wrong };
    });
    const share = (of: typeof tokens, hit: "right" | "wrong"): Interval | null =>
      of.length === 0
        ? null
        : bootstrapRatio(
            of.map((token) => ({ docId: token.docId, numerator: token[hit] ? 1 : 0, denominator: 1 })),
            bootstrap,
          );
    const inside = tokens.filter(({ holds }) => holds);
    const outside = tokens.filter(({ holds }) => !holds);
    return {
      question,
      pair,
      named: share(inside, "right"),
      trueTokens: inside.length,
      falselyNamed: share(outside, "wrong"),
      otherTokens: outside.length,
    };
  });
}
