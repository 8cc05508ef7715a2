// Wrong calls: gradients that nobody can compute, and settings of the optimizer.
import { adamw, Arena, GradientSums, Graph, ops } from "../../index.js";
import { input, numbers, wrong, x } from "./wrong-call.js";
import type { WrongCall, WrongCallContext } from "./wrong-call.js";

const sums = ({ arena }: WrongCallContext): GradientSums =>
  new GradientSums(new Map([["v", arena.get("v")]]));
/** Training. */
export const wrongTraining: readonly WrongCall[] = [
  wrong("backward of nothing", "gradient", ["[1]"], (g) => g.backward(ops.sum(g, input(g, [3])))),
  wrong("backward without recording", "gradient", ["[1]"], (_, { device }) => {
    using g = new Graph(device, { recording: false });
    g.backward(ops.sum(g, x(g, 3)));
  }),
  wrong("gradient of a mask", "gradient", ["[3, 3]"], (g) => ops.softmax(g, x(g, 3, 3), x(g, 3, 3))),
  wrong("gradient of the weights of a loss", "gradient", ["[3]"], (g, { arena }) =>
    ops.crossEntropy(g, x(g, 3, 5), arena.get("w"), numbers(g, 3), x(g, 3)),
  ),
  wrong("gradient of frequency divisors", "gradient", ["[2]"], (g) =>
    ops.rope(g, x(g, 3, 2, 4), numbers(g, 3), { theta: 1e4, frequencyDivisors: x(g, 2) }),
  ),
  wrong("gradient of cachedAttention", "gradient", ["[1, 1, 2, 4]"], (g) =>
    ops.cachedAttention(g, x(g, 1, 1, 2, 4), input(g, [1, 2, 3, 4]), input(g, [1, 2, 3, 4]), {
      mask: input(g, [1, 1, 1, 3], "f16"),
      scale: 1,
    }),
  ),
  wrong("sums of no parameters", "gradient", ["none"], () => new GradientSums(new Map())),
  wrong("sums of a tensor that is no parameter", "gradient", ["frozen", "[3]"], (_, { arena }) => {
    return new GradientSums(new Map([["frozen", arena.get("frozen")]]));
  }),
  wrong("sums of a bf16 parameter", "gradient", ["bf16", "[4]"], (_, { arena }) => {
    return new GradientSums(new Map([["p", arena.get("halfParameter")]]));
  }),
  wrong("sums of a graph's variable", "gradient", ["graph", "[3]"], (g) => {
    return new GradientSums(new Map([["x", x(g, 3)]]));
  }),
  wrong("sums over two devices", "owner", ["[5]", "[4]"], (_, { arena, other }) => {
    using elsewhere = new Arena(other, "elsewhere", { p: { shape: [4], parameter: true } });
    return new GradientSums(
      new Map([
        ["v", arena.get("v")],
        ["p", elsewhere.get("p")],
      ]),
    );
  }),
  wrong("accumulate without the parameter in the loss", "gradient", ["parameter v"], (g, context) => {
    using gradients = sums(context);
    gradients.accumulate(g, g.backward(ops.sum(g, x(g, 3))));
  }),
  wrong("accumulate gradients of another graph", "owner", ["[5]"], (g, context) => {
    using gradients = sums(context);
    using second = new Graph(context.device);
    gradients.accumulate(g, second.backward(ops.sum(second, context.arena.get("v"))));
  }),
  ...(
    [
      ["beta1", 1],
      ["beta1", -0.1],
      ["beta2", NaN],
      ["beta2", 1 - 1e-9],
      ["eps", 0],
      ["eps", Infinity],
      ["weightDecay", -1],
      ["weightDecay", Infinity],
      ["clipNorm", 0],
      ["clipNorm", NaN],
    ] as const
  ).map(([setting, value]) =>
    wrong(`AdamW ${setting} ${value}`, "argument", [setting, String(value)], () =>
      adamw({ [setting]: value }),
    ),
  ),
  wrong("AdamW group decay", "argument", ["groups[1].weightDecay", "NaN"], () =>
    adamw({ groups: [{ matches: () => true }, { matches: () => true, weightDecay: NaN }] }),
  ),
  wrong("AdamW group scale", "argument", ["groups[0].learningRateScale", "-2"], () =>
    adamw({ groups: [{ matches: () => true, learningRateScale: -2 }] }),
  ),
  ...[NaN, -1, Infinity].map((rate) =>
    wrong(`AdamW learning rate ${rate}`, "argument", ["learningRate", String(rate)], async (_, context) => {
      using gradients = sums(context);
      const optimizer = adamw();
      using state = optimizer.init(gradients);
      await optimizer.update(state, rate);
    }),
  ),
  wrong("AdamW state freed", "engine.disposed", ["freed"], async (_, context) => {
    using gradients = sums(context);
    const optimizer = adamw();
    const state = optimizer.init(gradients);
    state[Symbol.dispose]();
    await optimizer.update(state, 0.1);
  }),
  wrong("AdamW after its gradients are freed", "disposed", ["gradients"], async (_, context) => {
    const gradients = sums(context);
    const optimizer = adamw();
    using state = optimizer.init(gradients);
    gradients[Symbol.dispose]();
    await optimizer.update(state, 0.1);
  }),
];
