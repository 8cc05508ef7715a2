// The pipeline YAML of the reference implementation, taken as it is: what of it decides our files, and which keys only make
// sense there. Not our own training config (train/config.ts); nothing here touches a file but the text it is given.
import { z } from "zod";
import { readYaml } from "../data/yaml-read.js";
import { YamlFloat } from "../data/yaml-scalars.js";
import type { YamlValue } from "../data/yaml-scalars.js";
import { NlaError } from "../error.js";

/** What a run of the pipeline is told by a reference config. */
export interface ReferenceConfig {
  readonly baseModel: string;
  /** K: the output of block K. */
  readonly layer: number;
  readonly outputDir: string;
  readonly corpus: {
    readonly name: string;
    readonly split: string;
    readonly field: string;
    readonly start: number;
    readonly length: number;
  };
  readonly extract: {
    readonly perDocument: number;
    readonly seed: number;
    readonly maxLength: number;
    readonly batch: number;
    readonly compute: "f32" | "bf16";
  };
  readonly split: {
    readonly av_sft: number;
    readonly ar_sft: number;
    readonly rl: number;
    readonly seed: number;
  };
  readonly label: {
    readonly chunkSize: number;
    readonly cacheFrom: readonly string[];
    /** What the labelling model was asked with, where the file says it. */
    readonly model: string;
    readonly maxTokens: number | null;
    readonly temperature: number | null;
  };
  readonly keepText: boolean;
  readonly shuffle: { readonly enabled: boolean; readonly seed: number };
  /** What a person should know: keys that do nothing here, and why. */
  readonly notes: readonly string[];
}

// The reference's presets: name on the hub, and two thirds of the blocks.
const PRESETS: Readonly<Record<string, { baseModel: string; layer: number }>> = {
  qwen7b: { baseModel: "Qwen/Qwen2.5-7B-Instruct", layer: 18 },
  gemma12b: { baseModel: "google/gemma-3-12b-it", layer: 32 },
  gemma27b: { baseModel: "google/gemma-3-27b-it", layer: 41 },
  llama70b: { baseModel: "meta-llama/Llama-3.3-70B-Instruct", layer: 53 },
};

const whole = z.number().int().min(0);
const share = z.number().min(0).max(1);
const FORM = z.looseObject({
  model: z.string().optional(),
  base_model: z.string().min(1).optional(),
  layer_index: whole.optional(),
  output_dir: z.string().min(1),
  corpus: z.looseObject({
    name: z.string().min(1),
    split: z.string().default("train"),
    text_column: z.string().default("text"),
    start: whole.default(0),
    length: z.number().int().min(1),
  }),
  stage0: z
    .looseObject({
      positions_per_doc: z.number().int().min(1).default(10),
      seed: z.number().int().default(42),
      extractor_kwargs: z
        .looseObject({
          max_length: z.number().int().min(2).default(2048),
          batch_size: z.number().int().min(1).default(8),
          torch_dtype: z.string().optional(),
          dtype: z.string().optional(),
        })
        .prefault({}),
    })
    .prefault({}),
  stage1: z
    .looseObject({
      av_sft_frac: share.default(0.3),
      ar_sft_frac: share.default(0.3),
      rl_frac: share.default(0.4),
      seed: z.number().int().default(42),
    })
    .prefault({}),
  stage2: z
    .looseObject({
      chunk_size: z.number().int().min(1).default(256),
      cache_from: z.array(z.string()).nullish(),
      provider_kwargs: z
        .looseObject({
          model: z.string().optional(),
          max_tokens: whole.optional(),
          temperature: z.number().optional(),
        })
        .nullish(),
    })
    .prefault({}),
  stage3: z.looseObject({ keep_debug_metadata: z.boolean().default(true) }).prefault({}),
  shuffle: z
    .looseObject({ enabled: z.boolean().default(true), seed: z.number().int().default(42) })
    .prefault({}),
});

const NO_REMOTE = "it names a Python class, and labels are replayed here (--labels)";
// Keys without an effect here, and the reason that is printed.
const ONLY_THERE: Readonly<Record<string, string>> = {
  "corpus.config": "the corpus is a file or folder here",
  "stage0.chunk_size": "rows are streamed; it set the row groups there",
  "stage0.multigpu": "one device is used",
  "stage0.extractor_cls": "it names a Python class",
  "stage0.extractor_kwargs.device_map": "--device and --threads choose",
  "stage0.extractor_kwargs.attn_implementation": "there is one attention",
  "stage0.extractor_kwargs.trust_remote_code": "no code of a model is run",
  "stage2.provider_cls": NO_REMOTE,
  "stage2.provider_kwargs": "only model, max_tokens and temperature are kept, for the sidecar",
  "stage2.cache_storage_cls": "files are local",
  storage_cls: "files are local",
  upload: "nothing is uploaded",
};
// Keys that have an effect, beside those of FORM's own shape.
const KNOWN = new Set(
  `model base_model layer_index output_dir corpus corpus.name corpus.split corpus.text_column corpus.start corpus.length
  stage0 stage0.positions_per_doc stage0.seed stage0.extractor_kwargs stage0.extractor_kwargs.max_length
  stage0.extractor_kwargs.batch_size stage0.extractor_kwargs.torch_dtype stage0.extractor_kwargs.dtype
  stage1 stage1.av_sft_frac stage1.ar_sft_frac stage1.rl_frac stage1.seed
  stage2 stage2.chunk_size stage2.cache_from stage3 stage3.keep_debug_metadata shuffle shuffle.enabled shuffle.seed`.split(
    /\s+/,
  ),
);

