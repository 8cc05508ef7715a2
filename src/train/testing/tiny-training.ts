// What the training tests share: labelled activations of the bundled target on bits of the bundled text, a pair as training
// starts, settings with defaults, and the outputs of a loop in a temporary folder. Not part of the package.
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { makeContract } from "../../nla/contract.js";
import {
  loadReconstructor,
  loadVerbalizer,
  saveReconstructor,
  saveVerbalizer,
} from "../../nla/pair-files.js";
import type { Reconstructor } from "../../nla/reconstructor.js";
import { chooseMarker, startReconstructor, startVerbalizer } from "../../nla/start.js";
import { activationsOf, loadTarget } from "../../nla/target.js";
import type { Target } from "../../nla/target.js";
import type { Verbalizer } from "../../nla/verbalizer.js";
import { Device } from "../../tensor/index.js";
import { configSchema } from "../config-schema.js";
import type { TrainConfig, TrainConfigInput } from "../config-schema.js";
import type { HeldOutRow } from "../held-out.js";
import type { LoopOutputs } from "../loop.js";
import { openProgress } from "../progress.js";
import { RUN_LAYOUT } from "../run-layout.js";
import type { TrainingStage } from "../run-layout.js";
import { warmStartReconstructor, warmStartVerbalizer } from "../warm-start.js";
import type { RowSource, Storage } from "../warm-start.js";

const LAYER = 2;
const SCALE = 4;
const DOCUMENT_CHARACTERS = 160;
const POSITIONS = [14, 21, 28, 35];

/** The bundled target on one thread, and labelled activations of it. */
export interface TinyTraining extends Disposable {
  readonly device: Device;
  readonly target: Target;
  /** Rows of documents 0, 1, ...: four each, one after another. The label is the word at the position. */
  readonly rows: readonly (HeldOutRow & { readonly label: string })[];
  /** A pair as training starts. */
  pair(): TinyPair;
}

/** A verbalizer and a reconstructor. */
export interface TinyPair extends Disposable {
  readonly verbalizer: Verbalizer;
  readonly reconstructor: Reconstructor;
}

/** Opens the target and reads `documents` bits of text with it. */
export async function openTinyTraining(documents: number): Promise<TinyTraining> {
  const device = Device.open({ threads: 1 });
  const target = await loadTarget("aidreams260K", device);
  const text = await readFile(
    path.resolve(import.meta.dirname, "../../../assets/text/shakespeare.txt"),
    "utf8",
  );
  const rows: TinyTraining["rows"][number][] = [];
  for (let i = 0; i < documents; i++) {
    const part = text.slice(i * DOCUMENT_CHARACTERS, (i + 1) * DOCUMENT_CHARACTERS);
    const ids = target.tokenizer.encode(part, { addSpecialTokens: true }).slice(0, 40);
    const [activations] = (await activationsOf(target, LAYER, [ids])) as [Float32Array];
    const { dim } = target.model.config;
    for (const position of POSITIONS) {
      const read = target.tokenizer.decode(ids.slice(0, position + 1));
      const label = read.trim().split(/\s+/).at(-1) as string;
      const vector = activations.slice(position * dim, (position + 1) * dim);
      rows.push({ vector, docId: `bit:${i}`, position, text: read, label });
    }
  }
  return {
    device,
    target,
    rows,
    pair: () => startPair(target),
    [Symbol.dispose]() {
      target[Symbol.dispose]();
      device[Symbol.dispose]();
    },
  };
}

function startPair(target: Target): TinyPair {
  const marker = chooseMarker(target.tokenizer);
  const contract = makeContract(
    {
      layer: LAYER,
      dim: target.model.config.dim,
      char: marker.char,
      verbalizerTemplate: "({injection_char})",
      reconstructorTemplate: "{explanation}",
      injectionScale: SCALE,
      format: "plain",
    },
    marker.tokenizer,
  );
  const verbalizer = startVerbalizer(target.model, marker.tokenizer, contract);
  const reconstructor = startReconstructor(target.model, target.tokenizer, contract);
  return {
    verbalizer,
    reconstructor,
    [Symbol.dispose]() {
      verbalizer[Symbol.dispose]();
      reconstructor[Symbol.dispose]();
    },
  };
}

