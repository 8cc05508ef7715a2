// `nla bench train|decode|extract`: how fast this machine does each with a model of random weights. The work is in
// model/bench.ts; here are flags, their meaning and the page.
import { benchDecode, benchExtract, benchTrain, HOLDINGS } from "../model/index.js";
import type { BenchOptions, BenchProfile, BenchReport, ProfileLine } from "../model/index.js";
import { Device } from "../tensor/index.js";
import { peakSpeed } from "./kernels.js";
import { wholeNumber } from "./program.js";
import { parseHolding } from "./quantize.js";
import type { CommandEntry, CommandOption } from "./program.js";
import { table } from "./table.js";

type What = BenchReport["what"];

const RUNS: Readonly<Record<What, (device: Device, options: BenchOptions) => Promise<BenchReport>>> = {
  train: benchTrain,
  decode: benchDecode,
  extract: benchExtract,
};

const SUMMARIES: Readonly<Record<What, string>> = {
  train: "time a training step: loss, gradients, clipping, AdamW",
  decode: "time reading prompts and generating after them",
  extract: "time all blocks and reading the residual stream after the last one",
};

// Flag, name in BenchOptions, what it is, default of model/bench.ts for the help.
const SIZES: readonly (readonly [string, keyof BenchOptions, string, number | string])[] = [
  ["--dim", "dim", "width of the residual stream", 288],
  ["--layers", "layers", "blocks", 6],
  ["--heads", "heads", "query heads", 6],
  ["--kv-heads", "kvHeads", "key and value heads", "as many as heads"],
  ["--ffn", "ffn", "width of the feed-forward part", 768],
  ["--vocab", "vocabulary", "vocabulary, with a tied head", 4096],
  ["--batch", "batch", "sequences at a time", "32, for decode 64"],
  ["--length", "length", "tokens of each sequence, for decode of each prompt", "128, for decode 60"],
  ["--new", "newTokens", "tokens to generate, for decode", 80],
  ["--steps", "steps", "timed steps, after one that is not", 5],
];

const LORA: (typeof SIZES)[number] = [
  "--lora",
  "lora",
  "rank of adapters on every linear map, which alone are trained",
  "none: all is trained",
];

const QUANTIZE: CommandOption = {
  flags: "--quantize <type>",
  description: `hold the matrices as ${HOLDINGS.join(", ")} (default: f32)`,
  parse: parseHolding,
};

function optionsOf(what: What): CommandOption[] {
  return [
    ...[...SIZES, ...(what === "train" ? [LORA] : [])].map(([flag, , description, value]) => ({
      flags: `${flag} <n>`,
      description: `${description} (default: ${value})`,
      parse: wholeNumber(flag, 1),
    })),
    {
      flags: "--compute <type>",
      description: "type of matrix products",
      default: "f32",
      choices: ["f32", "bf16"],
    },
    {
      flags: "--kernels <which>",
      description: "on: nlakit's own CPU kernels where there are some; off: ggml's",
      default: "on",
      choices: ["on", "off"],
    },
    ...(what === "train" ? [] : [QUANTIZE]),
    { flags: "--profile", description: "time each op and what is not compute, too, in three more steps" },
    { flags: "--threads <n>", description: "CPU threads (default: all)", parse: wholeNumber("--threads", 1) },
  ];
}

/** The bench options among a command's options; commander names `--kv-heads` kvHeads, `--vocab` vocab. */
function benchOptions(options: Readonly<Record<string, unknown>>): BenchOptions {
  const chosen: Record<string, unknown> = {
    compute: options["compute"],
    ...(options["quantize"] === undefined ? {} : { holding: options["quantize"] }),
    profile: options["profile"] === true,
  };
  for (const [flag, name] of [...SIZES, LORA]) {
    const key = flag.slice(2).replaceAll(/-(.)/g, (_, letter: string) => letter.toUpperCase());
    if (options[key] !== undefined) chosen[name] = options[key];
  }
  return chosen;
}

