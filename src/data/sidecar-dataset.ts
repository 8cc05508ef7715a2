// The sidecar of a Parquet file (`kind: nla_dataset`, schema version 1): where its rows came from and how they were made.
import { NlaError } from "../error.js";
import {
  type ExplanationFormat,
  Fields,
  type Injection,
  type InjectionScale,
  type PromptTemplates,
  type SidecarTokens,
  type UnknownKey,
  addExtensions,
  fieldError,
  mseOf,
  readExtensions,
  readScale,
  readTemplates,
  readTokens,
  scaleValue,
  tokensMap,
  withUnknown,
} from "./sidecar-fields.js";
import { YamlFloat, type YamlMap, type YamlScalar, type YamlValue } from "./yaml-scalars.js";

const SCHEMA_VERSION = 1;

/** What a file holds; split and explained files are still `base`. */
export type DatasetStage = "base" | "av_sft" | "ar_sft" | "rl";
const STAGES: ReadonlySet<string> = new Set<DatasetStage>(["base", "av_sft", "ar_sft", "rl"]);

/** How activations were taken. */
export interface ExtractionFacts {
  readonly baseModel: string;
  readonly dModel: number;
  /** K: vectors are the output of block K. */
  readonly layerIndex: number;
  /** "none": raw vectors. Anything else names a transformation that this program does not undo. */
  readonly norm: string;
  readonly corpus: string;
  /** Usually {start, length}. */
  readonly corpusSlice: YamlMap;
  readonly positionsPerDoc: number;
}

/** How explanations were made. */
export interface ApiSummaries {
  readonly model: string;
  /** -1 where the explanations were joined from elsewhere. */
  readonly maxTokens: number | null;
  readonly temperature: number | null;
  readonly instructionPrompt: string | null;
}

/** A dataset sidecar. */
export interface DatasetSidecar {
  readonly kind: "nla_dataset";
  readonly datasetId: string;
  readonly stage: DatasetStage;
  readonly rowCount: number;
  readonly extraction: ExtractionFacts;
  readonly keepDebugMetadata: boolean;
  readonly tokens: SidecarTokens | null;
  readonly templates: PromptTemplates;
  readonly apiSummaries: ApiSummaries | null;
  readonly parentDatasets: readonly string[];
  readonly createdAt: string;
  readonly createdBy: string;
  readonly gitCommit: string;
  /** Datasets rarely state scales; null where this one does not (then mse is sqrt(d_model)). */
  readonly scales: { readonly injectionScale: InjectionScale; readonly mseScale: number | null } | null;
  readonly injection: Injection;
  readonly format: ExplanationFormat;
  /** Whether the file states `injection` and `format`; the reference's do not. */
  readonly extensions: boolean;
  readonly unknown: readonly UnknownKey[];
}

/** Reads a dataset sidecar from its parsed YAML. @throws NlaError `sidecar.field`, `.schema-version`, `.stage`, `.scale`, `.kind`. */
export function readDataset(map: YamlMap, file: string): DatasetSidecar {
  const top = new Fields(map, file);
  const kind = top.string("kind");
  if (kind !== "nla_dataset") throw fieldError(top.subject("kind"), "kind", `"${kind}"`, '"nla_dataset"');
  const version = top.raw("schema_version");
  if (version !== SCHEMA_VERSION) {
    const found = version === undefined ? "nothing" : JSON.stringify(version);
    throw fieldError(top.subject("schema_version"), "schema-version", found, `the number ${SCHEMA_VERSION}`);
  }
  const stage = top.string("stage");
  if (!STAGES.has(stage)) {
    throw fieldError(top.subject("stage"), "stage", `"${stage}"`, [...STAGES].join(", "));
  }
  const extraction = top.part("extraction");
  const facts = readFacts(extraction);
  const tokens = top.partOrNull("tokens");
  const summaries = top.partOrNull("api_summaries");
  const injectionScale = readScale(extraction, "injection_scale", facts.dModel);
  const mseScale = readScale(extraction, "mse_scale", facts.dModel);
  const { stated, ...extensions } = readExtensions(top);
  return {
    kind,
    datasetId: top.string("dataset_id"),
    stage: stage as DatasetStage,
    rowCount: top.count("row_count", 0),
    extraction: facts,
    keepDebugMetadata: top.boolean("keep_debug_metadata", true),
    tokens: tokens === null ? null : readTokens(tokens),
    templates: readTemplates(top.partOrNull("prompt_templates")),
    apiSummaries:
      summaries === null
        ? null
        : {
            model: summaries.string("model"),
            maxTokens: summaries.integerOrNull("max_tokens"),
            temperature: summaries.numberOrNull("temperature"),
            instructionPrompt: summaries.stringOrNull("instruction_prompt"),
          },
    parentDatasets: top.strings("parent_datasets"),
    createdAt: top.stringOrNull("created_at") ?? "",
    createdBy: top.stringOrNull("created_by") ?? "",
    gitCommit: top.stringOrNull("git_commit") ?? "",
    scales:
      injectionScale === undefined && mseScale === undefined
        ? null
        : { injectionScale: injectionScale ?? null, mseScale: mseOf(mseScale, facts.dModel) },
    ...extensions,
    extensions: stated,
    unknown: top.unknown(),
  };
}

