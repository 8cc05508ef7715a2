// `nla data run`: all stages of a reference pipeline config after each other. Here are only options, where things lie and what is
// printed; the stages and their order are pipeline/run-pipeline.ts.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { performance } from "node:perf_hooks";
import path from "node:path";
import { readSidecarFile, sidecarPathFor } from "../data/sidecar.js";
import type { ApiSummaries } from "../data/sidecar.js";
import { NlaError } from "../error.js";
import { loadTarget, targetDirectory } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { readLabelCache, readRecordedCalls, recordedLabeller } from "../pipeline/recorded-labels.js";
import type { Labeller } from "../pipeline/labels.js";
import { parseReferenceConfig } from "../pipeline/reference-config.js";
import type { ReferenceConfig } from "../pipeline/reference-config.js";
import { corpusPathOf, findBeside } from "../pipeline/reference-corpus.js";
import { PIPELINE_STAGES, runPipeline } from "../pipeline/run-pipeline.js";
import type { PipelineFile, PipelineStage } from "../pipeline/run-pipeline.js";
import type { Device } from "../tensor/index.js";
import { openProgress } from "../train/progress.js";
import { TAGGED } from "../train/wording.js";
import { deviceFor } from "./device-for.js";
import { localFolder } from "./hub-names.js";
import { UsageError } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandEntry } from "./program.js";
import { table } from "./table.js";

interface RunFlags {
  readonly labels?: string;
  readonly templates?: string;
  readonly corpus?: string;
  readonly override?: readonly string[];
  readonly stages?: readonly PipelineStage[];
  readonly device: string;
  readonly threads?: number;
}

/** What `--templates` gives: prompts, and how labels were asked for. */
interface Templates {
  readonly verbalizer: string;
  readonly reconstructor: string;
  readonly summaries: ApiSummaries | null;
}

function parseStages(text: string): PipelineStage[] {
  const stages = text.split(",").map((each) => each.trim());
  const unknown = stages.find((each) => !(PIPELINE_STAGES as readonly string[]).includes(each));
  if (unknown === undefined) return stages as PipelineStage[];
  throw new UsageError({
    code: "cli.option",
    subject: "--stages",
    found: JSON.stringify(unknown),
    wanted: `some of ${PIPELINE_STAGES.join(",")}`,
    next: "0 extracts, 1 splits, 2 labels, 3 builds.",
  });
}

/** Prompts of any sidecar: its own file, a Parquet file's, or a checkpoint folder's. Without one, our own. */
async function templatesOf(source: string | undefined): Promise<Templates> {
  if (source === undefined) {
    const { verbalizerTemplate, reconstructorTemplate } = TAGGED;
    return { verbalizer: verbalizerTemplate, reconstructor: reconstructorTemplate, summaries: null };
  }
  const file = source.endsWith("nla_meta.yaml") ? source : await sidecarPathFor(source);
  const sidecar = await readSidecarFile(file);
  const { av, ar } = sidecar.templates;
  if (av === null || ar === null) {
    throw new NlaError({
      code: "pipeline.templates",
      subject: file,
      found: `no ${av === null ? "verbalizer" : "reconstructor"} prompt`,
      wanted: "the prompts of both",
      next: "Take the sidecar of a built set (av_sft, ar_sft or rl) or of a checkpoint.",
    });
  }
  const summaries = sidecar.kind === "nla_dataset" ? sidecar.apiSummaries : null;
  return { verbalizer: av, reconstructor: ar, summaries };
}

/** Replays records for one set. @throws NlaError `pipeline.labels` where the sidecar holds no labelling prompt */
export async function recordedLabellerOf(labels: string, templates: string): Promise<Labeller> {
  const { summaries } = await templatesOf(templates);
  const instruction = summaries?.instructionPrompt ?? null;
  if (summaries === null || instruction === null) {
    throw new NlaError({
      code: "pipeline.labels",
      subject: templates,
      found: "no labelling prompt",
      wanted: "a dataset's sidecar whose api_summaries hold it",
      next: "Take the sidecar of av_sft or ar_sft of the run that was recorded.",
    });
  }
  const { model, maxTokens, temperature } = summaries;
  const calls = await readRecordedCalls(labels);
  return recordedLabeller({ calls, instruction, model: model ?? "recorded", maxTokens, temperature });
}

