// The whole recipe over one run folder, start to end: extract, split, label, build, shuffle, the two warm starts,
// reinforcement learning, evaluation. Each stage runs once; a run that was stopped goes on where it stood. This file is the
// table of contents: what a stage does is in the file it calls.
import { access } from "node:fs/promises";
import path from "node:path";
import { NlaError } from "../error.js";
import type { FveBaselines } from "../nla/fidelity.js";
import { makeContract } from "../nla/contract.js";
import type { Contract } from "../nla/contract.js";
import { writeFileAtomic } from "../data/files.js";
import { evaluateRows, fveGain } from "../evaluate/evaluation.js";
import { explainRows } from "../evaluate/explained-rows.js";
import { readHeldOutRows } from "../evaluate/held-out-rows.js";
import { loadReconstructor, loadVerbalizer, saveReconstructor, saveVerbalizer } from "../nla/pair-files.js";
import type { CheckpointFacts } from "../nla/sidecar-contract.js";
import type { Reconstructor } from "../nla/reconstructor.js";
import { loadNla } from "../nla/read.js";
import { chooseMarker, startReconstructor, startVerbalizer } from "../nla/start.js";
import { loadTarget, targetDirectory } from "../nla/target.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import { checkLayer, loadConfig as loadModelConfig, Lora, threadsFor } from "../model/index.js";
import { Device } from "../tensor/index.js";
import { branchRun } from "./branch.js";
import { corpusName } from "./config.js";
import { configHash } from "./config.js";
import { WARM_START } from "./config-schema.js";
import type { TrainConfig } from "./config-schema.js";
import { continueLabels } from "./continue-labels.js";
import { runGrpo } from "./grpo.js";
import type { HeldOutRow } from "./held-out.js";
import type { WarmRows } from "./label-stream.js";
import { resumePoint } from "./loop.js";
import type { LoopOutputs } from "./loop.js";
import type { RunContext, RunOptions } from "./run-context.js";
import { openRunFolder } from "./run-folder.js";
import { RUN_LAYOUT, trainingFile } from "./run-layout.js";
import type { TrainingStage } from "./run-layout.js";
import { makeData, openHeldOut, openLabelled, openVectors } from "./run-data.js";
import { wordingOf } from "./wording.js";
import { warmStartReconstructor, warmStartVerbalizer } from "./warm-start.js";
import type { Storage } from "./warm-start.js";

/**
 * Trains a pair, or goes on with a run that was stopped.
 *
 * @returns the run folder's path
 * @throws NlaError of whatever is wrong with config, target, corpus or folder; the signal's reason after saving
 */
export async function train(config: TrainConfig, options: RunOptions): Promise<string> {
  await requireJudges(config);
  if (options.from !== undefined) await branchRun(options.from, options.directory, config);
  await using run = await openRunFolder(options.directory, config);
  const threads = config.threads ?? threadsFor(await loadModelConfig(targetDirectory(config.target)));
  using device = Device.open({ threads });
  using target = await loadTarget(config.target, device);
  checkLayer(config.layer, target.model.config.layers);
  const context: RunContext = {
    ...options,
    run,
    config,
    device,
    target,
    marker: chooseMarker(target.tokenizer),
  };

  const facts = await makeData(context);
  const contract = contractFor(context, facts.injectionScale);
  await run.runStage("ar_sft", async (stage) => {
    await using reconstructor = await currentReconstructor(context, contract, "ar_sft");
    if (config.reconstructor.steps > 0) await trainReconstructor(context, reconstructor.model);
    const out = await stage.output(RUN_LAYOUT.warmReconstructor);
    await saveReconstructor(out, reconstructor.model, checkpointFacts(context, "sl"));
  });
  await run.runStage("av_sft", async (stage) => {
    await using verbalizer = await currentVerbalizer(context, contract, "av_sft");
    if (config.verbalizer.steps > 0) await trainVerbalizer(context, verbalizer.model);
    const out = await stage.output(RUN_LAYOUT.warmVerbalizer);
    await saveVerbalizer(out, verbalizer.model, checkpointFacts(context, "sl"));
  });
  await run.runStage("rl", async (stage) => {
    await using verbalizer = await currentVerbalizer(context, contract, "rl");
    await using reconstructor = await currentReconstructor(context, contract, "rl");
    if (config.rl.steps > 0) {
      if (config.rl.objective === "labels")
        await goOnWithLabels(context, verbalizer.model, reconstructor.model);
      else await reinforce(context, verbalizer.model, reconstructor.model, facts.baselines);
    }
    await verbalizer.model.model.merge();
    await reconstructor.model.model.merge();
    await saveVerbalizer(
      await stage.output(RUN_LAYOUT.verbalizer),
      verbalizer.model,
      checkpointFacts(context, "rl"),
    );
    await saveReconstructor(
      await stage.output(RUN_LAYOUT.reconstructor),
      reconstructor.model,
      checkpointFacts(context, "rl"),
    );
  });
  await run.runStage("evaluate", async (stage) =>
    evaluateRun(context, await stage.output(RUN_LAYOUT.evaluation)),
  );
  return run.root;
}