/** A whole config from the few keys that a test cares about. */
export function tinyConfig(keys: Partial<TrainConfigInput> = {}): TrainConfig {
  return configSchema.parse({ target: "aidreams260K", layer: LAYER, corpus: { path: "x.txt" }, ...keys });
}

/** Rows in memory as a training set. */
export function inMemory<Row>(rows: readonly Row[]): RowSource<Row> {
  return {
    rowCount: rows.length,
    rows: (indices) => Promise.resolve(indices.map((index) => rows[index] as Row)),
  };
}

/** A temporary folder that is removed at the end of its scope. */
export async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const folder = await mkdtemp(path.join(os.tmpdir(), "nla-train-"));
  return { path: folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

/** Outputs of a stage in a folder, watched by nobody. */
export function outputsIn(
  folder: string,
  stage: TrainingStage,
  { checkpointEvery = 1000, signal }: { checkpointEvery?: number; signal?: AbortSignal } = {},
): LoopOutputs {
  return {
    place: { root: path.join(folder, RUN_LAYOUT.checkpoints), stage, configHash: "tiny" },
    metricsFile: path.join(folder, RUN_LAYOUT.metrics),
    samplesFile: path.join(folder, RUN_LAYOUT.samples),
    progress: openProgress({ stream: { write: () => undefined }, clock: () => 0 }),
    checkpointEvery,
    keepCheckpoints: 2,
    signal,
  };
}

const FACTS = { stage: "sl", baseCheckpoint: "aidreams260K", parentCheckpoints: [], trainedOn: [] };

/** Writes the models that are given into checkpoints, as a run does. */
export function storageOf({ verbalizer, reconstructor }: Partial<TinyPair>): Storage {
  return {
    async save(directory) {
      if (verbalizer) await saveVerbalizer(path.join(directory, "verbalizer"), verbalizer, FACTS);
      if (reconstructor) await saveReconstructor(path.join(directory, "reconstructor"), reconstructor, FACTS);
    },
  };
}

interface Readable {
  readF32(): Float32Array;
}

/** sha256 of the values of some parameters: equal where they are, bit for bit. */
export function digestOf(parameters: ReadonlyMap<string, Readable>): string {
  const hash = createHash("sha256");
  for (const [name, tensor] of parameters) {
    hash.update(name);
    hash.update(tensor.readF32());
  }
  return hash.digest("hex");
}

/** sha256 of a file. */
export async function digestOfFile(file: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(file))
    .digest("hex");
}

/**
 * Writes a pair into `folder` that has learnt the rows a little: it ends its responses, and its samples differ in how well they
 * can be reconstructed. What reinforcement learning starts from.
 */
export async function writeWarmPair(
  tiny: TinyTraining,
  folder: string,
  { rows, steps }: { rows: TinyTraining["rows"]; steps: number },
): Promise<void> {
  using pair = tiny.pair();
  const { verbalizer, reconstructor } = pair;
  const batch = rows.length;
  const settings = { steps, batch, micro_batch: batch, lr: 3e-3, warmup: 2 };
  const config = tinyConfig({ reconstructor: settings, verbalizer: settings });
  const context = (stage: "ar_sft" | "av_sft") => ({
    rows: inMemory(rows),
    heldOut: rows,
    settings: stage === "ar_sft" ? config.reconstructor : config.verbalizer,
    log: { ...config.log, eval_every: steps, sample_every: steps },
    compute: "f32" as const,
    maxNewTokens: 12,
    outputs: outputsIn(path.join(folder, "warm"), stage),
  });
  await mkdir(path.join(folder, "warm"), { recursive: true });
  await warmStartReconstructor(reconstructor, context("ar_sft"), storageOf({ reconstructor }));
  await warmStartVerbalizer(verbalizer, reconstructor, context("av_sft"), storageOf({ verbalizer }));
  await storageOf(pair).save(folder);
}

/** A pair from where {@link writeWarmPair} or a checkpoint left it. */
export async function readPair({ device }: TinyTraining, folder: string): Promise<TinyPair> {
  const { model: verbalizer } = await loadVerbalizer(path.join(folder, "verbalizer"), device);
  const { model: reconstructor } = await loadReconstructor(path.join(folder, "reconstructor"), device);
  return {
    verbalizer,
    reconstructor,
    [Symbol.dispose]() {
      verbalizer[Symbol.dispose]();
      reconstructor[Symbol.dispose]();
    },
  };
}
