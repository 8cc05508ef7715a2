// All stages after each other, as the reference's run_pipeline runs them: the same files at the same places, each made only if it is
// not there yet. What a file was made with is noted in pipeline.json, so that a changed config is an error and not a mixture.
import { mkdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import {
  baseDatasetId,
  explainedDatasetId,
  shuffledDatasetId,
  splitDatasetId,
  trainingDatasetId,
} from "../data/dataset-id.js";
import { writeFileAtomic } from "../data/files.js";
import { datasetSidecarPath } from "../data/sidecar.js";
import { NlaError } from "../error.js";
import { makeContract } from "../nla/contract.js";
import type { Contract } from "../nla/contract.js";
import { chooseMarker } from "../nla/start.js";
import type { Target } from "../nla/target.js";
import { buildTrainingSet } from "./build.js";
import { openDataFile } from "./data-file.js";
import { extractActivations } from "./extract.js";
import { labelSet } from "./label-set.js";
import type { Labeller } from "./labels.js";
import type { ReferenceConfig } from "./reference-config.js";
import { shuffleRows } from "./shuffle.js";
import { splitByDocument } from "./split.js";

/** The stages under the reference's names: extract, split, label, build, shuffle. */
export const PIPELINE_STAGES = ["0", "1", "2", "3", "shuffle"] as const;
export type PipelineStage = (typeof PIPELINE_STAGES)[number];

const SETS = ["av_sft", "ar_sft", "rl"] as const;
const LABELLED = ["av_sft", "ar_sft"] as const;
const STATE_FILE = "pipeline.json";

/** One file of the pipeline. */
export interface PipelineFile {
  readonly stage: PipelineStage;
  readonly file: string;
  readonly rows: number;
  /** False where it was there already. */
  readonly made: boolean;
}

/** What {@link runPipeline} needs besides the config. Both functions are called only if a stage needs what they give. */
export interface PipelineOptions {
  readonly config: ReferenceConfig;
  /** File or folder of the corpus. */
  readonly corpusPath: string;
  readonly out: string;
  readonly target: () => Promise<Target>;
  readonly labeller: () => Promise<Labeller>;
  /** What decides the labels: another value than that a file was made with is an error. */
  readonly labelSettings: object;
  readonly templates: { readonly verbalizer: string; readonly reconstructor: string };
  /** Defaults to all. */
  readonly stages?: readonly PipelineStage[];
  readonly signal?: AbortSignal | undefined;
  readonly onFile?: (file: PipelineFile) => void;
}

/**
 * Runs the stages that are not done, in order. A file that is there is checked (rows, width, dataset id) and kept; one that the
 * reference wrote counts too. A file that has to be made makes all that follow from it anew.
 *
 * @throws NlaError `pipeline.other-run` where a file in `out` is of other settings, and those of the stages
 */
export async function runPipeline(options: PipelineOptions): Promise<PipelineFile[]> {
  const { config, out, stages = PIPELINE_STAGES, signal, onFile } = options;
  await mkdir(path.join(out, "splits"), { recursive: true });
  const state = await openState(path.join(out, STATE_FILE));
  const at = (...parts: string[]) => path.join(out, ...parts);
  const files: PipelineFile[] = [];
  const made = new Set<string>();

  const step = async (
    stage: PipelineStage,
    file: string,
    { id, from, settings }: { id: string; from: readonly string[]; settings: object },
    make: () => Promise<unknown>,
  ): Promise<void> => {
    if (!stages.includes(stage)) return;
    signal?.throwIfAborted();
    const fresh = made.has(file) || from.some((each) => made.has(each));
    let rows = fresh ? null : await rowsIfDone(file, id);
    const name = path.relative(out, file);
    if (rows !== null) state.check(name, settings);
    if (rows === null) {
      if (!made.has(file)) await make();
      await state.set(name, settings);
      made.add(file);
      rows = await rowsIfDone(file, id);
    }
    const done = { stage, file, rows: rows ?? 0, made: made.has(file) };
    files.push(done);
    onFile?.(done);
  };

  const base = at("base.parquet");
  const { corpus, extract, split, label, shuffle } = config;
  const slice = { start: corpus.start, length: corpus.length };
  const baseId = baseDatasetId({
    baseModel: config.baseModel,
    layer: config.layer,
    corpus: corpus.name,
    slice,
  });
  await step("0", base, { id: baseId, from: [], settings: { ...extract, batch: undefined } }, async () => {
    await extractActivations({
      target: await options.target(),
      layer: config.layer,
      baseModel: config.baseModel,
      corpus: { path: options.corpusPath, ...corpus },
      positions: { perDocument: extract.perDocument, maxLength: extract.maxLength, seed: extract.seed },
      batchDocuments: extract.batch,
      compute: extract.compute,
      out: base,
      signal,
    });
  });

  const raw = (set: string) => at("splits", `${set}_raw.parquet`);
  const used = SETS.filter((set) => split[set] > 0);
  for (const set of used) {
    const id = splitDatasetId(baseId, set);
    await step("1", raw(set), { id, from: [base], settings: split }, async () => {
      const { seed, ...fractions } = split;
      await splitByDocument({ base, fractions: { ...fractions, eval: 0 }, seed, out: raw, signal });
      for (const each of used) made.add(raw(each)); // one pass writes all of them
    });
  }

  const explained = (set: string) => at("splits", `${set}_explained.parquet`);
  for (const set of LABELLED.filter((each) => used.includes(each))) {
    const id = explainedDatasetId(splitDatasetId(baseId, set));
    await step("2", explained(set), { id, from: [raw(set)], settings: options.labelSettings }, async () => {
      await labelSet({
        raw: raw(set),
        labeller: await options.labeller(),
        out: explained(set),
        chunkSize: label.chunkSize,
        signal,
      });
    });
  }

  let contract: Contract | null = null;
  const templates = { ...options.templates, keepText: config.keepText };
  for (const set of used) {
    const input = set === "rl" ? raw(set) : explained(set);
    const parent = splitDatasetId(baseId, set);
    const parentId = set === "rl" ? parent : explainedDatasetId(parent);
    const id = trainingDatasetId(parentId, set);
    const file = at(`${set}.parquet`);
    await step("3", file, { id, from: [input], settings: templates }, async () => {
      const target = await options.target();
      contract ??= contractFor(target, config.layer, options.templates);
      const { tokenizer } = target;
      await buildTrainingSet({
        input,
        set,
        contract,
        tokenizer,
        out: file,
        keepText: config.keepText,
        signal,
      });
    });
    if (!shuffle.enabled) continue;
    const shuffled = at(`${set}_shuf.parquet`);
    const shuffledId = shuffledDatasetId(id, shuffle.seed);
    await step("shuffle", shuffled, { id: shuffledId, from: [file], settings: {} }, () =>
      shuffleRows({ file, seed: shuffle.seed, out: shuffled }),
    );
  }
  return files;
}

function contractFor(
  { tokenizer, model }: Target,
  layer: number,
  { verbalizer, reconstructor }: PipelineOptions["templates"],
): Contract {
  return makeContract(
    {
      layer,
      dim: model.config.dim,
      char: chooseMarker(tokenizer).char,
      verbalizerTemplate: verbalizer,
      reconstructorTemplate: reconstructor,
      injectionScale: null, // training chooses it; data sets do not hold it
      format: "tags",
    },
    tokenizer,
  );
}

/** Rows of a finished file; null where it or its sidecar, which is written last, is not there. @throws NlaError `pipeline.other-run` */
async function rowsIfDone(file: string, id: string): Promise<number | null> {
  for (const each of [file, datasetSidecarPath(file)]) {
    const there = await stat(each).catch((thrown: NodeJS.ErrnoException) => {
      if (thrown.code === "ENOENT") return null;
      throw thrown;
    });
    if (there === null) return null;
  }
  using done = await openDataFile(file);
  const { datasetId } = done.sidecar;
  if (datasetId === id) return done.parquet.rowCount;
  throw otherRun(file, datasetId, id);
}

function otherRun(file: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code: "pipeline.other-run",
    subject: file,
    found,
    wanted,
    next: "The folder holds another run: choose another output_dir, or remove this file and what was made from it.",
  });
}

interface State {
  /** @throws NlaError `pipeline.other-run` where the file was made with other settings */
  check(file: string, settings: object): void;
  set(file: string, settings: object): Promise<void>;
}

async function openState(file: string): Promise<State> {
  const text = await readFile(file, "utf8").catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === "ENOENT") return "{}";
    throw thrown;
  });
  const known = readState(text, file);
  return {
    check(name, settings) {
      const [found, wanted] = [known[name], JSON.stringify(settings)];
      // The reference's own files have no note: their ids have to do.
      if (found !== undefined && JSON.stringify(found) !== wanted) {
        throw otherRun(path.join(path.dirname(file), name), `made with ${JSON.stringify(found)}`, wanted);
      }
    },
    async set(name, settings) {
      known[name] = settings;
      await writeFileAtomic(file, `${JSON.stringify(known, null, 2)}\n`);
    },
  };
}

function readState(text: string, file: string): Record<string, object> {
  try {
    const state: unknown = JSON.parse(text);
    if (typeof state === "object" && state !== null && !Array.isArray(state))
      return state as Record<string, object>;
  } catch (thrown) {
    if (!(thrown instanceof SyntaxError)) throw thrown;
  }
  throw otherRun(file, "no JSON object", "the note of what each file was made with");
}
