// A checkpoint inside a training stage: the folder `checkpoints/{stage}/step-000123/` with `state.json` and, beside it, the
// safetensors files that callers write. The folder appears whole, by one rename, so the newest one that is there can be
// trusted; it is found by looking, and no pointer file can be wrong.
//
// What the weights and moments are is not known here: callers write and read them through callbacks.
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { removeStaleTemporaries, writeDirectoryAtomic, writeFileAtomic } from "../data/files.js";
import { NlaError, messageOf } from "../error.js";

const STATE_FILE = "state.json";
const STEP_FOLDER = /^step-(\d{6,15})$/;

const seed = z.union([z.int(), z.string()]);
const numbers = z.record(z.string(), z.number());

const contentSchema = z.strictObject({
  stage: z.string().min(1),
  /** Steps that are complete; the next one to run has this number, counted from 0. */
  step: z.int().min(0),
  /** Where the order of the data stands. */
  data: z.strictObject({
    /** Passes over the data that are complete. */
    epoch: z.int().min(0),
    /** Rows of this pass that are used up. */
    offset: z.int().min(0),
  }),
  /** Named seeds or generator states: from them and `step` everything random follows. */
  seeds: z.record(z.string(), seed),
  /** Counters of each optimizer by its name, such as `{ verbalizer: { steps: 120, skipped: 1 } }`. */
  optimizers: z.record(z.string(), numbers),
  /** The best value of each metric so far, such as `{ fve: 0.31 }`. */
  best: numbers,
});

const stateSchema = contentSchema.extend({
  version: z.literal(1),
  config_hash: z.string(),
  /** Every other file in the folder, by its path there, with its size: how a cut-off copy is noticed. */
  files: z.record(z.string(), z.int().min(0)),
});

/** What a checkpoint says besides its weights. */
export type TrainingState = z.output<typeof contentSchema>;

/** A checkpoint on disk. */
export interface Checkpoint {
  readonly directory: string;
  readonly state: TrainingState;
  /** Paths of its files relative to `directory`, sorted. */
  readonly files: readonly string[];
}

/** Where the checkpoints of a stage are, and the run that they belong to. */
export interface CheckpointPlace {
  /** The run's `checkpoints` folder. */
  readonly root: string;
  readonly stage: string;
  /** `configHash` of the run: a checkpoint of another config is never resumed from. */
  readonly configHash: string;
}

/** The name of the folder of a step: `step-000123`. */
export function stepFolder(step: number): string {
  return `step-${String(step).padStart(6, "0")}`;
}

async function filesIn(folder: string, prefix = ""): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(path.join(folder, prefix), { withFileTypes: true })) {
    const name = prefix === "" ? entry.name : `${prefix}/${entry.name}`;
    if (entry.isDirectory()) found.push(...(await filesIn(folder, name)));
    else found.push(name);
  }
  return found.sort();
}

/** Numbers of the checkpoints of a stage, ascending; none where the stage has not begun. */
export async function checkpointSteps({
  root,
  stage,
}: Pick<CheckpointPlace, "root" | "stage">): Promise<number[]> {
  let names: string[];
  try {
    names = await readdir(path.join(root, stage));
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw thrown;
  }
  const steps = names.flatMap((name) => STEP_FOLDER.exec(name)?.[1] ?? []).map(Number);
  return steps.sort((a, b) => a - b);
}

/** Which checkpoints of a stage stay. */
export interface Retention {
  /** How many of the newest scheduled ones, at least one. Defaults to 2. */
  readonly keep?: number;
  /**
   * Whether every run of the config leaves a checkpoint at a step. One of another step, saved where a run was stopped, goes as
   * soon as there is a newer one, so that a finished run has the same checkpoints however often it was stopped. Defaults to
   * all.
   */
  readonly scheduled?: (step: number) => boolean;
}

/**
 * Writes a checkpoint: `write` fills a temporary folder with weights and moments, the state is put beside them, all of it
 * is flushed and renamed into place. Then the checkpoints of the stage that need not stay are removed.
 *
 * @returns the checkpoint's folder
 * @throws NlaError `disk.full`, with the older checkpoints untouched; `checkpoint.state` for numbers that are not finite
 */