// More held-out activations than this narrow the intervals less than they cost.
const EVALUATION_ROWS = 2000;

/** Evaluates the finished pair, and the warm start beside it, on every held-out activation; greedy, with intervals. */
async function evaluateRun(context: RunContext, out: string): Promise<void> {
  const { run, device, config, progress, signal } = context;
  const rows = await readHeldOutRows(run.path(trainingFile("eval")), {
    width: context.target.model.config.dim,
    rows: EVALUATION_ROWS,
  });
  const options = { maxNewTokens: config.rl.max_new_tokens, signal };
  const explain = async (name: string, av: string, ar: string) => {
    using nla = await loadNla(run.path(av), device, { reconstructor: run.path(ar) });
    const live = progress.stage(name, { total: rows.length });
    const explained = await explainRows(nla, rows, {
      ...options,
      onProgress: (step) => live.report({ step }),
    });
    const scoring = { mseScale: nla.reconstructor.contract.mseScale, bootstrap: { seed: config.seed } };
    const evaluation = evaluateRows(explained, scoring);
    const { fve, controls } = evaluation;
    live.report({ step: rows.length, numbers: { fve, shuffled: controls.shuffled.fve } });
    live.end("done");
    return { explained, evaluation, scoring };
  };
  const warm = await explain("evaluate warm start", RUN_LAYOUT.warmVerbalizer, RUN_LAYOUT.warmReconstructor);
  const trained = await explain("evaluate", RUN_LAYOUT.verbalizer, RUN_LAYOUT.reconstructor);
  const gain = fveGain(trained.explained, warm.explained, trained.scoring);
  const result = { ...trained.evaluation, warm_start: warm.evaluation, gain };
  await writeFileAtomic(out, `${JSON.stringify(result, null, 2)}\n`);
}

/** The contract of this run's pair. */
function contractFor({ config, target, marker }: RunContext, injectionScale: number): Contract {
  const { dim } = target.model.config;
  const wording = wordingOf(config, target, marker.tokenizer);
  return makeContract(
    { layer: config.layer, dim, char: marker.char, injectionScale, ...wording },
    marker.tokenizer,
  );
}

function checkpointFacts({ config }: RunContext, stage: string): Omit<CheckpointFacts, "role"> {
  const parent = stage === "rl" ? "checkpoints" : config.target;
  return {
    stage,
    baseCheckpoint: config.target,
    parentCheckpoints: [parent],
    trainedOn: [corpusName(config)],
  };
}

function outputsOf({ run, config, progress, signal }: RunContext, stage: TrainingStage): LoopOutputs {
  return {
    place: { root: run.path(RUN_LAYOUT.checkpoints), stage, configHash: configHash(config) },
    metricsFile: run.path(RUN_LAYOUT.metrics),
    samplesFile: run.path(RUN_LAYOUT.samples),
    progress,
    checkpointEvery: config.log.checkpoint_every,
    keepCheckpoints: config.log.keep_checkpoints,
    signal,
  };
}