function number(value: number, digits = 0): string {
  return value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** What the command prints: the report, and for training the machine's peak. */
export interface BenchPage extends BenchReport {
  /** GFLOP/s of the fastest product, measured after the steps on the same threads; null where operations are not counted. */
  readonly peak_gflops_per_second: number | null;
  readonly share_of_peak: number | null;
}

async function withPeak(device: Device, report: BenchReport): Promise<BenchPage> {
  const { gflops_per_second: speed } = report;
  if (speed === null) return { ...report, peak_gflops_per_second: null, share_of_peak: null };
  const peak = await peakSpeed(device, report.compute);
  return { ...report, peak_gflops_per_second: peak, share_of_peak: speed / peak };
}

/** A report as a small table, with one more for a profile. */
export function renderBench(report: BenchPage): string {
  const { gflops_per_second: speed, peak_gflops_per_second: peak } = report;
  const rows = [
    ["parameters", number(report.params)],
    ...(report.trained_params === undefined ? [] : [["trained", number(report.trained_params)]]),
    ["device", `${report.device}, ${report.threads} threads, ${report.compute}`],
    ...(report.holding === "f32" ? [] : [["matrices", report.holding]]),
    ["kernels", report.kernels ?? "ggml's"],
    ["seconds (median)", number(report.seconds, 3)],
    ["tokens per second", number(report.tokens_per_second)],
    ...(speed === null || peak === null
      ? []
      : [["GFLOP/s", `${number(speed, 1)}, ${number((100 * speed) / peak)} % of ${number(peak, 1)}`]]),
    ["longest event loop gap", `${number(report.longest_event_loop_gap_ms, 1)} ms`],
    ["peak memory of the process", `${number(report.peak_rss_bytes / 2 ** 20)} MiB`],
    ["time spent building graphs", `${number(report.graph_build_share * 100, 2)} %`],
  ];
  const page = `${table([{ header: report.what }, { header: "" }], rows)}\n`;
  return report.profile ? `${page}\n${renderProfile(report.profile)}` : page;
}

function renderProfile(profile: BenchProfile): string {
  const right = "right" as const;
  const columns = [
    { header: "op" },
    { header: "calls", align: right },
    { header: "ms", align: right },
    { header: "share", align: right },
  ];
  const line = ({ op, calls, seconds, share }: ProfileLine) => [
    op,
    calls > 0 ? number(calls) : "",
    number(1000 * seconds, 2),
    `${number(100 * share, 1)} %`,
  ];
  const total = profile.ops.reduce((sum, { share }) => sum + share, 0);
  const compute = profile.ops.reduce((sum, { seconds }) => sum + seconds, 0);
  const rows = [
    ...profile.ops.map(line),
    line({ op: "all ops", calls: 0, seconds: compute, share: total }),
    ...profile.not_compute.map(line),
  ];
  const { difference } = profile;
  const sign = difference < 0 ? "less" : "more";
  const off = `${number(100 * Math.abs(difference), 1)} % ${sign}`;
  return `${table(columns, rows)}\nin one step; the sum, ${number(1000 * profile.seconds, 1)} ms, is ${off} than a step without a profile\n`;
}

function caseCommand(what: What): CommandEntry {
  return {
    name: what,
    summary: SUMMARIES[what],
    examples: [
      { command: `nla bench ${what}`, does: "with a model of 7.2 million parameters" },
      { command: `nla bench ${what} --profile`, does: "and where the time goes, op by op" },
      { command: `nla bench ${what} --dim 768 --heads 12 --ffn 2048 --json`, does: "a wider one, as JSON" },
    ],
    options: optionsOf(what),
    jsonHelp: "print the measurement as JSON",
    action: async (_, options, { json, stdout, signal }) => {
      const threads = options["threads"] as number | undefined;
      const kernels = options["kernels"] !== "off";
      using device = Device.open(threads === undefined ? { kernels } : { threads, kernels });
      const report = await withPeak(device, await RUNS[what](device, { ...benchOptions(options), signal }));
      stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : renderBench(report));
    },
  };
}

/** The table entry of `nla bench`. */
export function benchCommand(): CommandEntry {
  return {
    name: "bench",
    summary: "measure how fast this machine trains, generates and extracts",
    examples: [
      { command: "nla bench decode --threads 2 --json", does: "generation on two threads, as JSON" },
    ],
    commands: [caseCommand("train"), caseCommand("decode"), caseCommand("extract")],
  };
}