/** Replays records; where there are none, says what stage 2 would need. */
async function labellerOf(
  { label }: ReferenceConfig,
  { summaries }: Templates,
  labels: string | undefined,
  configFile: string,
): Promise<Labeller> {
  const instruction = summaries?.instructionPrompt ?? null;
  if (labels === undefined || instruction === null) {
    throw new NlaError({
      code: "pipeline.labels",
      subject: "stage 2",
      found: labels === undefined ? "no recorded labels" : "no labelling prompt",
      wanted: "--labels CALLS.jsonl, and --templates SIDECAR whose api_summaries hold the labelling prompt",
      next: "Or put splits/av_sft_explained.parquet and ar_sft_explained.parquet, with sidecars, into the output folder.",
    });
  }
  const cached = await Promise.all(
    label.cacheFrom.map(async (each) => (await findBeside(each, configFile)) ?? each),
  );
  return recordedLabeller({
    calls: await readRecordedCalls(labels),
    instruction,
    cache: await readLabelCache(cached),
    model: summaries?.model ?? label.model,
    maxTokens: summaries?.maxTokens ?? label.maxTokens,
    temperature: summaries?.temperature ?? label.temperature,
  });
}

/** The target, loaded when a stage first needs it: a run that only goes on shuffling does without. */
function lazyTarget(name: string, { threads, device: wanted }: RunFlags) {
  let device: Device | null = null;
  let target: Target | null = null;
  return {
    async get(): Promise<Target> {
      device ??= await deviceFor([targetDirectory(name)], { threads, device: wanted });
      return (target ??= await loadTarget(name, device));
    },
    [Symbol.dispose]() {
      target?.[Symbol.dispose]();
      device?.[Symbol.dispose]();
    },
  };
}

function sha256(text: string | Buffer): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 16);
}

/** `nla data run`. */
export const runCommand: CommandEntry = {
  name: "run",
  summary: "run all stages of a reference pipeline config, or go on where it stopped",
  arguments: [{ name: "<config>", description: "the reference's YAML, as it is" }],
  options: [
    { flags: "--labels <calls>", description: "recorded labels: JSON lines of prompt and completion" },
    {
      flags: "--templates <sidecar>",
      hub: "folder",
      description: "prompts: a sidecar, or the data file or checkpoint that it belongs to",
    },
    { flags: "--corpus <path>", description: "where the corpus lies, if not where its name says" },
    {
      flags: "--override <key=value...>",
      description: "set a key of the config, e.g. output_dir=/tmp/out",
    },
    { flags: "--stages <list>", description: "only these: 0,1,2,3,shuffle", parse: parseStages },
    { flags: "--device <name>", description: "device, as `nla doctor` names it", default: "cpu" },
    {
      flags: "--threads <n>",
      description: "CPU threads; by default all cores",
      parse: wholeNumber("--threads", 1),
    },
  ],
  examples: [
    {
      command: "nla data run config.yaml --labels provider_calls.jsonl --templates av_sft.parquet",
      does: "with recorded labels",
    },
  ],
  action: async ([argument], options, context) => {
    const flags = options as unknown as RunFlags;
    const { stdout, stderr, env, json, signal } = context;
    const file = argument as string;
    const config = parseReferenceConfig(await readFile(file), file, flags.override ?? []);
    if (!json) for (const note of config.notes) stderr.write(`note: ${note}\n`);
    const templates = await templatesOf(flags.templates);
    const modelPath = (await findBeside(config.baseModel, file)) ?? config.baseModel;
    const brought = async () => void (await localFolder(modelPath, context));
    using target = lazyTarget(modelPath, flags);
    const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
    const stage = progress.stage("files", { total: null });
    let count = 0;
    const labelSettings = {
      instruction: sha256(templates.summaries?.instructionPrompt ?? ""),
      records: flags.labels === undefined ? null : sha256(await readFile(flags.labels)),
    };
    const files = await runPipeline({
      config,
      corpusPath: flags.corpus ?? (await corpusPathOf(config, file)),
      out: path.resolve(config.outputDir),
      target: async () => {
        await brought();
        return target.get();
      },
      labeller: () => labellerOf(config, templates, flags.labels, file),
      labelSettings,
      templates: { verbalizer: templates.verbalizer, reconstructor: templates.reconstructor },
      ...(flags.stages ? { stages: flags.stages } : {}),
      signal,
      onFile: ({ rows }) => stage.report({ step: ++count, numbers: { rows } }),
    });
    stage.end();
    if (json) stdout.write(`${JSON.stringify({ files, notes: config.notes })}\n`);
    else stdout.write(render(files));
  },
};

function render(files: readonly PipelineFile[]): string {
  const columns = [
    { header: "stage" },
    { header: "file" },
    { header: "rows", align: "right" as const },
    { header: "" },
  ];
  const cells = files.map(({ stage, file, rows, made }) => {
    return [stage, path.relative(process.cwd(), file), String(rows), made ? "made" : "was there"];
  });
  return `${table(columns, cells)}\n`;
}