/** A model that is disposed at the end of a stage's scope. */
interface Held<T> extends AsyncDisposable {
  readonly model: T;
}

function held<T extends Disposable>(model: T): Held<T> {
  return {
    model,
    [Symbol.asyncDispose]: () => {
      model[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}

/** The verbalizer where a stage stands: its newest checkpoint's, else what the stage before left, else the target's copy. */
async function currentVerbalizer(
  context: RunContext,
  contract: Contract,
  stage: "av_sft" | "rl",
): Promise<Held<Verbalizer>> {
  const checkpoint = await resumePoint(outputsOf(context, stage));
  const { device, run, target, marker } = context;
  if (checkpoint)
    return held((await loadVerbalizer(path.join(checkpoint.directory, "verbalizer"), device)).model);
  const start =
    stage === "rl"
      ? (await loadVerbalizer(run.path(RUN_LAYOUT.warmVerbalizer), device)).model
      : startVerbalizer(target.model, marker.tokenizer, contract);
  return held(withAdapter(context, start));
}

/** The reconstructor where a stage stands. */
async function currentReconstructor(
  context: RunContext,
  contract: Contract,
  stage: "ar_sft" | "rl",
): Promise<Held<Reconstructor>> {
  const checkpoint = await resumePoint(outputsOf(context, stage));
  const { device, run, target } = context;
  if (checkpoint)
    return held((await loadReconstructor(path.join(checkpoint.directory, "reconstructor"), device)).model);
  const start =
    stage === "rl"
      ? (await loadReconstructor(run.path(RUN_LAYOUT.warmReconstructor), device)).model
      : startReconstructor(target.model, target.tokenizer, contract);
  return held(withAdapter(context, start));
}

/**
 * The same with an adapter, where the config asks for one: a fresh one, or that of the warm start, which reinforcement learning
 * goes on with (a fresh one on the merged warm start is reported to end lower). The run ends by merging it.
 */
function withAdapter<T extends Verbalizer | Reconstructor>({ config, device }: RunContext, of: T): T {
  const { rank, alpha, rslora, target_modules: targets } = config.lora;
  if (rank === 0 || of.model.lora) return of;
  const settings = { rank, alpha, rsLora: rslora, targets };
  of.model.attach(new Lora(device, of.model.config, settings, { seed: config.seed }));
  return of;
}

async function trainReconstructor(context: RunContext, reconstructor: Reconstructor): Promise<void> {
  const { config } = context;
  using rows = await openLabelled(context, "ar_sft");
  await warmStartReconstructor(
    reconstructor,
    {
      rows,
      heldOut: await openHeldOut(context),
      settings: config.reconstructor,
      log: config.log,
      compute: config.compute,
      maxNewTokens: config.rl.max_new_tokens,
      outputs: outputsOf(context, "ar_sft"),
    },
    {
      save: (folder) =>
        saveReconstructor(path.join(folder, "reconstructor"), reconstructor, checkpointFacts(context, "sl")),
    },
  );
}

async function trainVerbalizer(context: RunContext, verbalizer: Verbalizer): Promise<void> {
  const { config, run, device } = context;
  using rows = await openLabelled(context, "av_sft");
  const warm = await loadReconstructor(run.path(RUN_LAYOUT.warmReconstructor), device);
  using reconstructor = warm.model;
  await warmStartVerbalizer(
    verbalizer,
    reconstructor,
    {
      rows,
      heldOut: await openHeldOut(context),
      settings: config.verbalizer,
      log: config.log,
      compute: config.compute,
      maxNewTokens: config.rl.max_new_tokens,
      outputs: outputsOf(context, "av_sft"),
    },
    {
      save: (folder) =>
        saveVerbalizer(path.join(folder, "verbalizer"), verbalizer, checkpointFacts(context, "sl")),
    },
  );
}

/** Saves both models into a checkpoint. */
function pairStorage(context: RunContext, verbalizer: Verbalizer, reconstructor: Reconstructor): Storage {
  return {
    async save(folder) {
      const facts = checkpointFacts(context, "rl");
      await saveVerbalizer(path.join(folder, "verbalizer"), verbalizer, facts);
      await saveReconstructor(path.join(folder, "reconstructor"), reconstructor, facts);
    },
  };
}

/** Both training sets of the warm start, with how far it has read them. */
async function openWarmLabels(context: RunContext) {
  const { verbalizer, reconstructor } = context.config;
  const rowsV = await openLabelled(context, "av_sft");
  const rowsR = await openLabelled(context, "ar_sft");
  const source = (rows: typeof rowsV, { steps, batch }: { steps: number; batch: number }): WarmRows => ({
    rowCount: rows.rowCount,
    rows: (indices) => rows.rows(indices),
    read: steps * batch,
  });
  return {
    verbalizer: source(rowsV, verbalizer),
    reconstructor: source(rowsR, reconstructor),
    [Symbol.asyncDispose]: () => {
      rowsV[Symbol.dispose]();
      rowsR[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}

async function goOnWithLabels(
  context: RunContext,
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
): Promise<void> {
  const { config } = context;
  await using labels = await openWarmLabels(context);
  await continueLabels(
    verbalizer,
    reconstructor,
    {
      verbalizerRows: labels.verbalizer,
      reconstructorRows: labels.reconstructor,
      heldOut: await openHeldOut(context),
      settings: config.rl,
      log: config.log,
      compute: config.compute,
      outputs: outputsOf(context, "rl"),
    },
    pairStorage(context, verbalizer, reconstructor),
  );
}

/** Looks for the judges before hours of warm start, not after. @throws NlaError `judge.missing` */
async function requireJudges({ rl: { judges } }: TrainConfig): Promise<void> {
  for (const judge of judges) {
    if (judge === WARM_START) continue;
    await access(judge).catch((cause: unknown) => {
      throw new NlaError({
        code: "judge.missing",
        subject: `rl.judges, ${judge}`,
        found: "nothing there that can be read",
        wanted: `the folder of a reconstructor, or ${WARM_START}`,
        next: "Name the reconstructor folder of a finished run: RUN/reconstructor.",
        cause,
      });
    });
  }
}

/** Reconstructors of folders, to be disposed together. */
async function openJudges(folders: readonly string[], device: Device) {
  const judges: Reconstructor[] = [];
  for (const folder of folders) judges.push((await loadReconstructor(folder, device)).model);
  return {
    judges,
    [Symbol.asyncDispose]: () => {
      for (const judge of judges) judge[Symbol.dispose]();
      return Promise.resolve();
    },
  };
}

async function reinforce(
  context: RunContext,
  verbalizer: Verbalizer,
  reconstructor: Reconstructor,
  baselines: FveBaselines,
): Promise<void> {
  const { config, run, device } = context;
  using rows = await openVectors(context, "rl");
  using reference = (await loadVerbalizer(run.path(RUN_LAYOUT.warmVerbalizer), device)).model;
  const warm = run.path(RUN_LAYOUT.warmReconstructor);
  await using others = await openJudges(
    config.rl.judges.map((judge) => (judge === WARM_START ? warm : judge)),
    device,
  );
  const { judges } = others;
  await using restarted =
    config.rl.restart_reconstructor === null
      ? null
      : held(withAdapter(context, (await loadReconstructor(warm, device)).model));
  await using labels = config.rl.label_rows > 0 ? await openWarmLabels(context) : null;
  const heldOut: readonly HeldOutRow[] = await openHeldOut(context);
  await runGrpo(
    verbalizer,
    reconstructor,
    {
      rows,
      heldOut,
      settings: config.rl,
      log: config.log,
      compute: config.compute,
      seed: config.seed,
      reference,
      judges,
      warmReconstructor: restarted?.model,
      labels: labels ?? undefined,
      variance: baselines.variance,
      outputs: outputsOf(context, "rl"),
    },
    pairStorage(context, verbalizer, reconstructor),
  );
}
