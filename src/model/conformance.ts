// Does a model compute here what it computed elsewhere? Each check compares one kind of value with those of a golden folder:
// hidden states, logits, padding, injection, greedy tokens, loss, gradients, optimizer steps. The tests of nlakit and `nla
// conformance` are both this file.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { Graph, ops } from "../tensor/index.js";
import type { Device } from "../tensor/index.js";
import { padBatch, packedRows } from "./batch.js";
import { loadDecoder } from "./checkpoint.js";
import { parseConfig } from "./config.js";
import { Findings, relativeL2 } from "./conformance-findings.js";
import type { Check, Subject } from "./conformance-findings.js";
import { checkTraining } from "./conformance-training.js";
import { finalNorm, forward } from "./forward.js";
import { generate } from "./generate.js";
import { goldenError, isThere, openGoldenFolder } from "./golden-folder.js";
import { declareBatch } from "./graph-inputs.js";
import { headOf, run } from "./run.js";

// PyTorch's own float32 is 0.3e-6 to 1.5e-6 from float64, and its attention variants as far from each other.
const REL_L2 = 1e-5;
const NLL = 2e-5;

/** What {@link conformance} found. */
export interface ConformanceReport {
  readonly directory: string;
  readonly model: string;
  readonly family: string;
  readonly kernels: boolean;
  readonly checks: readonly Check[];
  /** Checks for which the folder holds no values: not made, and so not passed. */
  readonly absent: readonly string[];
  readonly passed: boolean;
}

/**
 * Makes every check that a golden folder has values for, in f32.
 *
 * @param options.model the folder of the model, where it is not the one that the golden folder names
 * @throws NlaError `model.golden` where the folder is of another format or has no values at all; those of the loaders
 */
export async function conformance(
  directory: string,
  device: Device,
  options: {
    readonly model?: string | null;
    readonly signal?: AbortSignal | undefined;
    readonly onCheck?: (check: Check) => void;
  } = {},
): Promise<ConformanceReport> {
  const golden = await openGoldenFolder(directory, options.model ?? null);
  try {
    using model = await loadDecoder(golden.model, device);
    const subject: Subject = { device, model, golden, signal: options.signal };
    const findings = new Findings(options.onCheck ?? (() => undefined));
    await checkStates(subject, findings);
    await checkBatching(subject, findings);
    await checkInjection(subject, findings);
    await checkGreedy(subject, findings);
    await checkNll(subject, findings);
    await checkTraining(subject, findings);
    await checkConfigs(subject, findings);
    await checkMerged(subject, findings); // last: it changes the model
    const { checks, absent } = findings;
    if (checks.length === 0) throw goldenError(directory, "no values that could be checked", "some");
    return {
      directory,
      model: golden.model,
      family: model.config.family,
      kernels: device.kernels !== null,
      checks,
      absent,
      passed: checks.every(({ passed }) => passed),
    };
  } finally {
    await golden.close();
  }
}

/** Hidden states and logits of every token, with the padding on either side. */
async function checkStates({ model, golden, signal }: Subject, findings: Findings): Promise<void> {
  const capture = model.config.windows.map((_, k) => k);
  for (const padding of ["right", "left"] as const) {
    const options = { capture, embedded: true, normed: true, logits: "all", padding, signal } as const;
    const result = await run(model, golden.values.sequences, options);
    const hidden = new Map([
      ["hidden.embed", result.embedded],
      ...capture.map((k) => [`hidden.block${k}`, result.blocks.get(k) as Float32Array] as const),
      ["hidden.norm", result.normed],
    ]);
    const errors = async (values: ReadonlyMap<string, Float32Array | null>) => {
      const there = [...values].filter(([name]) => golden.names.has(name));
      return Promise.all(
        there.map(
          async ([name, value]) =>
            [name, relativeL2(value as Float32Array, await golden.tensor(name))] as const,
        ),
      );
    };
    findings.add(`hidden states, padded ${padding}`, "rel L2", REL_L2, await errors(hidden));
    const logits = new Map([["logits", result.logits]]);
    findings.add(`logits, padded ${padding}`, "rel L2", REL_L2, await errors(logits));
  }
  const { logits } = await run(model, golden.values.sequences, { logits: "last", padding: "left", signal });
  const last: [string, number][] = [];
  if (golden.names.has("left.logits"))
    last.push(["left.logits", relativeL2(logits as Float32Array, await golden.tensor("left.logits"))]);
  findings.add("logits of last tokens, padded left", "rel L2", REL_L2, last);
}

/** Each sequence alone against the same sequence in a batch: needs no expected values. */
async function checkBatching({ model, golden, signal }: Subject, findings: Findings): Promise<void> {
  const { sequences } = golden.values;
  const together = (await run(model, sequences, { logits: "all", signal })).logits as Float32Array;
  const errors: [string, number][] = [];
  let start = 0;
  for (const [i, sequence] of sequences.entries()) {
    const alone = (await run(model, [sequence], { logits: "all", signal })).logits as Float32Array;
    errors.push([`sequence ${i}`, relativeL2(alone, together.slice(start, (start += alone.length)))]);
  }
  findings.add("alone as in the batch", "rel L2", REL_L2, errors);
}