export async function saveCheckpoint(
  { root, configHash }: Omit<CheckpointPlace, "stage">,
  state: TrainingState,
  write: (directory: string) => Promise<void>,
  retention: Retention = {},
): Promise<string> {
  const checked = contentSchema.safeParse(state);
  if (!checked.success) {
    const issue = checked.error.issues[0];
    throw new NlaError({
      code: "checkpoint.state",
      subject: `the state of step ${state.step} of ${state.stage}`,
      found: `${issue?.path.map(String).join(".")}: ${issue?.message}`,
      wanted: "whole counters and finite numbers",
      next: "Leave metrics that are not finite out of `best`.",
    });
  }
  const parent = path.join(root, state.stage);
  const directory = path.join(parent, stepFolder(state.step));
  await mkdir(parent, { recursive: true });
  await writeDirectoryAtomic(directory, async (temporary) => {
    await write(temporary);
    const files: Record<string, number> = {};
    for (const name of await filesIn(temporary)) files[name] = (await stat(path.join(temporary, name))).size;
    const content = { version: 1, config_hash: configHash, ...checked.data, files };
    await writeFileAtomic(path.join(temporary, STATE_FILE), `${JSON.stringify(content, null, 2)}\n`);
  });
  await pruneCheckpoints({ root, stage: state.stage }, retention);
  return directory;
}

/** Removes the checkpoints of a stage that need not stay; the newest always does. */
export async function pruneCheckpoints(
  { root, stage }: Pick<CheckpointPlace, "root" | "stage">,
  { keep = 2, scheduled = () => true }: Retention = {},
): Promise<void> {
  const steps = await checkpointSteps({ root, stage });
  const stay = new Set([...steps.filter(scheduled).slice(-Math.max(1, keep)), steps.at(-1)]);
  for (const step of steps.filter((each) => !stay.has(each))) {
    await rm(path.join(root, stage, stepFolder(step)), { recursive: true, force: true });
  }
}

/**
 * Reads one checkpoint and checks that it is whole.
 *
 * @throws NlaError `checkpoint.damaged` where the state cannot be read or a file is missing or of another size,
 *   `checkpoint.other-config`
 */
export async function openCheckpoint(place: CheckpointPlace, step: number): Promise<Checkpoint> {
  const directory = path.join(place.root, place.stage, stepFolder(step));
  const damaged = (subject: string, found: string, wanted: string, cause?: unknown) =>
    new NlaError({
      code: "checkpoint.damaged",
      subject,
      found,
      wanted,
      next: `Delete ${directory}: the run then goes on from the checkpoint before it.`,
      cause,
    });
  const file = path.join(directory, STATE_FILE);
  let content: z.output<typeof stateSchema>;
  try {
    content = stateSchema.parse(JSON.parse(await readFile(file, "utf8")));
  } catch (cause) {
    throw damaged(file, messageOf(cause).split("\n")[0] ?? "", "the JSON that nlakit wrote", cause);
  }
  const { version: _, config_hash, files, ...state } = content;
  if (state.stage !== place.stage || state.step !== step) {
    throw damaged(file, `step ${state.step} of ${state.stage}`, `step ${step} of ${place.stage}`);
  }
  if (config_hash !== place.configHash) {
    throw new NlaError({
      code: "checkpoint.other-config",
      subject: directory,
      found: `a checkpoint of config ${config_hash.slice(0, 12)}`,
      wanted: `one of config ${place.configHash.slice(0, 12)}`,
      next: "Train in another run folder, or delete the checkpoint.",
    });
  }
  const there = new Set(await filesIn(directory));
  for (const [name, size] of Object.entries(files)) {
    const full = path.join(directory, name);
    if (!there.has(name)) throw damaged(full, "no such file", `a file of ${size.toLocaleString("en")} bytes`);
    const { size: found } = await stat(full);
    if (found !== size)
      throw damaged(full, `${found.toLocaleString("en")} bytes`, `${size.toLocaleString("en")} bytes`);
  }
  return { directory, state, files: Object.keys(files).sort() };
}

/**
 * The newest checkpoint of a stage, or null where there is none: training then starts at step 0. What killed processes
 * left half-written is removed on the way: call it only under the run's lock.
 *
 * @throws NlaError as {@link openCheckpoint}: a damaged newest checkpoint is told, not passed over, because going on from an
 *   older one would silently repeat work
 */
export async function latestCheckpoint(place: CheckpointPlace): Promise<Checkpoint | null> {
  await removeStaleTemporaries(path.join(place.root, place.stage), { exclusive: true });
  const newest = (await checkpointSteps(place)).at(-1);
  return newest === undefined ? null : openCheckpoint(place, newest);
}
