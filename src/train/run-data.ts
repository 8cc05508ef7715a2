// The data stages of a run, from its corpus to shuffled training sets, and the sets as the training loops read them.
import type { FveBaselines } from "../nla/fidelity.js";
import { rowsOfOtherDocuments } from "../evaluate/other-documents.js";
import { makeContract } from "../nla/contract.js";
import { buildTrainingSet } from "../pipeline/build.js";
import { extractActivations } from "../pipeline/extract.js";
import { labelSet } from "../pipeline/label-set.js";
import { extractiveLabeller } from "../pipeline/labels.js";
import type { Labeller } from "../pipeline/labels.js";
import { shuffleRows } from "../pipeline/shuffle.js";
import { splitByDocument } from "../pipeline/split.js";
import { activationNorms, fveBaselines } from "../pipeline/statistics.js";
import { openTrainingRows } from "../pipeline/training-rows.js";
import type { TrainingRows } from "../pipeline/training-rows.js";
import { NlaError } from "../error.js";
import { worldCorpus, worldSeedOf } from "../world/corpus.js";
import { corpusName } from "./config.js";
import type { TrainConfig } from "./config-schema.js";
import type { HeldOutRow } from "./held-out.js";
import type { RunContext } from "./run-context.js";
import { DATA_SETS, explainedFile, rawFile, RUN_LAYOUT, shuffledFile, trainingFile } from "./run-layout.js";
import type { DataSet } from "./run-layout.js";
import type { LabelledRow, RowSource } from "./warm-start.js";
import { wordingOf } from "./wording.js";
import { dialsOf, worldLabeller } from "./world-labels.js";

/** What later stages need to know of the data. */
export interface DataFacts {
  /** Length to which injected activations are scaled. */
  readonly injectionScale: number;
  /** Of the activations that reinforcement learning explains. */
  readonly baselines: FveBaselines;
}

// Characters of the text after a position that a label may need, per word of it.
const CHARACTERS_PER_WORD = 24;

const WORLD_BATCH = 48;

/** Runs the data stages that are not done yet. */
export async function makeData(context: RunContext): Promise<DataFacts> {
  const { run, config, target, signal, progress } = context;
  const { corpus, positions, splits, labels } = config;
  // A set whose share is 0 has no documents and no file.
  const sets = DATA_SETS.filter((set) => splits[set] > 0);

  await run.runStage("extract", async (stage) => {
    const live = progress.stage("extract", { total: corpus.length });
    await extractActivations({
      target,
      layer: config.layer,
      corpus: {
        path: corpus.path,
        name: corpusName(config),
        field: corpus.field,
        split: corpus.split,
        cut: typeof corpus.cut === "number" ? { everyCharacters: corpus.cut } : corpus.cut,
        start: corpus.start,
        ...(corpus.length === null ? {} : { length: corpus.length }),
      },
      ...worldDocuments(corpus),
      positions: {
        perDocument: positions.per_document,
        minPosition: positions.min_position,
        maxLength: positions.max_length,
        seed: positions.seed,
      },
      textAfter: labels.kind === "world" ? 0 : labels.words_after * CHARACTERS_PER_WORD,
      out: await stage.output(RUN_LAYOUT.base),
      // Documents of the world are short: larger passes cost no memory to speak of.
      ...(worldSeedOf(corpus.path) === null ? {} : { batchDocuments: WORLD_BATCH }),
      onProgress: ({ documents, rows }) => live.report({ step: documents, numbers: { rows } }),
      signal,
    });
    live.end("done");
  });
  await run.runStage("split", async (stage) => {
    const files = new Map<DataSet, string>();
    for (const set of sets) files.set(set, await stage.output(rawFile(set)));
    await splitByDocument({
      base: run.path(RUN_LAYOUT.base),
      fractions: splits,
      seed: positions.seed,
      out: (set) => files.get(set) as string,
    });
  });
  await run.runStage("label", async (stage) => {
    for (const set of sets.filter((each) => each !== "rl")) {
      await labelSet({
        raw: run.path(rawFile(set)),
        labeller: labellerOf(config, set),
        out: await stage.output(explainedFile(set)),
        signal,
      });
    }
  });
  const facts = await run.runStage("build", async (stage) => {
    const { p75 } = await activationNorms(run.path(rawFile("av_sft")), { signal });
    const injectionScale = config.injection.scale === "p75" ? p75 : config.injection.scale;
    const contract = makeContract(
      {
        layer: config.layer,
        dim: target.model.config.dim,
        char: context.marker.char,
        injectionScale,
        ...wordingOf(config, target, context.marker.tokenizer),
      },
      context.marker.tokenizer,
    );
    for (const set of sets) {
      await buildTrainingSet({
        input: run.path(set === "rl" ? rawFile(set) : explainedFile(set)),
        set,
        contract,
        tokenizer: context.marker.tokenizer,
        out: await stage.output(trainingFile(set)),
      });
    }
    const measured = splits.rl > 0 ? rawFile("rl") : rawFile("eval");
    return { injectionScale, baselines: { ...(await fveBaselines(run.path(measured), { signal })) } };
  });
  await run.runStage("shuffle", async (stage) => {
    for (const set of sets.filter((each) => each !== "eval")) {
      await shuffleRows({
        file: run.path(trainingFile(set)),
        seed: positions.seed,
        out: await stage.output(shuffledFile(set)),
      });
    }
  });
  return facts;
}

