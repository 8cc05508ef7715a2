// nlakit against PyTorch and Hugging Face's generate on the same model, alternating in one session: each round runs
// `nla bench` and the Python script once, so that what else the machine does meets both. Not part of the package; needs
// `npm run build`, a Python with torch and transformers, and a script that takes the options below and prints one JSON line
// with `seconds` and `tokens_per_second`, and says so where one is absent. torch.compile needs a C++ compiler.
//
//   node bench/against-pytorch.mjs --python python3 --script torch_bench.py [--threads 1,2] [--compute f32,bf16]
//     [--only train,compile,decode,extract] [--rounds 3] [--steps 5] [--dim 288 --layers 6 --heads 6 --ffn 768]
//     [--length 128 --batch 32] [--new 80] [--json]
//
// --length and --batch are those of training and extraction; decoding reads prompts of 60 tokens, as the script does, for
// --decode-batch 64 sequences.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";

const text = (value) => ({ type: "string", default: String(value) });
const { values: flags } = parseArgs({
  options: {
    python: text("python3"),
    script: text(""),
    threads: text("1,2"),
    compute: text("f32,bf16"),
    only: text("train,compile,decode,extract"),
    rounds: text(3),
    steps: text(5),
    dim: text(288),
    layers: text(6),
    heads: text(6),
    ffn: text(768),
    vocab: text(4096),
    length: text(128),
    batch: text(32),
    "decode-batch": text(64),
    new: text(80),
    json: { type: "boolean", default: false },
  },
});
const main = path.resolve(import.meta.dirname, "../dist/cli/main.js");
const LIMIT_MS = 15 * 60_000; // torch.compile of a large model takes minutes

function skip(why) {
  console.log(`skipped: ${why}`);
  process.exit(0);
}
if (!existsSync(main)) skip(`${main} is absent (run \`npm run build\` first)`);
if (!existsSync(flags.script)) skip(`no script "${flags.script}" (give one with --script)`);
const asked = spawnSync(flags.python, ["-c", "import torch, transformers; print(torch.__version__)"], {
  encoding: "utf8",
});
if (asked.status !== 0)
  skip(
    `${flags.python} has no torch and transformers: ${(asked.error?.message ?? asked.stderr).trim().split("\n").at(-1)}`,
  );

// What it is called in --only, the work, whether compiled, and the name of the other side.
const WORKS = [
  { name: "train", what: "train", compile: false, against: "PyTorch eager" },
  { name: "compile", what: "train", compile: true, against: "torch.compile" },
  { name: "decode", what: "decode", compile: false, against: "Hugging Face generate" },
  { name: "extract", what: "extract", compile: false, against: "PyTorch eager" },
];

/** The options that both sides have in common. */
function sizes({ what }, threads) {
  const decode = what === "decode";
  const shape = ["dim", "layers", "heads", "ffn", "vocab", "steps"].flatMap((each) => [
    `--${each}`,
    flags[each],
  ]);
  const work = decode
    ? ["--batch", flags["decode-batch"], "--length", "60", "--new", flags.new]
    : ["--batch", flags.batch, "--length", flags.length];
  return [...shape, "--kv-heads", flags.heads, ...work, "--threads", String(threads)];
}

/** One run; the last line that is JSON, or all of it. */
function measure(command, args, environment = process.env) {
  const run = spawnSync(command, args, {
    encoding: "utf8",
    timeout: LIMIT_MS,
    maxBuffer: 2 ** 26,
    env: environment,
  });
  if (run.status !== 0) {
    const said = (run.error?.message ?? run.stderr).trim().split("\n").slice(-4).join("\n  ");
    throw new Error(`${[command, ...args].join(" ")}\n  ${said}`);
  }
  const out = run.stdout.trim();
  return JSON.parse(out.startsWith("{\n") ? out : out.split("\n").at(-1));
}

const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[Math.floor(sorted.length / 2)] + sorted[Math.ceil(sorted.length / 2) - 1]) / 2;
};

function compare(work, compute, threads) {
  const common = sizes(work, threads);
  const ours = () =>
    measure(process.execPath, [main, "bench", work.what, ...common, "--compute", compute, "--json"]);
  const theirs = () => {
    const compiled = work.compile ? ["--compile"] : [];
    const environment = {
      ...process.env,
      OMP_NUM_THREADS: String(threads),
      MKL_NUM_THREADS: String(threads),
    };
    return measure(
      flags.python,
      [flags.script, work.what, ...common, "--dtype", compute, ...compiled],
      environment,
    );
  };
  const pairs = [];
  for (let i = 0; i < Number(flags.rounds); i++) {
    // Who goes first changes, so that neither always finds the machine as the other left it.
    const pair = {};
    const sides = [() => (pair.ours = ours()), () => (pair.theirs = theirs())];
    for (const side of i % 2 ? sides.reverse() : sides) side();
    pairs.push(pair);
  }
  const ratios = pairs.map((pair) => pair.ours.tokens_per_second / pair.theirs.tokens_per_second);
  return {
    work: work.name,
    against: work.against,
    compute,
    threads,
    params: pairs[0].ours.params,
    kernels: pairs[0].ours.kernels,
    nlakit: median(pairs.map((pair) => pair.ours.tokens_per_second)),
    pytorch: median(pairs.map((pair) => pair.theirs.tokens_per_second)),
    share_of_peak: work.what === "decode" ? null : median(pairs.map((pair) => pair.ours.share_of_peak)),
    ratio: median(ratios),
    worst: Math.min(...ratios),
    best: Math.max(...ratios),
  };
}

const rate = (value) => Math.round(value).toLocaleString("en");

function line(row) {
  const share = row.share_of_peak === null ? "" : `${(100 * row.share_of_peak).toFixed(0)} %`;
  const ratios = [row.ratio, row.worst, row.best].map((value) => value.toFixed(2));
  const cells = [
    `${row.work}, ${row.compute}`,
    row.threads,
    row.against,
    rate(row.nlakit),
    rate(row.pytorch),
    share,
  ];
  return `| ${[...cells, ...ratios].join(" | ")} |`;
}

const only = flags.only.split(",");
const rows = [];
let failed = 0;
for (const threads of flags.threads.split(",").map(Number)) {
  for (const compute of flags.compute.split(",")) {
    for (const work of WORKS.filter(({ name }) => only.includes(name))) {
      try {
        rows.push(compare(work, compute, threads));
        console.error(line(rows.at(-1)));
      } catch (error) {
        failed++;
        console.error(`FAILED ${work.name}, ${compute}, ${threads} threads: ${error.message}`);
      }
    }
  }
}
const shape = `dim ${flags.dim}, ${flags.layers} layers, ${flags.heads} heads, ffn ${flags.ffn}, vocab ${flags.vocab}, ${flags.batch}x${flags.length}`;
if (flags.json)
  console.log(
    JSON.stringify({ torch: asked.stdout.trim(), shape, rounds: Number(flags.rounds), rows }, null, 2),
  );
else {
  console.log(
    `torch ${asked.stdout.trim()}; ${shape}; ${flags.rounds} alternating rounds, medians, tokens per second\n`,
  );
  console.log("| work | threads | against | nlakit | theirs | of the peak | ratio | worst | best |");
  console.log("|---|---|---|---|---|---|---|---|---|");
  console.log(rows.map(line).join("\n"));
}
process.exit(failed > 0 ? 1 : 0);
