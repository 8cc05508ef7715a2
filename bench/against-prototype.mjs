// nlakit against the engine prototype it grew from, alternating in one session: each round runs both, so that what else the
// machine does meets both. Prints a markdown table of medians. Not part of the package; needs `npm run build` and the
// prototype in ../shared/prototype, and says so where one is absent.
//
//   node bench/against-prototype.mjs [--threads 2] [--rounds 5] [--only decode]
import { cpSync, existsSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const { values: flags } = parseArgs({
  options: {
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    only: { type: "string", default: "" },
    dist: { type: "string", default: path.resolve(import.meta.dirname, "../dist") },
  },
});
const threads = Number(flags.threads);
const rounds = Number(flags.rounds);
const root = path.resolve(import.meta.dirname, "..");
const prototype = path.resolve(root, "../shared/prototype");

for (const [folder, next] of [
  [prototype, "the prototype is not part of the repository"],
  [path.join(flags.dist, "model"), "run `npm run build` first"],
]) {
  if (existsSync(folder)) continue;
  console.log(`skipped: ${folder} is absent (${next})`);
  process.exit(0);
}

// The prototype resolves its packages beside itself: a copy with this repository's packages linked in.
const copy = mkdtempSync(path.join(tmpdir(), "nlakit-prototype-"));
process.on("exit", () => rmSync(copy, { recursive: true, force: true }));
for (const file of ["ffi", "tensor", "llama", "gen"]) {
  cpSync(path.join(prototype, `${file}.mjs`), path.join(copy, `${file}.mjs`));
}
symlinkSync(path.join(root, "node_modules"), path.join(copy, "node_modules"));
const load = (folder, file) => import(pathToFileURL(path.join(folder, file)).href);

const { Device } = await load(flags.dist, "tensor/index.js");
const { decodeCase, extractCase, median, trainCase } = await load(flags.dist, "model/bench.js");
const device = Device.open({ threads });

const ffi = await load(copy, "ffi.mjs");
const { Engine } = await load(copy, "tensor.mjs");
const llama = await load(copy, "llama.mjs");
const { cache, genGraph } = await load(copy, "gen.mjs");
const api = ffi.load();
const engine = new Engine(api, ffi.openCpu(api, threads));

const V = 4096;
const shape = { ...llama.small, V };
const random = llama.rng(7);
const someIds = (count) => Int32Array.from({ length: count }, () => (random() * V) | 0);

function prototypeWeights() {
  const weights = engine.statics(llama.specs(shape)).t;
  llama.initWeights(engine, weights, 1, 0.02);
  return weights;
}

/** One step of the prototype's training: the same work as ours but for clipping, which it has not. */
function prototypeTrain(compute) {
  const [T, B] = [128, 32];
  const weights = prototypeWeights();
  const g = llama.trainGraph(engine, shape, weights, { T, B, compute, opt: llama.adam(engine, weights) });
  const [ids, targets] = [someIds(T * B), someIds(T * B)];
  return () => {
    llama.setSeqInputs(engine, g, { T, B });
    engine.set(g.inputs.ids, ids);
    engine.set(g.inputs.tgt, targets);
    engine.set(g.inputs.wt, new Float32Array(T * B).fill(1 / (T * B)));
    engine.set(g.opt, llama.adamParams(1, { lr: 1e-4 }));
    return g.runAsync().then(() => engine.get(g.loss));
  };
}

/** Prompt and decoding as the prototype does it fastest in F32: flash attention, a fixed graph, tokens chosen in JS. */
function prototypeDecode() {
  const [B, T, NEW] = [64, 60, 80];
  const S = T + NEW + 4; // a multiple of 16
  const weights = prototypeWeights();
  const prompt = someIds(B * T);
  const settings = { B, S, mode: "fa", kvType: ffi.F32 };
  return () => {
    const draw = llama.rng(3);
    const kv = cache(engine, shape, settings);
    const first = genGraph(engine, shape, weights, kv.t, { ...settings, T, sampler: "js" }).alloc();
    const causal = new Uint16Array(T * T).map((_, i) => (i % T <= Math.floor(i / T) ? 0 : 0xfc00));
    engine.set(first.inputs.ids, prompt);
    engine.set(
      first.inputs.pos,
      Int32Array.from({ length: B * T }, (_, i) => i % T),
    );
    engine.set(first.inputs.mask, causal);
    engine.set(
      first.inputs.last,
      Int32Array.from({ length: B }, (_, b) => b * T + T - 1),
    );
    first.run();
    let logits = engine.get(first.logits);
    first.free();
    const current = new Int32Array(B);
    const g = genGraph(engine, shape, weights, kv.t, { ...settings, T: 1, past: T, fixed: true }).alloc();
    const mask = new Uint16Array(B * S).map((_, i) => (i % S < T ? 0 : 0xfc00));
    for (let step = 0; step < NEW; step++) {
      choose(logits, current, B, draw);
      if (step === NEW - 1) break; // the last token needs no further logits
      const p = T + step;
      for (let b = 0; b < B; b++) mask[b * S + p] = 0;
      engine.set(g.inputs.ids, current);
      engine.set(g.inputs.pos, new Int32Array(B).fill(p));
      engine.set(g.inputs.mask, mask);
      engine.set(
        g.inputs.ki,
        Int32Array.from({ length: shape.Hkv * B }, (_, i) => p + S * i),
      );
      g.run();
      logits = engine.get(g.logits);
    }
    g.free();
    kv.free();
  };
}

function choose(logits, into, rows, draw) {
  for (let b = 0; b < rows; b++) {
    const row = logits.subarray(b * V, (b + 1) * V);
    let max = -Infinity;
    for (let i = 0; i < V; i++) if (row[i] > max) max = row[i];
    let total = 0;
    for (let i = 0; i < V; i++) total += row[i] = Math.exp((row[i] - max) / 0.8);
    let left = draw() * total;
    let token = 0;
    while (token < V - 1 && (left -= row[token]) > 0) token++;
    into[b] = token;
  }
}

/** The stream after every block, read to the host. */
function prototypeExtract() {
  const [T, B] = [128, 32];
  const weights = prototypeWeights();
  const ids = someIds(T * B);
  return () => {
    const g = engine.graph({ maxNodes: 8192 });
    const { caps } = llama.forward(g, shape, weights, { T, B, capture: [0, 1, 2, 3, 4, 5] });
    for (const block of Object.values(caps)) g.output(block);
    g.alloc();
    llama.setSeqInputs(engine, g, { T, B });
    engine.set(g.inputs.ids, ids);
    g.run();
    for (const block of Object.values(caps)) engine.get(block);
    g.free();
  };
}

const rows = [
  ["train, f32", () => trainCase(device, { compute: "f32" }), () => prototypeTrain(ffi.F32)],
  ["train, bf16", () => trainCase(device, { compute: "bf16" }), () => prototypeTrain(ffi.BF16)],
  ["decode, f32", () => decodeCase(device), prototypeDecode],
  ["extract, f32", () => extractCase(device), prototypeExtract],
].filter(([name]) => name.includes(flags.only));

// Processor time stands beside the clock: on a machine that others use, with one thread, it is the steadier of the two.
async function timed(step) {
  const before = process.cpuUsage();
  const started = performance.now();
  await step();
  const { user, system } = process.cpuUsage(before);
  return { wall: (performance.now() - started) / 1000, cpu: (user + system) / 1e6 };
}

const lines = [];
for (const [name, ours, theirs] of rows) {
  const bench = ours();
  const theirStep = theirs();
  const times = { ours: [], theirs: [] };
  const step = () => bench.step();
  await step();
  await theirStep();
  for (let i = 0; i < rounds; i++) {
    // Who goes first changes, so that neither always finds warm caches.
    const pair = [
      async () => times.ours.push(await timed(step)),
      async () => times.theirs.push(await timed(theirStep)),
    ];
    for (const each of i % 2 ? pair.reverse() : pair) await each();
  }
  bench[Symbol.dispose]();
  const middle = (which, kind) => median(times[which].map((each) => each[kind]));
  const ratio = (kind) => {
    const ratios = times.ours.map((each, i) => times.theirs[i][kind] / each[kind]);
    return `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)}-${Math.max(...ratios).toFixed(2)})`;
  };
  const cells = ["ours", "theirs"].flatMap((which) => {
    const wall = middle(which, "wall");
    const rate = Math.round(bench.tokens / wall).toLocaleString("en");
    return [wall.toFixed(3), rate, middle(which, "cpu").toFixed(3)];
  });
  lines.push(`| ${[name, ...cells, ratio("wall"), ratio("cpu")].join(" | ")} |`);
  console.error(lines.at(-1));
}
console.log(
  `${threads} threads, ${rounds} alternating rounds; ratio above 1: nlakit is faster (median, range)\n`,
);
console.log("| work | nlakit s | tok/s | cpu s | prototype s | tok/s | cpu s | ratio | ratio of cpu time |");
console.log("|---|---|---|---|---|---|---|---|---|");
console.log(lines.join("\n"));
