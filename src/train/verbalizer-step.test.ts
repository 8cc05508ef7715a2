// The verbalizer's two losses against policy-math.ts in float64: values, and gradients by finite differences of it; and against
// the reference's numbers, the gradient of its logits included.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { Device, Graph, ops } from "../tensor/index.js";
import { LossGraphs } from "./loss-graphs.js";
import { crossEntropyLoss, policyLoss as policyLossInNumbers } from "./policy-math.js";
import type { PolicySample } from "./policy-math.js";
import { responseBatches, responseShape } from "./response-batch.js";
import type { ResponseBatch } from "./response-batch.js";
import { openTinyTraining } from "./testing/tiny-training.js";
import { labelLoss, logProbGraphs, policyLoss, policyObjective } from "./verbalizer-step.js";
import type { LabelRow, PolicySettings, RolloutRow } from "./verbalizer-step.js";

let device: Device;
beforeAll(() => {
  device = Device.open({ threads: 1 });
});
afterAll(() => device[Symbol.dispose]());

interface Slots {
  readonly logProbs: readonly number[];
  readonly old: readonly number[];
  readonly reference: readonly number[];
  readonly advantages: readonly number[];
  readonly weights: readonly number[];
  /** 1 at a token, 0 in padding. */
  readonly inside: readonly number[];
}

/** Loss and gradient of the log-probabilities as the graph has them. */
async function objectiveOf(slots: Slots, settings: PolicySettings) {
  const n = slots.logProbs.length;
  using g = new Graph(device);
  const logProbs = g.variable("logProbs", [n]);
  const inputs = {
    old: g.input("old", [n]),
    reference: g.input("reference", [n]),
    advantages: g.input("advantages", [n]),
    weights: g.input("weights", [n]),
    inside: g.input("inside", [n]),
  };
  const loss = g.output(policyObjective(g, logProbs, inputs, settings));
  const gradient = g.output(g.backward(loss).get(logProbs)!);
  await g.run(
    Object.fromEntries(Object.entries(slots).map(([name, values]) => [name, Float32Array.from(values)])),
  );
  return { loss: loss.readF32()[0]!, gradient: gradient.readF32() };
}

/** The same of policy-math.ts: each slot a sample of one token, the gradient by central differences. */
function objectiveInNumbers(slots: Slots, { clipRange, klCoef }: PolicySettings) {
  const lossOf = (logProbs: readonly number[]) =>
    slots.weights.reduce((sum, weight, i) => {
      if (slots.inside[i] === 0) return sum;
      const sample: PolicySample = {
        logProbs: [logProbs[i]!],
        oldLogProbs: [slots.old[i]!],
        referenceLogProbs: [slots.reference[i]!],
        advantages: [slots.advantages[i]!],
        lossMask: [1],
      };
      return sum + weight * policyLossInNumbers([sample], { epsClip: clipRange, klLossCoef: klCoef }).loss;
    }, 0);
  const step = 1e-6;
  const gradient = slots.logProbs.map((_, i) => {
    const moved = (by: number) => slots.logProbs.map((value, j) => (i === j ? value + by : value));
    return (lossOf(moved(step)) - lossOf(moved(-step))) / (2 * step);
  });
  return { loss: lossOf(slots.logProbs), gradient };
}

// Ratios inside, at and far beyond the clip range, with advantages of either sign and none.
const RATIOS = [0, 0.1, -0.1, 0.19, -0.25, 0.5, -0.5, 2, -2, 6, -6];
const ADVANTAGES = [1.3, -0.7, 0];
const TOKENS: Slots = (() => {
  const all = RATIOS.flatMap((ratio) => ADVANTAGES.map((advantage) => ({ ratio, advantage })));
  const old = all.map((_, i) => -0.5 - (i % 7) * 0.6);
  return {
    old,
    logProbs: all.map(({ ratio }, i) => old[i]! + ratio),
    reference: all.map((_, i) => -0.4 - ((i * 5) % 11) * 0.3),
    advantages: all.map(({ advantage }) => advantage),
    weights: all.map((_, i) => 0.01 + (i % 4) * 0.02),
    inside: all.map(() => 1),
  };
})();

function pad(values: readonly number[], padding: readonly number[]): number[] {
  return [...values, ...padding];
}