function readFacts(extraction: Fields): ExtractionFacts {
  const slice = extraction.mapOrNull("corpus_slice");
  if (slice === null) {
    throw fieldError(extraction.subject("corpus_slice"), "field", "nothing", "a mapping {start, length}");
  }
  return {
    baseModel: extraction.string("base_model"),
    dModel: extraction.count("d_model", 1),
    layerIndex: extraction.count("layer_index", 0),
    norm: extraction.string("norm"),
    corpus: extraction.string("corpus"),
    corpusSlice: slice,
    positionsPerDoc: extraction.count("positions_per_doc", 1),
  };
}

/**
 * The YAML of a dataset sidecar, keys in the reference's order.
 * @throws NlaError `sidecar.incomplete` if a training set lacks what its readers assert.
 */
export function datasetMap(sidecar: DatasetSidecar): YamlMap {
  checkComplete(sidecar);
  const { extraction, scales, apiSummaries, templates } = sidecar;
  const facts = new Map<YamlScalar, YamlValue>([
    ["base_model", extraction.baseModel],
    ["d_model", extraction.dModel],
    ["layer_index", extraction.layerIndex],
    ["norm", extraction.norm],
    ["corpus", extraction.corpus],
    ["corpus_slice", extraction.corpusSlice],
    ["positions_per_doc", extraction.positionsPerDoc],
  ]);
  if (scales !== null) {
    facts.set("injection_scale", scaleValue(scales.injectionScale));
    facts.set("mse_scale", scaleValue(scales.mseScale));
  }
  const map = new Map<YamlScalar, YamlValue>([
    ["dataset_id", sidecar.datasetId],
    ["stage", sidecar.stage],
    ["row_count", sidecar.rowCount],
    ["extraction", facts],
    ["kind", sidecar.kind],
    ["schema_version", SCHEMA_VERSION],
    ["keep_debug_metadata", sidecar.keepDebugMetadata],
  ]);
  if (sidecar.tokens !== null) map.set("tokens", tokensMap(sidecar.tokens));
  const prompts = new Map<YamlScalar, YamlValue>();
  if (templates.av !== null) prompts.set("actor", templates.av);
  if (templates.ar !== null) prompts.set("critic", templates.ar);
  map.set("prompt_templates", prompts);
  if (apiSummaries !== null) {
    const { model, maxTokens, temperature, instructionPrompt } = apiSummaries;
    const summaries = new Map<YamlScalar, YamlValue>([
      ["model", model],
      ["max_tokens", maxTokens],
      ["temperature", temperature === null ? null : new YamlFloat(temperature)],
      ["instruction_prompt", instructionPrompt],
    ]);
    map.set("api_summaries", summaries);
  }
  map.set("parent_datasets", sidecar.parentDatasets);
  map.set("created_at", sidecar.createdAt);
  map.set("created_by", sidecar.createdBy);
  map.set("git_commit", sidecar.gitCommit);
  if (sidecar.extensions) addExtensions(map, sidecar);
  return withUnknown(map, sidecar.unknown);
}

function checkComplete({ stage, tokens, templates, datasetId }: DatasetSidecar): void {
  const missing: string[] = [];
  if (stage !== "base") {
    if (tokens === null) missing.push("tokens");
    if (templates.av === null) missing.push("prompt_templates.actor");
  }
  if (stage === "ar_sft") {
    if (tokens?.criticSuffixIds === null) missing.push("tokens.critic_suffix_ids");
    if (templates.ar === null) missing.push("prompt_templates.critic");
  }
  if (missing.length === 0) return;
  throw new NlaError({
    code: "sidecar.incomplete",
    subject: `sidecar of ${datasetId} (stage ${stage})`,
    found: `no ${missing.join(", no ")}`,
    wanted: "everything that a reader of this stage asserts",
    next: "Fill it in before writing; the reference's loader would stop at this file.",
  });
}