function labellerOf({ labels, seed }: TrainConfig, set: DataSet): Labeller {
  return labels.kind === "world"
    ? worldLabeller(dialsOf(labels, set), seed)
    : extractiveLabeller({ wordsBefore: labels.words_before, wordsAfter: labels.words_after });
}

/** The documents of a corpus that is the world; nothing for one that is read from files. */
function worldDocuments({ path, split, start, length }: TrainConfig["corpus"]) {
  const seed = worldSeedOf(path);
  return seed === null || length === null ? {} : { documents: worldCorpus({ seed, split, start, length }) };
}

/** A training set with something to close. */
type OpenRows<Row> = RowSource<Row> & Disposable;

async function open(context: RunContext, set: DataSet): Promise<TrainingRows> {
  const file = context.run.path(set === "eval" ? trainingFile(set) : shuffledFile(set));
  const rows = await openTrainingRows(file);
  if (rows.rowCount > 0) return rows;
  rows.close();
  throw new NlaError({
    code: "train.no-rows",
    subject: file,
    found: "0 rows",
    wanted: "activations to train on",
    next: "Use more documents, a smaller positions.min_position, or a larger share of splits for this set.",
  });
}

/** Labelled activations of a warm start. */
export async function openLabelled(
  context: RunContext,
  set: "ar_sft" | "av_sft",
): Promise<OpenRows<LabelledRow>> {
  const rows = await open(context, set);
  return {
    rowCount: rows.rowCount,
    async rows(indices) {
      return (await rows.rows(indices)).map(({ vector, label }) => ({ vector, label: label as string }));
    },
    [Symbol.dispose]: () => rows.close(),
  };
}

/** Activations for reinforcement learning. */
export async function openVectors(
  context: RunContext,
  set: "rl",
): Promise<OpenRows<{ readonly vector: Float32Array }>> {
  const rows = await open(context, set);
  return {
    rowCount: rows.rowCount,
    rows: (indices) => rows.rows(indices),
    [Symbol.dispose]: () => rows.close(),
  };
}

/**
 * The held-out rows that training is measured on: spread evenly over the set, the same every time.
 *
 * @throws NlaError `evaluate.documents` for fewer than two documents
 */
export async function openHeldOut(context: RunContext): Promise<HeldOutRow[]> {
  using rows = await open(context, "eval");
  const count = Math.min(context.config.log.eval_rows, rows.rowCount);
  const indices = Array.from({ length: count }, (_, i) => Math.floor((i * rows.rowCount) / count));
  const heldOut = (await rows.rows(indices)).map(({ vector, docId, position, text, label }) => {
    return { vector, docId, position, text, label };
  });
  // Throws where there is no other document to take, which every evaluation would: before the training and not after it.
  rowsOfOtherDocuments(
    heldOut.map(({ docId }) => docId),
    { seed: 0 },
  );
  return heldOut;
}
