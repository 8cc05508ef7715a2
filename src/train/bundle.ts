// The bundle of Smallworld from nothing: a target, an NLA of it, both in BF16, measured as they ship, with a card and the log of their
// training. Every stage goes on where it stopped; docs/smallworld.md says how long they take.
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { writeFileAtomic } from "../data/files.js";
import { reportClaims } from "../evaluate/claim-report.js";
import type { ClaimReport } from "../evaluate/claim-report.js";
import { formLosses } from "../evaluate/code-alarm.js";
import { atEqualClaims } from "../evaluate/equal-claims.js";
import { evaluateRows } from "../evaluate/evaluation.js";
import type { Range } from "../evaluate/evaluation.js";
import { explainRows } from "../evaluate/explained-rows.js";
import type { EvalRow, ExplainedRow } from "../evaluate/explained-rows.js";
import { readingsByText, TEXT_ONLY } from "../evaluate/text-only-control.js";
import { claimNumbers } from "../evaluate/world-claims.js";
import { probeWorld } from "../evaluate/world-probes.js";
import type { ProbeResult } from "../evaluate/world-probes.js";
import { worldRows } from "../evaluate/world-rows.js";
import { loadReconstructor, loadVerbalizer, saveReconstructor, saveVerbalizer } from "../nla/pair-files.js";
import { loadNla } from "../nla/read.js";
import type { Nla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { Device } from "../tensor/index.js";
import { renderCard } from "./bundle-card.js";
import { checksumsOf } from "./bundle-checksums.js";
import type { TrainConfig } from "./config.js";
import { readRows } from "./metrics-log.js";
import type { Progress } from "./progress.js";
import { RUN_LAYOUT } from "./run-layout.js";
import { train } from "./run.js";
import type { TargetConfig } from "./target-config.js";
import { trainTarget } from "./train-target.js";

/** Where the bundle is made, from what. */
export interface BundleOptions {
  readonly target: TargetConfig;
  /** Trained on the target of `targetRun`, whatever target it names; the card shows it as it is. */
  readonly nla: TrainConfig;
  /** Run folders of both trainings. */
  readonly targetRun: string;
  readonly nlaRun: string;
  /** The bundle's folder: assets/smallworld in the package. */
  readonly out: string;
  readonly progress: Progress;
  readonly signal?: AbortSignal | undefined;
}

/** What the card says in numbers. */
export interface BundleCard {
  /** ISO date of the measurement. */
  readonly made: string;
  readonly machine: string;
  readonly target: {
    readonly steps: number;
    readonly loss: number;
    readonly bound: number;
  };
  readonly probes: readonly ProbeResult[];
  /** Rows that everything is measured on. */
  readonly rows: { readonly start: number; readonly documents: number; readonly positions: number };
  readonly fve: { readonly greedy: Measured; readonly sampled: Measured; readonly warm: Measured };
  readonly shuffled_fve: Measured;
  readonly claims: ClaimReport;
  /** sha256 of every model file, by its path in the bundle. Absent in bundles of before. */
  readonly files?: Readonly<Record<string, string>>;
  /** The first documents of these rows alone, greedy: what a test can measure again in seconds. */
  readonly sample: {
    readonly documents: number;
    readonly fve: number;
    readonly precision: number;
    readonly recall: number;
  };
}

/** A number with its 95 % interval. */
export interface Measured {
  readonly value: number;
  readonly interval: Range;
}

/** Folders of the bundle. */
export const BUNDLE_LAYOUT = {
  target: "target",
  verbalizer: "verbalizer",
  reconstructor: "reconstructor",
  card: "README.md",
  numbers: "card.json",
  log: "training",
} as const;

/** Documents that the card is measured on: in no training set and in no probe. */
export const CARD_ROWS = { start: 40_000_000, documents: 250, positions: 4 } as const;
const SAMPLE_DOCUMENTS = 60;
// As many as a probe of sixty jobs needs (docs/target.md).
const PROBE_DOCUMENTS = 2000;
const PROBES_FILE = "probes.json";

interface KeptProbes {
  readonly layer: number;
  readonly documents: number;
  readonly results: readonly ProbeResult[];
}

// Of the logs only every so many steps are kept, and every evaluation.
const LOG_EVERY = 10;

/**
 * Makes the bundle, or goes on with it.
 *
 * @returns what the card says
 * @throws NlaError of either training; the signal's reason after saving
 */
export async function makeBundle(options: BundleOptions): Promise<BundleCard> {
  const { target, nla, targetRun, nlaRun, progress, signal } = options;
  const running = { progress, ...(signal ? { signal } : {}) };
  const trained = await trainTarget(target, { ...running, directory: targetRun });
  await probesOf(trained, { targetRun, layer: nla.layer, threads: nla.threads ?? 2, progress, signal });
  // Of the run's own target, so that the bundle stays whole, old target with old pair, until both are new.
  await train({ ...nla, target: trained }, { ...running, directory: nlaRun });
  return await packBundle({ ...options, trained });
}

/**
 * Puts a finished target and pair into the bundle, measures them as they ship, and writes card and logs.
 *
 * @param options.trained folder of the target
 */
export async function packBundle({
  trained,
  targetRun,
  nlaRun,
  nla,
  out,
  progress,
  signal,
}: BundleOptions & { readonly trained: string }): Promise<BundleCard> {
  const folder = (name: keyof typeof BUNDLE_LAYOUT) => path.join(out, BUNDLE_LAYOUT[name]);
  await mkdir(out, { recursive: true });
  await rm(folder("target"), { recursive: true, force: true });
  await cp(trained, folder("target"), { recursive: true });
  const threads = nla.threads ?? 2;
  const probes = await probesOf(trained, { targetRun, layer: nla.layer, threads, progress, signal });
  using device = Device.open({ threads });
  using target = await loadTarget(folder("target"), device);
  await shipPair(nlaRun, out, device);
  using pair = await loadNla(out, device);
  const rows = await worldRows(target, { layer: pair.layer, ...CARD_ROWS, signal });
  const live = progress.stage("measure", { total: null });
  using warm = await loadNla(path.join(nlaRun, RUN_LAYOUT.warmVerbalizer), device, {
    reconstructor: path.join(nlaRun, RUN_LAYOUT.warmReconstructor),
  });
  const { fve, shuffled, claims } = await measurePair(pair, warm, {
    rows,
    maxNewTokens: nla.rl.max_new_tokens,
    signal,
  });
  live.end("done");
  const card: BundleCard = {
    made: new Date().toISOString().slice(0, 10),
    machine: `${os.cpus().length} cores of ${os.cpus()[0]?.model ?? "an unknown processor"}`,
    target: await targetNumbers(targetRun),
    probes,
    rows: CARD_ROWS,
    fve,
    shuffled_fve: shuffled,
    claims,
    files: await checksumsOf(out),
    sample: await sampleOf(target, pair, nla.rl.max_new_tokens),
  };
  await writeFileAtomic(folder("numbers"), `${JSON.stringify(card, null, 1)}\n`);
  await writeFileAtomic(folder("card"), renderCard(card, nla));
  await mkdir(folder("log"), { recursive: true });
  await shipLog(targetRun, path.join(folder("log"), "target.jsonl"));
  await shipLog(nlaRun, path.join(folder("log"), "nla.jsonl"));
  return card;
}

/** A pair on the card's tokens, greedy and sampled, beside its warm start and every control. */
async function measurePair(
  pair: Nla,
  warm: Nla,
  {
    rows,
    ...options
  }: {
    readonly rows: readonly EvalRow[];
    readonly maxNewTokens: number;
    readonly signal: AbortSignal | undefined;
  },
) {
  const explain = (by: Nla, temperature: number) => explainRows(by, rows, { temperature, ...options });
  const { mseScale } = pair.reconstructor.contract;
  const bootstrap = { seed: 0, resamples: 1000 };
  const scored = (name: string, said: readonly ExplainedRow[]) => {
    const scores = evaluateRows(said, { mseScale, bootstrap });
    return { name, fve: scores.fve, rows: said, scores };
  };
  const greedy = scored("greedy", await explain(pair, 0));
  const sampled = scored("sampled, T=1", await explain(pair, 1));
  const warmGreedy = scored("warm start, greedy", await explain(warm, 0));
  const warmSampled = scored("warm start, T=1", await explain(warm, 1));
  const others = [sampled, warmSampled];
  for (const control of TEXT_ONLY) {
    const readings = await readingsByText(pair, greedy.rows, { ...control, signal: options.signal });
    others.push(...readings.map(({ name, rows: said }) => scored(name, said)));
  }
  const report = await reportClaims(pair, {
    greedy,
    others,
    warm: warmGreedy,
    warmForms: await formLosses(warm, warmGreedy.rows, bootstrap),
    bootstrap,
    ...options,
  });
  const equal = [];
  for (const [trained, before] of [
    [greedy, warmGreedy],
    [sampled, warmSampled],
  ] as const) {
    const said = { nla: pair, rows: trained.rows };
    const found = await atEqualClaims(trained.name, said, { nla: warm, rows: before.rows }, bootstrap);
    if (found) equal.push(found);
  }
  const measured = ({ scores: { fve, intervals } }: typeof greedy): Measured => ({
    value: fve,
    interval: intervals.fve,
  });
  const { controls, intervals } = greedy.scores;
  return {
    fve: { greedy: measured(greedy), sampled: measured(sampled), warm: measured(warmGreedy) },
    shuffled: { value: controls.shuffled.fve, interval: intervals.shuffled_fve },
    claims: { ...report, equal_claims: equal },
  };
}

interface ProbeContext extends Pick<BundleOptions, "targetRun" | "progress" | "signal"> {
  readonly layer: number;
  readonly threads: number;
}

/** What the target holds at the NLA's layer: measured before any NLA is trained, and kept beside the target, for it takes minutes. */
async function probesOf(
  trained: string,
  { targetRun, layer, threads, progress, signal }: ProbeContext,
): Promise<readonly ProbeResult[]> {
  const file = path.join(targetRun, PROBES_FILE);
  if (existsSync(file)) {
    const kept = JSON.parse(await readFile(file, "utf8")) as KeptProbes;
    if (kept.layer === layer && kept.documents === PROBE_DOCUMENTS) return kept.results;
  }
  const live = progress.stage("probe", { total: null });
  using device = Device.open({ threads });
  using target = await loadTarget(trained, device);
  const results = await probeWorld(target, { layers: [layer], documents: PROBE_DOCUMENTS, signal });
  live.end("done");
  const kept: KeptProbes = { layer, documents: PROBE_DOCUMENTS, results };
  await writeFileAtomic(file, `${JSON.stringify(kept)}\n`);
  return results;
}

/** The numbers of the card's first documents, greedy. */
export async function sampleOf(
  target: Target,
  pair: Nla,
  maxNewTokens: number,
): Promise<BundleCard["sample"]> {
  const options = { ...CARD_ROWS, documents: SAMPLE_DOCUMENTS, layer: pair.layer };
  const rows = await worldRows(target, options);
  const explained = await explainRows(pair, rows, { temperature: 0, maxNewTokens });
  const { fve } = evaluateRows(explained, {
    mseScale: pair.reconstructor.contract.mseScale,
    bootstrap: { resamples: 1 },
  });
  const numbers = claimNumbers(explained);
  return {
    documents: SAMPLE_DOCUMENTS,
    fve,
    precision: numbers?.precision ?? 0,
    recall: numbers?.recall ?? 0,
  };
}

async function shipPair(run: string, out: string, device: Device): Promise<void> {
  const facts = {
    stage: "rl",
    baseCheckpoint: "smallworld",
    parentCheckpoints: ["smallworld"],
    trainedOn: ["world-1"],
  };
  const place = async (name: "verbalizer" | "reconstructor") => {
    const folder = path.join(out, name);
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    return folder;
  };
  using verbalizer = (await loadVerbalizer(path.join(run, RUN_LAYOUT.verbalizer), device)).model;
  await saveVerbalizer(await place("verbalizer"), verbalizer, facts, { dtype: "BF16" });
  using reconstructor = (await loadReconstructor(path.join(run, RUN_LAYOUT.reconstructor), device)).model;
  await saveReconstructor(await place("reconstructor"), reconstructor, facts, { dtype: "BF16" });
}

async function targetNumbers(run: string): Promise<BundleCard["target"]> {
  const rows = await readRows(path.join(run, RUN_LAYOUT.metrics));
  const last = rows.at(-1) as unknown as { step: number; eval?: { loss: number; bound?: number } };
  return { steps: last.step + 1, loss: last.eval?.loss ?? NaN, bound: last.eval?.bound ?? NaN };
}

async function shipLog(run: string, file: string): Promise<void> {
  const text = await readFile(path.join(run, RUN_LAYOUT.metrics), "utf8");
  const lines = text.split("\n").filter((line) => line !== "");
  const kept = lines.filter((line) => {
    const { step, eval: measured } = JSON.parse(line) as { step: number; eval?: unknown };
    return measured !== undefined || step % LOG_EVERY === 0;
  });
  await writeFileAtomic(file, `${kept.join("\n")}\n`);
}