/** A replaced row of what enters block 0, and a pass that stops after a block. */
async function checkInjection({ model, golden, signal }: Subject, findings: Findings): Promise<void> {
  const { inject, truncated, sequences } = golden.values;
  const injected: [string, number][] = [];
  if (inject && golden.names.has("inject.logits")) {
    const vector = await golden.tensor("inject.vector");
    const { logits } = await run(model, [sequences[inject.sequence] ?? []], {
      logits: "all",
      inject: [{ sequence: 0, position: inject.position, vector }],
      signal,
    });
    const error = relativeL2(logits as Float32Array, await golden.tensor("inject.logits"));
    injected.push(["inject.logits", error]);
  }
  findings.add("an injected vector", "rel L2", REL_L2, injected);
  const stopped: [string, number][] = [];
  const name = `truncated.block${truncated?.block}`;
  if (truncated && golden.names.has(name)) {
    const { block, sequence } = truncated;
    const { blocks } = await run(model, [sequences[sequence] ?? []], { capture: [block], signal });
    stopped.push([name, relativeL2(blocks.get(block) as Float32Array, await golden.tensor(name))]);
  }
  findings.add("a pass that stops early", "rel L2", REL_L2, stopped);
}

/** Greedy continuations: how many tokens differ. */
async function checkGreedy({ model, golden, signal }: Subject, findings: Findings): Promise<void> {
  const errors: [string, number][] = [];
  for (const [i, { prompt, tokens }] of (golden.values.generation ?? []).entries()) {
    const [made] = await generate(model, [prompt], { maxNewTokens: tokens.length, temperature: 0, signal });
    errors.push([`prompt ${i}`, tokens.filter((token, t) => made?.tokens[t] !== token).length]);
  }
  findings.add("greedy tokens", "tokens", 0, errors);
}

/** -log p of each target. */
async function checkNll({ device, model, golden, signal }: Subject, findings: Findings): Promise<void> {
  const errors: [string, number][] = [];
  const { sequences, targets: wanted } = golden.values;
  if (wanted && golden.names.has("nll")) {
    const batch = padBatch(sequences, { maxLength: model.config.contextLength });
    const rows = packedRows(batch);
    using g = new Graph(device, { recording: false });
    const declared = declareBatch(g, batch);
    const { blocks, embedded } = forward(g, model, declared);
    const n = batch.rows * batch.length;
    const hidden = finalNorm(g, model, blocks.at(-1) ?? embedded);
    const targets = g.input("targets", [n], "i32");
    const softcap = model.config.logitSoftcap;
    const logProbs = g.output(ops.tokenLogProbs(g, hidden, headOf(model), targets, { softcap }));
    g.compile();
    const values = new Int32Array(n);
    rows.forEach((row, i) => (values[row] = Math.max(0, wanted[i] ?? 0)));
    await g.run({ ...declared.values(batch), targets: values }, signal);
    const all = logProbs.readF32();
    const expected = await golden.tensor("nll");
    rows.forEach((row, i) => {
      if ((wanted[i] ?? -1) < 0) return;
      errors.push([`token ${i}`, Math.abs(-(all[row] as number) - (expected[i] as number))]);
    });
  }
  findings.add("-log p of each target", "absolute", NLL, errors);
}

/** The config as transformers 5 writes it: how many settings it gives another value. */
async function checkConfigs({ model, golden }: Subject, findings: Findings): Promise<void> {
  const file = path.join(golden.directory, "config.v5.json");
  const errors: [string, number][] = [];
  if (await isThere(file)) {
    const other = parseConfig(JSON.parse(await readFile(file, "utf8")), file);
    for (const key of Object.keys(model.config) as (keyof typeof other)[]) {
      if (key === "json") continue;
      const same = JSON.stringify(other[key]) === JSON.stringify(model.config[key]);
      errors.push([key, same ? 0 : 1]);
    }
  }
  findings.add("config of transformers 5", "settings", 0, errors);
}

/** An adapter merged into its base: matrices and logits. */
async function checkMerged({ model, golden, signal }: Subject, findings: Findings): Promise<void> {
  const names = [...golden.names].filter((name) => name.startsWith("merged."));
  if (!model.lora) return;
  await model.merge();
  const errors: [string, number][] = [];
  for (const name of names) {
    const ours =
      name === "merged.logits"
        ? ((await run(model, golden.values.sequences, { logits: "all", signal })).logits as Float32Array)
        : model.get(name.slice("merged.".length)).readF32();
    errors.push([name, relativeL2(ours, await golden.tensor(name))]);
  }
  findings.add("merged adapter", "rel L2", REL_L2, errors);
}
