// `nla doctor --nla` on verbalizers that really write what failed injection looks like: trained in seconds to speak of a character
// whatever the vector, or with injection broken between the vector and the model. The rest is doctor-nla.test.ts.
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { judgeInjection, observeInjection } from "../nla/injection-check.js";
import { saveReconstructor, saveVerbalizer } from "../nla/pair-files.js";
import { PAIR_FOLDERS } from "../nla/read.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import {
  inMemory,
  openTinyTraining,
  outputsIn,
  storageOf,
  temporaryFolder,
  tinyConfig,
} from "../train/testing/tiny-training.js";
import type { TinyPair, TinyTraining } from "../train/testing/tiny-training.js";
import { warmStartVerbalizer } from "../train/warm-start.js";
import type { NlaDoctorReport } from "./doctor-nla.js";
import { runNla } from "./testing/run-nla.js";

let tiny: TinyTraining;
beforeAll(async () => {
  tiny = await openTinyTraining(8);
});
afterAll(() => tiny[Symbol.dispose]());

const ROWS = 16;
const vectors = () => tiny.rows.slice(0, ROWS).map(({ vector }) => vector);

/** Trains a pair's verbalizer on these labels, in `folder`. */
async function train(
  pair: TinyPair,
  folder: string,
  labels: readonly string[],
  steps: number,
): Promise<void> {
  const { reconstructor: settings, log } = tinyConfig({
    reconstructor: { batch: ROWS, micro_batch: ROWS, warmup: 2, schedule: "constant", steps, lr: 3e-3 },
    log: { eval_every: 1000, sample_every: 1000, samples: 1 },
  });
  const rows = tiny.rows
    .slice(0, ROWS)
    .map((row, i) => Object.assign({}, row, { label: labels[i] as string }));
  const { verbalizer, reconstructor } = pair;
  const context = {
    rows: inMemory(rows),
    heldOut: rows,
    settings,
    log,
    compute: "f32" as const,
    maxNewTokens: 12,
    outputs: outputsIn(folder, "av_sft"),
  };
  await warmStartVerbalizer(verbalizer, reconstructor, context, storageOf({ verbalizer }));
}

type Injecting = Verbalizer["injection"];

async function failedChecks(verbalizer: Verbalizer): Promise<string[]> {
  const seen = await observeInjection(verbalizer, vectors(), { maxNewTokens: 20 });
  return judgeInjection(seen).flatMap(({ check, passed }) => (passed ? [] : [check]));
}

describe("a verbalizer that speaks of a character", () => {
  it("whatever the vector: seen by the command, as text about CJK and as texts that are all the same", async () => {
    await using folder = await temporaryFolder();
    using pair = tiny.pair();
    await train(
      pair,
      folder.path,
      Array.from({ length: ROWS }, () => "a Chinese character"),
      60,
    );
    const facts = {
      stage: "av_sft",
      baseCheckpoint: "aidreams260K",
      parentCheckpoints: ["aidreams260K"],
      trainedOn: [],
    } as const;
    await saveVerbalizer(path.join(folder.path, PAIR_FOLDERS.verbalizer), pair.verbalizer, facts);
    await saveReconstructor(path.join(folder.path, PAIR_FOLDERS.reconstructor), pair.reconstructor, facts);
    const { code, out } = await runNla(["doctor", "--nla", folder.path, "--threads", "1", "--json"]);
    const { findings, responses } = JSON.parse(out) as NlaDoctorReport;
    expect(code).toBe(1);
    expect(
      responses.every((text) => text.includes("a Chinese character")),
      responses.join(" | "),
    ).toBe(true);
    const failed = findings.filter(({ passed }) => !passed);
    expect(failed.map(({ check }) => check)).toEqual(
      expect.arrayContaining(["texts that differ", "texts not about a CJK character"]),
    );
    expect(failed.find(({ check }) => check.includes("CJK"))?.next).toMatch(/literal marker/);
  });
});

describe("a verbalizer that reads its vectors", () => {
  let pair: TinyPair;
  beforeAll(async () => {
    await using folder = await temporaryFolder();
    pair = tiny.pair();
    const labels = tiny.rows.slice(0, ROWS).map(({ label }) => label);
    await train(pair, folder.path, labels, 60);
  });
  afterAll(() => pair[Symbol.dispose]());

  /** What fails with another way from a vector to its place. */
  async function failedWith(change: (plain: Injecting) => Injecting): Promise<string[]> {
    const { verbalizer } = pair;
    const changed = change(verbalizer.injection.bind(verbalizer));
    Object.defineProperty(verbalizer, "injection", { value: changed, configurable: true });
    try {
      return await failedChecks(verbalizer);
    } finally {
      Reflect.deleteProperty(verbalizer, "injection"); // the class's own again
    }
  }

  it("passes", async () => {
    expect(await failedChecks(pair.verbalizer)).toEqual([]);
  });

  it("fails every check of the vector where the marker's own embedding stays in its place", async () => {
    const { model, contract } = pair.verbalizer;
    const { tokenId } = contract.marker;
    const embeddings = model.get("model.embed_tokens.weight").read() as Float32Array;
    const marker = embeddings.slice(tokenId * contract.dim, (tokenId + 1) * contract.dim);
    const failed = await failedWith((plain) => (vector, sequence) => ({
      ...plain(vector, sequence),
      vector: marker,
    }));
    expect(failed).toEqual([
      "a vector against none",
      "one vector against another",
      "texts that differ",
      "texts unlike the one without a vector",
    ]);
  });

  it("fails the check of order where each vector goes to its neighbour's row", async () => {
    const failed = await failedWith((plain) => (vector, sequence) => plain(vector, (sequence + 1) % ROWS));
    expect(failed).toContain("the vectors in another order");
  });
});
