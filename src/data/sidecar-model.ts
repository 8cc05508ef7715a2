// The sidecar of a checkpoint (`kind: nla_model`): what the model was trained with, and must be used with.
//
// Two spellings exist: that of training (actor, critic) and that of released checkpoints (av, ar, and a top-level
// extraction_layer_index). Both are read with all their aliases; a file is written in the spelling it came in.
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
import type { YamlMap, YamlScalar, YamlValue } from "./yaml-scalars.js";

const SCHEMA_VERSION = 2;

/** A model sidecar. */
export interface ModelSidecar {
  readonly kind: "nla_model";
  /** The verbalizer (actor) or the reconstructor (critic); null where the file does not say. */
  readonly role: "av" | "ar" | null;
  /** init, sl or rl, or whatever the file says. */
  readonly stage: string | null;
  readonly baseCheckpoint: string | null;
  readonly dModel: number;
  readonly injectionScale: InjectionScale;
  /** Length that both vectors are scaled to before they are compared; null: not scaled. Absent in the file: sqrt(d). */
  readonly mseScale: number | null;
  readonly tokens: SidecarTokens;
  readonly templates: PromptTemplates;
  readonly trainedOn: readonly string[];
  readonly parentCheckpoints: readonly string[];
  readonly createdAt: string;
  readonly createdBy: string;
  /** K: activations are the output of block K, and a reconstructor has K+1 blocks. Null where the file does not say. */
  readonly layerIndex: number | null;
  /** Which of its spellings the file has, e.g. ["critic.extraction_layer_index"]. */
  readonly layerKeys: readonly string[];
  /** lr, loss_type and the like, as they are. */
  readonly training: YamlMap | null;
  readonly spelling: "training" | "released";
  readonly injection: Injection;
  readonly format: ExplanationFormat;
  /** Whether the file states `injection` and `format`; the reference's do not. */
  readonly extensions: boolean;
  readonly unknown: readonly UnknownKey[];
  /** What a person should know about this file: contradictions that were resolved. */
  readonly notes: readonly string[];
}

const ROLES: ReadonlyMap<string, "av" | "ar"> = new Map([
  ["av", "av"],
  ["actor", "av"],
  ["ar", "ar"],
  ["critic", "ar"],
] as const);

/** Reads a model sidecar from its parsed YAML. @throws NlaError `sidecar.field`, `.role`, `.scale`, `.kind`, `.injection`, `.format`. */
export function readModel(map: YamlMap, file: string): ModelSidecar {
  const top = new Fields(map, file);
  const kind = top.string("kind");
  if (kind !== "nla_model") throw fieldError(top.subject("kind"), "kind", `"${kind}"`, '"nla_model"');
  top.raw("schema_version"); // the reference reads models of any version, and of none
  const spelled = top.stringOrNull("role");
  const role = spelled === null ? null : ROLES.get(spelled);
  if (role === undefined) {
    throw fieldError(top.subject("role"), "role", `"${spelled}"`, "av or actor, ar or critic");
  }
  const dModel = top.count("d_model", 1);
  const extraction = top.partOrNull("extraction");
  const templates = readTemplates(top.partOrNull("prompt_templates"));
  checkTemplates(templates, role, top);
  const tokens = readTokens(top.part("tokens"));
  const injectionScale = readScale(extraction, "injection_scale", dModel) ?? null;
  const mseScale = mseOf(readScale(extraction, "mse_scale", dModel), dModel);
  const { stated, ...extensions } = readExtensions(top);
  return {
    kind,
    role,
    stage: top.stringOrNull("stage"),
    baseCheckpoint: top.stringOrNull("base_checkpoint"),
    dModel,
    injectionScale,
    mseScale,
    tokens,
    templates,
    trainedOn: top.strings("trained_on"),
    parentCheckpoints: top.strings("parent_checkpoints"),
    createdAt: top.stringOrNull("created_at") ?? "",
    createdBy: top.stringOrNull("created_by") ?? "",
    ...readLayer(top),
    training: top.mapOrNull("training"),
    spelling: spelled === "av" || spelled === "ar" ? "released" : "training",
    ...extensions,
    extensions: stated,
    unknown: top.unknown(),
  };
}