describe("policyObjective", () => {
  const settings = [
    { clipRange: 0.2, klCoef: 0 },
    { clipRange: 0.2, klCoef: 0.05 },
    { clipRange: 0.05, klCoef: 1 },
  ];

  it.each(settings)("equals policy-math, and so does its gradient: %o", async (each) => {
    const found = await objectiveOf(TOKENS, each);
    const wanted = objectiveInNumbers(TOKENS, each);
    expect(Math.abs(found.loss / wanted.loss - 1)).toBeLessThan(1e-5);
    wanted.gradient.forEach((value, i) => {
      const bound = 2e-5 * Math.max(Math.abs(value), 1e-2);
      expect(Math.abs(found.gradient[i]! - value), `slot ${i}`).toBeLessThan(bound);
    });
  });

  it("has no gradient where the clipped term is taken, and none without advantage and KL", async () => {
    const { gradient } = await objectiveOf(TOKENS, { clipRange: 0.2, klCoef: 0 });
    let clipped = 0;
    RATIOS.forEach((ratio, r) => {
      ADVANTAGES.forEach((advantage, a) => {
        const beyond = advantage > 0 ? Math.exp(ratio) > 1.2 : Math.exp(ratio) < 0.8;
        const still = advantage === 0 || beyond;
        expect(gradient[r * ADVANTAGES.length + a] === 0, `${ratio} ${advantage}`).toBe(still);
        if (beyond && advantage !== 0) clipped++;
      });
    });
    expect(clipped).toBe(8);
  });

  it("does not look at padding, whatever stands there", async () => {
    const absurd = [1e30, -1e30, 85, -85, 0];
    const settings = { clipRange: 0.2, klCoef: 0.05 };
    const plain = await objectiveOf(TOKENS, settings);
    const padded = await objectiveOf(
      {
        logProbs: pad(TOKENS.logProbs, absurd),
        old: pad(TOKENS.old, absurd.toReversed()),
        reference: pad(TOKENS.reference, [0, ...absurd.slice(1)]),
        advantages: pad(TOKENS.advantages, absurd),
        weights: pad(
          TOKENS.weights,
          absurd.map(() => 0),
        ),
        inside: pad(
          TOKENS.inside,
          absurd.map(() => 0),
        ),
      },
      settings,
    );
    expect(padded.loss).toBe(plain.loss);
    expect(padded.gradient.slice(0, plain.gradient.length)).toEqual(plain.gradient);
    expect(padded.gradient.slice(plain.gradient.length).every((value) => value === 0)).toBe(true);
  });
});

interface Golden {
  readonly full: {
    readonly token_ids: number[][];
    readonly response_lengths: number[];
    readonly loss_masks: number[][];
    readonly advantages: number[][];
    readonly old_log_probs: number[][];
    readonly reference_log_probs: number[][];
    readonly logits: { readonly shape: [number, number, number]; readonly b64: string };
    readonly cases: {
      readonly case: string;
      readonly loss: number;
      readonly gradient_of_logits: { readonly b64: string };
    }[];
  };
}

const file = sharedPath("golden/nla/train/policy_loss.json");

function floats(b64: string): Float32Array {
  const bytes = Buffer.from(b64, "base64");
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
}

describeWith(file, "from given logits, values and gradients are the reference's", () => {
  const { full } = JSON.parse(readFileSync(file as string, "utf8")) as Golden;
  const [, packed, vocabulary] = full.logits.shape;
  // The row of the packed logits that predicts each response token, what the token is, and what it counts.
  const rows: number[] = [];
  const slots = { targets: [] as number[], old: [] as number[], reference: [] as number[] };
  const more = { advantages: [] as number[], weights: [] as number[] };
  let start = 0;
  full.token_ids.forEach((ids, s) => {
    const length = full.response_lengths[s]!;
    const trained = full.loss_masks[s]!.reduce((a, b) => a + b, 0);
    for (let i = 0; i < length; i++) {
      const at = ids.length - length + i;
      rows.push(start + at - 1);
      slots.targets.push(ids[at]!);
      slots.old.push(full.old_log_probs[s]![i]!);
      slots.reference.push(full.reference_log_probs[s]![i]!);
      more.advantages.push(full.advantages[s]![i]!);
      more.weights.push(full.loss_masks[s]![i]! / trained / full.token_ids.length);
    }
    start += ids.length;
  });

  /** With the identity as the head, hidden states are logits, and so are their gradients. */
  async function withLogits(kind: "policy" | "labels", settings: PolicySettings) {
    const n = rows.length;
    using g = new Graph(device);
    const logits = g.variable("logits", [packed, vocabulary]);
    const head = g.input("head", [vocabulary, vocabulary]);
    const targets = g.input("targets", [n], "i32");
    const hidden = ops.gatherRows(g, logits, g.input("rows", [n], "i32"));
    const weights = g.input("weights", [n]);
    const values: Record<string, Float32Array | Int32Array> = {
      logits: floats(full.logits.b64),
      head: Float32Array.from({ length: vocabulary ** 2 }, (_, i) => (i % (vocabulary + 1) === 0 ? 1 : 0)),
      targets: Int32Array.from(slots.targets),
      rows: Int32Array.from(rows),
      weights: Float32Array.from(more.weights),
    };
    let loss;
    if (kind === "labels") loss = ops.crossEntropy(g, hidden, head, targets, weights);
    else {
      const inputs = {
        old: g.input("old", [n]),
        reference: g.input("reference", [n]),
        advantages: g.input("advantages", [n]),
        inside: g.input("inside", [n]),
        weights,
      };
      loss = policyObjective(g, ops.tokenLogProbs(g, hidden, head, targets), inputs, settings);
      values.old = Float32Array.from(slots.old);
      values.reference = Float32Array.from(slots.reference);
      values.advantages = Float32Array.from(more.advantages);
      values.inside = new Float32Array(n).fill(1);
    }
    g.output(loss);
    const gradient = g.output(g.backward(loss).get(logits)!);
    await g.run(values);
    return { loss: loss.readF32()[0]!, gradient: gradient.readF32() };
  }

  it.each([
    ["k3, 0.05", "policy", 0.05],
    ["no KL", "policy", 0],
    ["sft", "labels", 0],
  ] as const)("%s", async (name, kind, klCoef) => {
    const golden = full.cases.find((each) => each.case === name)!;
    const found = await withLogits(kind, { clipRange: 0.2, klCoef });
    expect(Math.abs(found.loss / golden.loss - 1)).toBeLessThan(1e-5);
    const wanted = floats(golden.gradient_of_logits.b64);
    const largest = wanted.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    expect(largest).toBeGreaterThan(0.01);
    wanted.forEach((value, i) => expect(Math.abs(found.gradient[i]! - value)).toBeLessThan(1e-5 * largest));
  });
});

