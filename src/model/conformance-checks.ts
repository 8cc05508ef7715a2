// The checks of a forward pass: hidden states, logits, padding, injection, greedy tokens, -log p, configs, a merged adapter. What they
// find is compared with a golden folder; which of them are made, and how near they must come, is conformance.ts's.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { Graph, ops } from "../tensor/index.js";
import { padBatch, packedRows } from "./batch.js";
import { parseConfig } from "./config.js";
import { relativeL2 } from "./conformance-findings.js";
import type { Findings, Subject } from "./conformance-findings.js";
import { finalNorm, forward } from "./forward.js";
import { generate } from "./generate.js";
import { isThere } from "./golden-folder.js";
import { declareBatch } from "./graph-inputs.js";
import { headOf, run } from "./run.js";

// PyTorch's own float32 is 0.3e-6 to 1.5e-6 from float64, and its attention variants as far from each other.
const REL_L2 = 1e-5;
const NLL = 2e-5;

/** Hidden states and logits of every token, with the padding on either side. */
export async function checkStates(
  { model, golden, bound = REL_L2, signal }: Subject,
  findings: Findings,
): Promise<void> {
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
    findings.add(`hidden states, padded ${padding}`, "rel L2", bound, await errors(hidden));
    const logits = new Map([["logits", result.logits]]);
    findings.add(`logits, padded ${padding}`, "rel L2", bound, await errors(logits));
  }
  const { logits } = await run(model, golden.values.sequences, { logits: "last", padding: "left", signal });
  const last: [string, number][] = [];
  if (golden.names.has("left.logits"))
    last.push(["left.logits", relativeL2(logits as Float32Array, await golden.tensor("left.logits"))]);
  findings.add("logits of last tokens, padded left", "rel L2", bound, last);
}

/** Each sequence alone against the same sequence in a batch: needs no expected values. */
export async function checkBatching({ model, golden, signal }: Subject, findings: Findings): Promise<void> {
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
export async function checkInjection(
  { model, golden, bound = REL_L2, signal }: Subject,
  findings: Findings,
): Promise<void> {
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
  findings.add("an injected vector", "rel L2", bound, injected);
  const stopped: [string, number][] = [];
  const name = `truncated.block${truncated?.block}`;
  if (truncated && golden.names.has(name)) {
    const { block, sequence } = truncated;
    const { blocks } = await run(model, [sequences[sequence] ?? []], { capture: [block], signal });
    stopped.push([name, relativeL2(blocks.get(block) as Float32Array, await golden.tensor(name))]);
  }
  findings.add("a pass that stops early", "rel L2", bound, stopped);
}

/** Greedy continuations: how many tokens differ. */
export async function checkGreedy({ model, golden, signal }: Subject, findings: Findings): Promise<void> {
  const errors: [string, number][] = [];
  for (const [i, { prompt, tokens }] of (golden.values.generation ?? []).entries()) {
    const [made] = await generate(model, [prompt], { maxNewTokens: tokens.length, temperature: 0, signal });
    errors.push([`prompt ${i}`, tokens.filter((token, t) => made?.tokens[t] !== token).length]);
  }
  findings.add("greedy tokens", "tokens", 0, errors);
}

/** -log p of each target. */
export async function checkNll(
  { device, model, golden, signal }: Subject,
  findings: Findings,
): Promise<void> {
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
export async function checkConfigs({ model, golden }: Subject, findings: Findings): Promise<void> {
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
export async function checkMerged({ model, golden, signal }: Subject, findings: Findings): Promise<void> {
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

/** Unpacked matrices, in Hugging Face's order of rows: bit by bit. */
export async function checkUnpacked({ model, golden }: Subject, findings: Findings): Promise<void> {
  const errors: [string, number][] = [];
  for (const name of golden.names) {
    if (!name.startsWith("weight.")) continue;
    const ours = model.get(name.slice("weight.".length)).readF32();
    errors.push([name, relativeL2(ours, await golden.tensor(name))]);
  }
  findings.add("unpacked matrices", "rel L2", 0, errors);
}