/** Training needs the verbalizer's prompt whoever trains; a reconstructor alone can be used with its own. */
function checkTemplates({ av, ar }: PromptTemplates, role: "av" | "ar" | null, top: Fields): void {
  if (av !== null || (role === "ar" && ar !== null)) return;
  throw fieldError(top.subject("prompt_templates.actor"), "field", "nothing", "the verbalizer's prompt");
}

/**
 * The layer, which has five spellings. Where they disagree the first stated of critic.extraction_layer_index,
 * critic.num_hidden_layers (the reference's order), then ar.*, then the top-level key wins, with a note.
 */
function readLayer(top: Fields): {
  layerIndex: number | null;
  layerKeys: readonly string[];
  notes: readonly string[];
} {
  const stated = ["critic", "ar"].flatMap((name) => {
    const part = top.partOrNull(name);
    return ["extraction_layer_index", "num_hidden_layers"].map((key) => ({
      name: `${name}.${key}`,
      value: part?.countOrNull(key, 0) ?? null,
    }));
  });
  stated.push({ name: "extraction_layer_index", value: top.countOrNull("extraction_layer_index", 0) });
  const given = stated.filter(({ value }) => value !== null);
  const [first] = given;
  const agree = given.every(({ value }) => value === first?.value);
  const list = given.map(({ name, value }) => `${name}: ${value}`).join(", ");
  return {
    layerIndex: first?.value ?? null,
    layerKeys: given.map(({ name }) => name),
    notes: agree ? [] : [`the layer is stated differently (${list}); ${first?.name} is used`],
  };
}

/** The YAML of a model sidecar, keys in the reference's order, scales resolved to numbers. */
export function modelMap(sidecar: ModelSidecar): YamlMap {
  const { role, layerIndex, templates, training } = sidecar;
  const released = sidecar.spelling === "released";
  const names = released ? { av: "av", ar: "ar" } : { av: "actor", ar: "critic" };
  const map = new Map<YamlScalar, YamlValue>([
    ["kind", sidecar.kind],
    ["schema_version", SCHEMA_VERSION],
  ]);
  if (role !== null) map.set("role", names[role]);
  if (sidecar.stage !== null) map.set("stage", sidecar.stage);
  if (sidecar.baseCheckpoint !== null) map.set("base_checkpoint", sidecar.baseCheckpoint);
  map.set("d_model", sidecar.dModel);
  map.set(
    "extraction",
    new Map<YamlScalar, YamlValue>([
      ["injection_scale", scaleValue(sidecar.injectionScale)],
      ["mse_scale", scaleValue(sidecar.mseScale)],
    ]),
  );
  map.set("tokens", tokensMap(sidecar.tokens));
  map.set(
    "prompt_templates",
    new Map<YamlScalar, YamlValue>([
      [names.av, templates.av],
      [names.ar, templates.ar],
    ]),
  );
  map.set("trained_on", sidecar.trainedOn);
  map.set("parent_checkpoints", sidecar.parentCheckpoints);
  map.set("created_at", sidecar.createdAt);
  map.set("created_by", sidecar.createdBy);
  // The reference starts a reconstructor only with this block; it reads no other spelling of the layer.
  if (role === "ar" && layerIndex !== null)
    map.set("critic", new Map([["extraction_layer_index", layerIndex]]));
  if (training !== null) map.set("training", training);
  if (layerIndex !== null && (released || role !== "ar")) map.set("extraction_layer_index", layerIndex);
  if (sidecar.extensions) addExtensions(map, sidecar);
  return withUnknown(map, sidecar.unknown);
}
