// `nla eval DIR`: how faithful a run's pair is on its held-out activations, as a table, JSON, or an HTML report.
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { writeFileAtomic } from "../data/files.js";
import { activationsAnew } from "../evaluate/activations-anew.js";
import { evaluateRows, fveGain } from "../evaluate/evaluation.js";
import type { Evaluation, Gain, Range } from "../evaluate/evaluation.js";
import { reportClaims } from "../evaluate/claim-report.js";
import type { ClaimReport, NamedRows } from "../evaluate/claim-report.js";
import { formLosses } from "../evaluate/code-alarm.js";
import { atEqualClaims } from "../evaluate/equal-claims.js";
import type { EqualClaims } from "../evaluate/equal-claims.js";
import type { FormLoss } from "../evaluate/code-alarm.js";
import { explainRows } from "../evaluate/explained-rows.js";
import type { EvalRow, ExplainedRow } from "../evaluate/explained-rows.js";
import { readHeldOutRows } from "../evaluate/held-out-rows.js";
import { renderReport } from "../evaluate/report.js";
import { isWorld } from "../evaluate/world-claims.js";
import { loadNla } from "../nla/read.js";
import type { Nla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import { BUNDLE_LAYOUT, CARD_ROWS } from "../train/bundle.js";
import { worldRows } from "../evaluate/world-rows.js";
import { deviceFor, verbalizerFolders } from "./device-for.js";
import { controlsOf } from "./eval-controls.js";
import { loadConfig } from "../train/config.js";
import { readRows } from "../train/metrics-log.js";
import { openProgress } from "../train/progress.js";
import { RUN_LAYOUT, trainingFile } from "../train/run-layout.js";
import { renderClaims } from "./eval-claims.js";
import { wholeNumber } from "./program.js";
import type { CommandContext, CommandEntry } from "./program.js";
import { table, wrap } from "./table.js";
import { bringTarget } from "./target-of.js";

const WIDTH = 100;

/** What `nla eval --json` prints: the greedy evaluation, and the part of the sampled one that differs. */
export interface EvalReport extends Evaluation {
  readonly model: string;
  readonly layer: number;
  /** The same at temperature 1. */
  readonly sampled: PairNumbers;
  /** The warm-started pair on the same activations, greedy, and what training added to it; null where the run has none. */
  readonly warm_start: (PairNumbers & { readonly gain: Gain }) | null;
  /** Claims held against the truth; null unless the documents are of the world. */
  readonly claims: ClaimReport | null;
}

/** What is told of a pair beside the main one. */
type PairNumbers = Pick<
  Evaluation,
  "fve" | "fve_meannorm" | "mse" | "cosine" | "length" | "failed" | "intervals" | "controls"
>;

function part({
  fve,
  fve_meannorm,
  mse,
  cosine,
  length,
  failed,
  intervals,
  controls,
}: Evaluation): PairNumbers {
  return { fve, fve_meannorm, mse, cosine, length, failed, intervals, controls };
}

interface EvalFlags {
  readonly rows?: number;
  readonly model?: string;
  readonly report?: string;
  readonly maxNewTokens?: number;
  readonly controls?: boolean;
  readonly resamples: number;
  readonly seed: number;
  readonly threads?: number;
}

/** The cap that the run trained with: an explanation that reaches it was a failed one there too. */
async function trainedCap(directory: string): Promise<number | null> {
  const file = path.join(directory, RUN_LAYOUT.config);
  return existsSync(file) ? (await loadConfig(file)).rl.max_new_tokens : null;
}

async function heldOut(
  directory: string,
  nla: Nla,
  flags: EvalFlags,
  context: CommandContext,
): Promise<EvalRow[]> {
  const { signal } = context;
  const file = path.join(directory, trainingFile("eval"));
  const { dim, layer } = nla.verbalizer.contract;
  if (!existsSync(file) && existsSync(path.join(directory, BUNDLE_LAYOUT.numbers))) {
    // A bundle carries no data, but its card says which tokens it was measured on.
    using target = await loadTarget(
      await bringTarget(flags.model, nla.target, context),
      nla.verbalizer.model.device,
    );
    const documents = Math.min(
      CARD_ROWS.documents,
      Math.ceil((flags.rows ?? Infinity) / CARD_ROWS.positions),
    );
    return await worldRows(target, { layer, ...CARD_ROWS, documents, signal });
  }
  const rows = await readHeldOutRows(file, {
    width: dim,
    ...(flags.rows === undefined ? {} : { rows: flags.rows }),
  });
  if (flags.model === undefined) return rows;
  using target = await loadTarget(
    await bringTarget(flags.model, nla.target, context),
    nla.verbalizer.model.device,
  );
  return await activationsAnew(target, rows, { layer, signal }); // awaited here: the target is freed at the end of this scope
}

function named(name: string, rows: readonly ExplainedRow[], { fve }: Evaluation): NamedRows {
  return { name, fve, rows };
}

async function evaluateBoth(directory: string, flags: EvalFlags, context: CommandContext) {
  const { signal, stderr, env, json } = context;
  using device = await deviceFor(verbalizerFolders(directory), { threads: flags.threads });
  using nla = await loadNla(directory, device);
  const rows = await heldOut(directory, nla, flags, context);
  const maxNewTokens = flags.maxNewTokens ?? (await trainedCap(directory)) ?? 200;
  const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
  const explain = async (name: string, pair: Nla, temperature: number) => {
    const live = progress.stage(name, { total: rows.length });
    const explained = await explainRows(pair, rows, {
      temperature,
      maxNewTokens,
      seed: flags.seed,
      signal,
      onProgress: (step) => live.report({ step }),
    });
    live.end("done");
    return explained;
  };
  const { mseScale } = nla.reconstructor.contract;
  const scoring = { mseScale, bootstrap: { resamples: flags.resamples, seed: flags.seed } };
  const after = await explain("greedy", nla, 0);
  const greedy = evaluateRows(after, scoring);
  const drawn = await explain("sampled", nla, 1);
  const sampled = evaluateRows(drawn, scoring);
  const folders = {
    av: path.join(directory, RUN_LAYOUT.warmVerbalizer),
    ar: path.join(directory, RUN_LAYOUT.warmReconstructor),
  };
  const others = [named("sampled, T=1", drawn, sampled)];
  let warmRows: NamedRows | null = null;
  let warm: EvalReport["warm_start"] = null;
  let warmForms: readonly FormLoss[] = [];
  const equal: { readonly claims: EqualClaims[]; readonly tokens: EqualClaims[] } = {
    claims: [],
    tokens: [],
  };
  if (existsSync(folders.av) && existsSync(folders.ar)) {
    using start = await loadNla(folders.av, device, { reconstructor: folders.ar });
    const before = await explain("warm start", start, 0);
    const began = evaluateRows(before, scoring);
    warm = { ...part(began), gain: fveGain(after, before, scoring) };
    warmRows = named("warm start, greedy", before, began);
    if (isWorld(rows)) {
      warmForms = await formLosses(start, before, scoring.bootstrap);
      const early = await explain("warm start, sampled", start, 1);
      others.push(named("warm start, T=1", early, evaluateRows(early, scoring)));
      for (const [name, ours, theirs] of [
        ["greedy", after, before],
        ["sampled, T=1", drawn, early],
      ] as const) {
        const [pair, its] = [
          { nla, rows: ours },
          { nla: start, rows: theirs },
        ];
        for (const by of ["claims", "tokens"] as const) {
          const found = await atEqualClaims(name, pair, its, scoring.bootstrap, by);
          if (found) equal[by].push(found);
        }
      }
    }
  }
  const controls = flags.controls && isWorld(rows) ? await controlsOf(nla, after, flags, context) : null;
  if (controls)
    others.push(
      ...controls.lines.map(({ name, rows: said }) => named(name, said, evaluateRows(said, scoring))),
    );
  const report = isWorld(rows)
    ? await reportClaims(nla, {
        greedy: named("greedy", after, greedy),
        others,
        warm: warmRows,
        warmForms,
        bootstrap: scoring.bootstrap,
        maxNewTokens,
        signal,
      })
    : null;
  const claims = report && {
    ...report,
    ...(equal.claims.length > 0 ? { equal_claims: equal.claims } : {}),
    ...(equal.tokens.length > 0 ? { equal_tokens: equal.tokens } : {}),
    ...(controls ? { probes: controls.probes } : {}),
  };
  return { model: flags.model ?? nla.target ?? "unknown", layer: nla.layer, greedy, sampled, warm, claims };
}

/** The report of a run's folder as HTML. */
async function reportHtml(
  directory: string,
  { model, layer, greedy, sampled, claims }: Awaited<ReturnType<typeof evaluateBoth>>,
): Promise<string> {
  const config = path.join(directory, RUN_LAYOUT.config);
  return renderReport({
    name: path.basename(path.resolve(directory)),
    model,
    layer,
    evaluation: greedy,
    sampled,
    claims,
    metrics: await readRows(path.join(directory, RUN_LAYOUT.metrics)),
    samples: await readRows(path.join(directory, RUN_LAYOUT.samples)),
    config: existsSync(config) ? await readFile(config, "utf8") : null,
  });
}

function range([low, high]: Range): string {
  return `${low.toFixed(3)} to ${high.toFixed(3)}`;
}

/** The evaluation as a page for people. */
export function renderEvaluation(name: string, { model, layer, claims, ...report }: EvalReport): string {
  const numbers = ({ fve, intervals, cosine, length, failed }: EvalReport["sampled"]) => [
    fve.toFixed(3),
    range(intervals.fve),
    cosine?.toFixed(3) ?? "-",
    length.toFixed(1),
    `${(100 * failed).toFixed(1)} %`,
  ];
  const { shuffled, mean } = report.controls;
  const { warm_start: warm } = report;
  const columns = [
    { header: "" },
    { header: "FVE", align: "right" as const },
    { header: "95 % interval", align: "right" as const },
    { header: "cosine", align: "right" as const },
    { header: "tokens", align: "right" as const },
    { header: "failed", align: "right" as const },
  ];
  const rows = [
    ["greedy", ...numbers(report)],
    ["sampled, T=1", ...numbers(report.sampled)],
    ...(warm ? [["warm start, greedy", ...numbers(warm)]] : []),
    [
      "shuffled activations",
      shuffled.fve.toFixed(3),
      range(report.intervals.shuffled_fve),
      shuffled.cosine?.toFixed(3) ?? "-",
      "",
      "",
    ],
    [
      "mean activation",
      Math.abs(mean.fve) < 5e-4 ? "0.000" : mean.fve.toFixed(3),
      "by construction",
      "",
      "",
      "",
    ],
  ];
  const positions = report.by_position.map(({ from, to, n, fve }) => [
    to === null ? `${from} and later` : `${from} to ${to - 1}`,
    String(n),
    fve?.toFixed(3) ?? "-",
  ]);
  const meaning =
    `FVE is the share of the activations' variance (${report.variance.toFixed(3)} around their mean) that comes back from the ` +
    `explanation alone: 0 is what the mean gives, 1 is perfect. Against the best constant direction (${report.variance_meannorm.toFixed(3)}) it is ` +
    `${report.fve_meannorm.toFixed(3)}. It is ${range(report.intervals.difference)} above explanations of other documents' activations (95 %, ` +
    "bootstrap over documents)" +
    (warm ? `, and ${range(warm.gain.interval)} above the warm start` : "") +
    ". Failed explanations count as the mean.";
  return [
    `${name}: ${report.n} held-out activations of ${report.documents} documents, output of block ${layer} of ${model}`,
    table(columns, rows),
    table(
      [{ header: "token" }, { header: "activations", align: "right" }, { header: "FVE", align: "right" }],
      positions,
    ),
    wrap(meaning, WIDTH).join("\n"),
    ...(claims ? [renderClaims(claims)] : []),
    "",
  ].join("\n\n");
}

/** The `eval` command. */
export const evalCommand: CommandEntry = {
  name: "eval",
  summary: "how faithful a trained pair is on held-out activations, with controls and intervals",
  arguments: [{ name: "<dir>", description: "a run folder" }],
  options: [
    {
      flags: "--rows <n>",
      description: "at most so many activations, evenly spread; by default all",
      parse: wholeNumber("--rows", 2),
    },
    {
      flags: "--model <dir>",
      hub: "name",
      description: "take the activations of the held-out texts anew from this model",
    },
    {
      flags: "--controls",
      description: "documents of the world: also text-only models and linear probes (minutes)",
    },
    { flags: "--report <file>", description: "also write a report, one HTML file" },
    {
      flags: "--max-new-tokens <n>",
      description: "cap on an explanation; by default the run's own",
      parse: wholeNumber("--max-new-tokens", 1),
    },
    {
      flags: "--resamples <n>",
      description: "of the bootstrap",
      default: 1000,
      parse: wholeNumber("--resamples", 1),
    },
    {
      flags: "--seed <n>",
      description: "of sampling, bootstrap and control",
      default: 0,
      parse: wholeNumber("--seed"),
    },
    {
      flags: "--threads <n>",
      description: "CPU threads; by default all cores",
      parse: wholeNumber("--threads", 1),
    },
  ],
  examples: [
    { command: "nla eval runs/quickstart", does: "a table" },
    {
      command: "nla eval runs/quickstart --report report.html",
      does: "with the curves of training and samples",
    },
    {
      command: "nla eval assets/smallworld --controls",
      does: "the bundled pair beside models that see only text, and probes",
    },
  ],
  jsonHelp: "{n, fve, variance, controls, ...} as docs/json.md says",
  action: async ([directory], options, context) => {
    const flags = options as unknown as EvalFlags;
    const { stdout, json } = context;
    const both = await evaluateBoth(directory as string, flags, context);
    const report: EvalReport = {
      model: both.model,
      layer: both.layer,
      ...both.greedy,
      sampled: part(both.sampled),
      warm_start: both.warm,
      claims: both.claims,
    };
    if (flags.report !== undefined)
      await writeFileAtomic(flags.report, await reportHtml(directory as string, both));
    stdout.write(json ? `${JSON.stringify(report)}\n` : renderEvaluation(directory as string, report));
    if (flags.report !== undefined && !json) stdout.write(`report written to ${flags.report}\n`);
  },
};
