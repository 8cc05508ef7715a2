// A run folder: created or opened for one config by one process, its stages run once each. A stage writes under
// `.staging`, mirrored like the run folder itself; when it ends well its outputs are flushed, renamed into place, and only
// then is the stage marked as done. So a kill at any moment leaves a stage done or not done, never half done.
//
// What a stage does is not known here. Checkpoints inside a long stage are in training-state.ts, logs in metrics-log.ts.
import { mkdir, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { removeStaleTemporaries, writeFileAtomic } from "../data/files.js";
import { NlaError, messageOf } from "../error.js";
import { configDifferences, configHash, renderConfig } from "./config.js";
import type { TrainConfig } from "./config.js";
import { acquireRunLock } from "./run-lock.js";
import type { RunLock } from "./run-lock.js";
import { RUN_LAYOUT } from "./run-layout.js";

/** What JSON can hold. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

const MAX_SHOWN = 5; // differing keys that an error lists

const stateSchema = z.strictObject({
  version: z.literal(1),
  config_hash: z.string(),
  // A list, not a mapping: the order in which stages ended is part of the record.
  stages: z.array(z.strictObject({ name: z.string(), result: z.json() })),
});
type RunState = z.output<typeof stateSchema>;

/** What a stage gets. */
export interface StageContext {
  readonly name: string;
  /** A fresh folder that mirrors the run folder; whatever lies in it when the stage ends is moved there. */
  readonly staging: string;
  /**
   * The path to write an output to, given its place in the run folder (`data/base.parquet`). Its folder exists, it does
   * not. A folder named so replaces the one that stands there as a whole; files beside it are added to those there.
   */
  output(relative: string): Promise<string>;
}

/** An open run folder; `close` it, or hold it with `await using`. */
export interface RunFolder<Config extends object = TrainConfig> extends AsyncDisposable {
  /** Absolute. */
  readonly root: string;
  readonly config: Config;
  /** The full path of something in the folder: `run.path(RUN_LAYOUT.metrics)`. */
  path(relative: string): string;
  /** Names of the stages that are done, in the order in which they ended. */
  doneStages(): readonly string[];
  /**
   * Runs a stage, or, where it is done, returns what it returned then. The result is kept in state.json.
   *
   * @throws whatever `stage` throws, with nothing changed in the run folder; NlaError `run.result` for a result that is
   *   not JSON, `run.stage-running` for a stage inside a stage
   */
  runStage<T extends Json | void>(name: string, stage: (context: StageContext) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

async function readTextOrNull(file: string): Promise<string | null> {
  try {
    return await readFile(file, "utf8");
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw thrown;
  }
}

/** @throws NlaError `run.other-config` with the first keys that differ, both values; `run.config-damaged` */
function checkSameConfig(root: string, text: string, config: object): void {
  const file = path.join(root, RUN_LAYOUT.config);
  let there: unknown;
  try {
    there = parse(text);
  } catch (cause) {
    throw new NlaError({
      code: "run.config-damaged",
      subject: file,
      found: messageOf(cause),
      wanted: "the YAML that nlakit wrote",
      next: "Restore the file, or start a run in another folder with --run.",
      cause,
    });
  }
  const differences = configDifferences(there, config);
  if (differences.length === 0) return;
  const list = (side: "left" | "right") => {
    const shown = differences.slice(0, MAX_SHOWN).map((each) => `${each.key} ${each[side] ?? "absent"}`);
    const more = differences.length - shown.length;
    return shown.join(", ") + (more > 0 ? ` and ${more} more` : "");
  };
  throw new NlaError({
    code: "run.other-config",
    subject: root,
    found: `a run with ${list("left")}`,
    wanted: `a run with ${list("right")}`,
    next: `Choose another folder with --run, or give the values of ${file} to go on with that run.`,
  });
}

function readState(file: string, text: string, hash: string): RunState {
  try {
    const state = stateSchema.parse(JSON.parse(text));
    if (state.config_hash === hash) return state;
  } catch (cause) {
    throw new NlaError({
      code: "run.state-damaged",
      subject: file,
      found: messageOf(cause).split("\n")[0] ?? "",
      wanted: "the JSON that nlakit wrote",
      next: "Delete it: every stage then runs again, training from its newest checkpoint.",
      cause,
    });
  }
  throw new NlaError({
    code: "run.state-damaged",
    subject: file,
    found: "the state of a run with another config",
    wanted: `the state of the run whose config.yaml lies beside it (${hash.slice(0, 12)})`,
    next: "Restore the two files from one run, or start a run in another folder.",
  });
}

async function flushPath(file: string): Promise<void> {
  if (process.platform === "win32") return; // folders cannot be opened there, and files only for writing
  const handle = await open(file, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function isFolder(file: string): Promise<boolean> {
  try {
    return (await stat(file)).isDirectory();
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw thrown;
  }
}

async function flushTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    await (entry.isDirectory() ? flushTree(full) : flushPath(full));
  }
  await flushPath(folder);
}

/** Moves what is in `from` into `to`: new folders at once, into folders that exist file by file. */
async function publish(from: string, to: string, whole: ReadonlySet<string>): Promise<void> {
  for (const entry of (await readdir(from, { withFileTypes: true })).sort((a, b) =>
    a.name < b.name ? -1 : 1,
  )) {
    const source = path.join(from, entry.name);
    const target = path.join(to, entry.name);
    if (entry.isDirectory() && (await isFolder(target))) {
      if (!whole.has(source)) {
        await publish(source, target, whole);
        continue;
      }
      // Only after a kill between here and the mark in state.json can it be there; the stage then runs again.
      await rm(target, { recursive: true });
    }
    await rename(source, target);
  }
  await flushPath(to);
}

// The path and kind of the first thing that JSON would drop or change; null where there is none.
function jsonFault(value: unknown, at: string): string | null {
  if (value === null || typeof value === "boolean" || typeof value === "string") return null;
  if (typeof value === "number") return Number.isFinite(value) ? null : `${at} = ${value}`;
  if (typeof value !== "object") return `${at} = ${typeof value}`;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null)
    return `${at} = ${value.constructor.name}`;
  for (const [key, inner] of Object.entries(value)) {
    const fault = jsonFault(inner, `${at}.${key}`);
    if (fault !== null) return fault;
  }
  return null;
}

/** The result as JSON would give it back, so that a skipped stage returns the same as one that ran. */
function asJson(name: string, result: unknown): Json {
  if (result === undefined) return null;
  const fault = jsonFault(result, "result");
  if (fault === null) return JSON.parse(JSON.stringify(result)) as Json;
  throw new NlaError({
    code: "run.result",
    subject: `the result of stage ${name}`,
    found: fault,
    wanted: "null, booleans, finite numbers, strings, and lists and plain objects of them",
    next: "Return only what a later stage needs, as plain values.",
  });
}

/**
 * Creates a run folder for `config`, or opens the one that is there and goes on with it.
 *
 * @param options.now the time that the lock shows to others; nothing else in the folder holds a time
 * @throws NlaError `run.other-config`, `run.foreign-folder` where the folder holds other things, `run.locked` where another
 *   process works in it, `run.state-damaged`, `run.config-damaged`
 */
export async function openRunFolder<Config extends object = TrainConfig>(
  directory: string,
  config: Config,
  { now = () => new Date() }: { readonly now?: () => Date } = {},
): Promise<RunFolder<Config>> {
  const root = path.resolve(directory);
  const at = (relative: string) => path.join(root, relative);
  const existing = await readTextOrNull(at(RUN_LAYOUT.config));
  // Before the lock: a wrong folder is the better thing to hear of.
  if (existing === null) await refuseForeignFolder(root);
  else if (await hasBegun(root)) checkSameConfig(root, existing, config);
  await mkdir(root, { recursive: true });
  const lock = await acquireRunLock(at(RUN_LAYOUT.lock), { now });
  try {
    return await openLocked(root, config, lock);
  } catch (thrown) {
    await lock.release();
    throw thrown;
  }
}

/** Whether a run has left anything besides its config: a config with a mistake in it may be corrected and started again. */
async function hasBegun(root: string): Promise<boolean> {
  const ours = new Set<string>([RUN_LAYOUT.config, RUN_LAYOUT.lock]);
  return (await readdir(root)).some((name) => !ours.has(name) && !name.startsWith("."));
}

async function refuseForeignFolder(root: string): Promise<void> {
  let names: string[];
  try {
    names = await readdir(root);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return;
    throw new NlaError({
      code: "run.foreign-folder",
      subject: root,
      found: messageOf(cause),
      wanted: "a folder, or a path where one can be made",
      next: "Choose another folder with --run.",
      cause,
    });
  }
  // A start that was killed before it wrote the config leaves the lock and temporary files.
  const others = names.filter((name) => name !== RUN_LAYOUT.lock && !name.startsWith(".")).sort();
  if (others.length === 0) return;
  throw new NlaError({
    code: "run.foreign-folder",
    subject: root,
    found: `no ${RUN_LAYOUT.config}, but ${others.slice(0, MAX_SHOWN).join(", ")}${others.length > MAX_SHOWN ? ", ..." : ""}`,
    wanted: "a run folder, an empty folder or none",
    next: "Choose another folder with --run.",
  });
}

async function openLocked<Config extends object>(
  root: string,
  config: Config,
  lock: RunLock,
): Promise<RunFolder<Config>> {
  const at = (relative: string) => path.join(root, relative);
  await removeStaleTemporaries(root, { exclusive: true });
  // Again under the lock: another starter may have written it since.
  const text = await readTextOrNull(at(RUN_LAYOUT.config));
  if (text !== null && (await hasBegun(root))) checkSameConfig(root, text, config);
  else await writeFileAtomic(at(RUN_LAYOUT.config), renderConfig(config));
  const hash = configHash(config);
  const stateText = await readTextOrNull(at(RUN_LAYOUT.state));
  const stages: RunState["stages"] =
    stateText === null ? [] : readState(at(RUN_LAYOUT.state), stateText, hash).stages;
  await rm(at(RUN_LAYOUT.staging), { recursive: true, force: true });

  let running: string | null = null;
  const runStage: RunFolder<Config>["runStage"] = async (name, stage) => {
    type Result = Awaited<ReturnType<typeof stage>>;
    const done = stages.find((each) => each.name === name);
    if (done) return structuredClone(done.result) as Result;
    if (running !== null) {
      throw new NlaError({
        code: "run.stage-running",
        subject: `stage ${name} of ${root}`,
        found: `stage ${running} still at work`,
        wanted: "one stage at a time",
        next: "Await one runStage before the next.",
      });
    }
    running = name;
    const staging = at(path.join(RUN_LAYOUT.staging, name));
    const whole = new Set<string>();
    try {
      await mkdir(staging, { recursive: true });
      const output = async (relative: string) => {
        const full = path.join(staging, relative);
        whole.add(full);
        await mkdir(path.dirname(full), { recursive: true });
        return full;
      };
      const result = asJson(name, await stage({ name, staging, output }));
      await flushTree(staging);
      await publish(staging, root, whole);
      const state: RunState = {
        version: 1,
        config_hash: hash,
        stages: [...stages, { name, result: result as never }],
      };
      await writeFileAtomic(at(RUN_LAYOUT.state), `${JSON.stringify(state, null, 2)}\n`);
      stages.push({ name, result: result as never });
      return structuredClone(result) as Result;
    } finally {
      running = null;
      await rm(at(RUN_LAYOUT.staging), { recursive: true, force: true });
    }
  };
  const close = () => lock.release();
  return {
    root,
    config,
    path: at,
    doneStages: () => stages.map(({ name }) => name),
    runStage,
    close,
    [Symbol.asyncDispose]: close,
  };
}