describe("the losses of a real verbalizer", () => {
  it("are those of policy-math on its log-probabilities, however the rows are split", async () => {
    using tiny = await openTinyTraining(3);
    using pair = tiny.pair();
    const { verbalizer } = pair;
    const responses = tiny.rows.slice(0, 6).map(({ text }, i) => {
      return verbalizer.tokenizer.encode((text as string).slice(0, 12 + 9 * i));
    });
    const plain = responses.map((response, i) => ({ vector: tiny.rows[i]!.vector, response }));
    using reference = logProbGraphs(verbalizer, "f32");
    const logProbsOf = new Map<unknown, number[]>();
    const [whole] = responseBatches(verbalizer, plain, 6);
    const { outputs } = await reference.run([whole!]);
    whole!.rows.forEach((row, r) => {
      const from = r * whole!.slots;
      logProbsOf.set(row.response, Array.from(outputs[0]!.logProbs!.slice(from, from + row.response.length)));
    });

    const labels: LabelRow[] = plain.map((row) => ({ ...row, weight: 1 / plain.length }));
    using labelGraphs = new LossGraphs<ResponseBatch<LabelRow>>({
      device: tiny.device,
      compute: "f32",
      build: (g, micro) => labelLoss(g, verbalizer, micro),
      shapeOf: responseShape,
    });
    const wanted = crossEntropyLoss(
      responses.map((response) => ({
        logProbs: logProbsOf.get(response)!,
        lossMask: response.map(() => 1),
      })),
    );
    for (const microBatch of [6, 4, 1]) {
      const { loss } = await labelGraphs.run(responseBatches(verbalizer, labels, microBatch));
      expect(Math.abs(loss / wanted - 1), `micro-batches of ${microBatch}`).toBeLessThan(1e-5);
    }

    const rollouts: RolloutRow[] = plain.map((row, i) => ({
      vector: row.vector,
      response: row.response,
      weight: 1 / plain.length,
      // Another one at each token.
      advantages: row.response.map((_, t) => [1.1, -0.6, 0, 2, -1, 0.3][i]! + 0.2 * Math.sin(3 * t)),
      oldLogProbs: logProbsOf.get(row.response)!.map((value, t) => value + 0.4 * Math.sin(t + i)),
      referenceLogProbs: logProbsOf.get(row.response)!.map((value, t) => value - 0.7 * Math.cos(2 * t + i)),
    }));
    const settings = { clipRange: 0.2, klCoef: 0.1 };
    using policyGraphs = new LossGraphs<ResponseBatch<RolloutRow>>({
      device: tiny.device,
      compute: "f32",
      build: (g, micro) => policyLoss(g, verbalizer, micro, settings),
      shapeOf: responseShape,
    });
    const { loss: policyWanted, metrics } = policyLossInNumbers(
      rollouts.map(({ response, advantages, oldLogProbs, referenceLogProbs }) => ({
        logProbs: logProbsOf.get(response)!,
        oldLogProbs,
        referenceLogProbs,
        advantages: Array.from(advantages),
        lossMask: response.map(() => 1),
      })),
      { epsClip: 0.2, klLossCoef: 0.1 },
    );
    expect(metrics.clipFraction).toBeGreaterThan(0.1);
    for (const microBatch of [6, 2]) {
      const { loss } = await policyGraphs.run(responseBatches(verbalizer, rollouts, microBatch));
      expect(Math.abs(loss - policyWanted), `micro-batches of ${microBatch}`).toBeLessThan(1e-5);
    }
  });
});