function configError(
  code: string,
  subject: string,
  found: string,
  wanted: string,
  next = "Correct the file.",
): NlaError {
  return new NlaError({ code: `pipeline.${code}`, subject, found, wanted, next });
}

/** Plain values of parsed YAML; keys as text. */
function plain(value: YamlValue): unknown {
  if (value instanceof YamlFloat) return value.value;
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, v]) => [String(key), plain(v)]));
  return Array.isArray(value) ? value.map(plain) : value;
}

type Plain = Record<string, unknown>;

function isPlain(value: unknown): value is Plain {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Sets `a.b=value` in a tree, the value read as YAML. @throws NlaError `pipeline.override` */
function override(tree: Plain, assignment: string): void {
  const [, key, text] = /^([\w.]+)=(.*)$/s.exec(assignment) ?? [];
  if (key === undefined || text === undefined) {
    throw configError("override", "--override", JSON.stringify(assignment), "a.b=value");
  }
  const names = key.split(".");
  let at = tree;
  for (const name of names.slice(0, -1)) {
    const next = at[name] ?? (at[name] = {});
    if (!isPlain(next)) throw configError("override", `--override ${key}`, `${name} is no mapping`, "one");
    at = next;
  }
  at[names.at(-1) as string] = plain(readYaml(Buffer.from(text), `--override ${key}`));
}

/**
 * Reads a reference pipeline config.
 *
 * @param subject the file's name for messages
 * @param overrides `a.b=value` each, as the reference's `--override`
 * @throws NlaError `yaml.*`; `pipeline.config` for a missing or impossible value; `pipeline.two-models` where the model is named a
 *   second time in `extractor_kwargs`
 */
export function parseReferenceConfig(
  bytes: Uint8Array,
  subject: string,
  overrides: readonly string[] = [],
): ReferenceConfig {
  const tree = plain(readYaml(bytes, subject));
  if (!isPlain(tree)) throw configError("config", subject, "no mapping", "the keys of a pipeline config");
  for (const each of overrides) override(tree, each);
  const parsed = FORM.safeParse(tree);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const where = issue?.path.join(".") ?? "";
    const value = issue?.path.reduce<unknown>((at, key) => (isPlain(at) ? at[String(key)] : at), tree);
    throw configError(
      "config",
      `${subject}: ${where}`,
      JSON.stringify(value) ?? "nothing",
      issue?.message ?? "",
    );
  }
  const { data } = parsed;
  const kwargs = data.stage0.extractor_kwargs;
  if ("model_name" in kwargs) {
    throw configError(
      "two-models",
      `${subject}: stage0.extractor_kwargs.model_name`,
      JSON.stringify(kwargs["model_name"]),
      "the model named once, as base_model",
      "Remove it: the sidecar would record one model and the vectors be another's.",
    );
  }
  const preset = data.model === undefined ? undefined : PRESETS[data.model];
  if (data.model !== undefined && preset === undefined) {
    const known = Object.keys(PRESETS).join(", ");
    throw configError("config", `${subject}: model`, JSON.stringify(data.model), `one of ${known}`);
  }
  const baseModel = data.base_model ?? preset?.baseModel;
  const layer = data.layer_index ?? preset?.layer;
  if (baseModel === undefined || layer === undefined) {
    const missing = baseModel === undefined ? "base_model" : "layer_index";
    throw configError("config", `${subject}: ${missing}`, "nothing", `${missing}, or a preset as model`);
  }
  const { corpus, stage0, stage1, stage2, stage3, shuffle } = data;
  const provider = stage2.provider_kwargs ?? {};
  const { dtype, notes } = dtypeOf(kwargs.torch_dtype ?? kwargs.dtype);
  return {
    baseModel,
    layer,
    outputDir: data.output_dir,
    corpus: {
      name: corpus.name,
      split: corpus.split,
      field: corpus.text_column,
      start: corpus.start,
      length: corpus.length,
    },
    extract: {
      perDocument: stage0.positions_per_doc,
      seed: stage0.seed,
      maxLength: kwargs.max_length,
      batch: kwargs.batch_size,
      compute: dtype,
    },
    split: {
      av_sft: stage1.av_sft_frac,
      ar_sft: stage1.ar_sft_frac,
      rl: stage1.rl_frac,
      seed: stage1.seed,
    },
    label: {
      chunkSize: stage2.chunk_size,
      cacheFrom: stage2.cache_from ?? [],
      model: provider.model ?? "recorded",
      maxTokens: provider.max_tokens ?? null,
      temperature: provider.temperature ?? null,
    },
    keepText: stage3.keep_debug_metadata,
    shuffle: { enabled: shuffle.enabled, seed: shuffle.seed },
    notes: [...notes, ...keyNotes(tree)],
  };
}

// The reference computes in bf16 unless told otherwise.
function dtypeOf(name: string | undefined): { dtype: "f32" | "bf16"; notes: readonly string[] } {
  const bare = name?.replace(/^torch\./, "");
  if (bare === "float32") return { dtype: "f32", notes: [] };
  if (bare === undefined || bare === "bfloat16" || bare === "auto") return { dtype: "bf16", notes: [] };
  return {
    dtype: "f32",
    notes: [`stage0.extractor_kwargs.torch_dtype: ${bare} is computed in float32 here`],
  };
}

function keyNotes(tree: Plain, path: readonly string[] = []): string[] {
  return Object.entries(tree).flatMap(([key, value]) => {
    const at = [...path, key];
    const name = at.join(".");
    const reason = ONLY_THERE[name];
    if (reason !== undefined) return [`${name} has no effect here: ${reason}`];
    if (!KNOWN.has(name)) return [`${name} has no effect here: no such key is known`];
    return isPlain(value) ? keyNotes(value, at) : [];
  });
}
