// Adapters from and to folders in peft's layout: adapter_config.json and adapter_model.safetensors. What peft can and
// nlakit cannot is refused by the option's name, never left out.
import { existsSync } from "node:fs";
import { access, mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { NlaError, messageOf } from "../error.js";
import { writeFileAtomic } from "../data/files.js";
import { cachedModel } from "../data/hub-cache.js";
import { parseHubName } from "../data/hub-name.js";
import { openSafetensors, writeSafetensors } from "../data/safetensors.js";
import type { WeightsFile } from "../data/safetensors.js";
import { formatShape } from "../tensor/index.js";
import type { Device } from "../tensor/index.js";
import type { Json } from "./config-reader.js";
import type { DecoderConfig } from "./decoder-config.js";
import { isTarget, Lora, LORA_TARGETS, linearModules, loraError, loraName } from "./lora.js";
import type { LoraSettings, LoraValues } from "./lora.js";

/** The file that makes a folder an adapter's. */
export const ADAPTER_CONFIG = "adapter_config.json";
const ADAPTER_WEIGHTS = "adapter_model.safetensors";

// What peft puts before the names of the model that it wraps.
const WRAPPED = "base_model.model.";

const READ = new Set([
  "peft_type",
  "bias",
  "init_lora_weights",
  "r",
  "lora_alpha",
  "target_modules",
  "use_rslora",
]);

// Keys that change nothing in what a loaded adapter computes.
const HARMLESS = new Set([
  "auto_mapping",
  "base_model_name_or_path",
  "inference_mode",
  "lora_dropout", // training only
  "loftq_config", // how the start was found
  "megatron_core",
  "peft_version",
  "qalora_group_size", // of use_qalora, which is refused
  "revision",
  "task_type",
]);
// Other starts (PiSSA, OLoRA, LoftQ ...) change the base as well: the adapter does not fit the model as it was.
const STARTS = new Set<unknown>([true, false, "gaussian", null, undefined]);

interface AdapterConfig extends LoraSettings {
  readonly base: string | null;
  readonly targetModules: readonly string[] | string;
}

/** Whether a folder holds an adapter. */
export async function hasAdapter(directory: string): Promise<boolean> {
  try {
    await access(path.join(directory, ADAPTER_CONFIG));
    return true;
  } catch {
    return false; // absent, or not to be read, which whoever opens it will say
  }
}

/**
 * What an adapter folder says of the model that it is for: a folder, if `base_model_name_or_path` is one, from the adapter's own; else as
 * it is written, which may be a name of the hub.
 *
 * @throws NlaError `model.lora-config`; `model.lora` where the config names none
 */
export async function adapterBaseName(directory: string): Promise<string> {
  const { base } = await readAdapterConfig(directory);
  if (base === null)
    throw loraError("base_model_name_or_path", "nothing", "the folder of the base model", directory);
  const folder = path.resolve(directory, base);
  return existsSync(folder) ? folder : base;
}

/**
 * The folder of the model that an adapter folder is for; a name of the hub is looked for in the cache.
 *
 * @throws NlaError as {@link adapterBaseName}; `model.lora` where there is no such folder
 */
export async function adapterBase(directory: string): Promise<string> {
  const named = await adapterBaseName(directory);
  if (path.isAbsolute(named) && existsSync(named)) return named;
  const hub = parseHubName(named);
  const cached = hub === null ? null : cachedModel(hub);
  if (cached !== null) return cached;
  const wanted =
    "the base model: a folder, from the adapter's own, or a name of the hub that is in the cache";
  throw loraError("base_model_name_or_path", named, wanted, directory);
}

/**
 * Reads an adapter onto a device.
 *
 * @param config the decoder that it is for
 * @throws NlaError `model.lora` naming the option, module, rank or shape that does not fit, `model.lora-config`, and those of
 *   the safetensors reader
 */
export async function loadLora(directory: string, device: Device, config: DecoderConfig): Promise<Lora> {
  const { settings, values } = await readLora(directory, config);
  return new Lora(device, config, settings, { valuesOf: (module) => values.get(module) as LoraValues });
}

/** What an adapter's folder says: settings whose targets are the modules themselves, and each module's matrices. */
export interface ReadLora {
  readonly settings: LoraSettings;
  readonly values: ReadonlyMap<string, LoraValues>;
}

/**
 * Reads an adapter, on no device.
 *
 * @throws NlaError as {@link loadLora}
 */
export async function readLora(directory: string, config: DecoderConfig): Promise<ReadLora> {
  const settings = await readAdapterConfig(directory);
  const file = await openSafetensors(path.join(directory, ADAPTER_WEIGHTS));
  try {
    const names = moduleNames(file, config);
    checkTargets(settings, names, config, file.path);
    const values = new Map<string, LoraValues>();
    for (const [module, prefix] of names) {
      const [out, into] = linearModules(config).get(module) as readonly [number, number];
      values.set(module, {
        a: await matrix(file, loraName(prefix, "A"), [settings.rank, into]),
        b: await matrix(file, loraName(prefix, "B"), [out, settings.rank]),
      });
    }
    // From here on the modules themselves are the targets: each ends in itself.
    const listed = typeof settings.targetModules === "string" ? [...names.keys()] : settings.targetModules;
    return { settings: { ...settings, targets: listed }, values };
  } finally {
    await file.close();
  }
}

/**
 * Writes an adapter into a folder so that peft reads it, F32.
 *
 * @param base what base_model_name_or_path says. Defaults to ".", the folder itself
 * @throws NlaError `disk.full` and others of the writers
 */
export async function saveLora(
  directory: string,
  lora: Lora,
  config: DecoderConfig,
  base = ".",
): Promise<void> {
  await mkdir(directory, { recursive: true });
  const tensors = [...lora.parameters.tensors].map(([name, tensor]) => {
    const { buffer, byteOffset, byteLength } = tensor.readF32();
    return {
      name: WRAPPED + memoryPrefix(config) + name.slice("model.".length),
      dtype: "F32" as const,
      shape: tensor.shape,
      data: new Uint8Array(buffer, byteOffset, byteLength),
    };
  });
  tensors.sort((a, b) => (a.name < b.name ? -1 : 1)); // as peft's files are
  await writeSafetensors(path.join(directory, ADAPTER_WEIGHTS), tensors, { metadata: { format: "pt" } });
  const { rank, alpha, rsLora, targets } = lora.settings;
  const json = {
    base_model_name_or_path: base,
    bias: "none",
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: alpha,
    lora_dropout: 0,
    modules_to_save: null,
    peft_type: "LORA",
    r: rank,
    target_modules: [...targets].sort(),
    task_type: "CAUSAL_LM",
    use_dora: false,
    use_rslora: rsLora,
  };
  await writeFileAtomic(path.join(directory, ADAPTER_CONFIG), `${JSON.stringify(json, null, 2)}\n`);
}

// transformers names the text part of a multimodal model otherwise in memory, and so in adapters, than in weight files.
function memoryPrefix(config: DecoderConfig): string {
  return config.weightPrefix === "" ? "model." : "model.language_model.";
}

async function readAdapterConfig(directory: string): Promise<AdapterConfig> {
  const file = path.join(directory, ADAPTER_CONFIG);
  let json: Json;
  try {
    const parsed: unknown = JSON.parse(await readFile(file, "utf8"));
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed))
      throw new Error("no JSON object");
    json = parsed as Json;
  } catch (cause) {
    throw new NlaError({
      code: "model.lora-config",
      subject: file,
      found: messageOf(cause),
      wanted: "the adapter_config.json that peft writes",
      next: "Name the folder that holds it and adapter_model.safetensors.",
      cause,
    });
  }
  const refuse = (key: string, wanted: string): never => {
    throw loraError(key, JSON.stringify(json[key]) ?? "nothing", wanted, file);
  };
  if (json["peft_type"] !== "LORA") refuse("peft_type", '"LORA": no other kind of adapter is known');
  if ((json["bias"] ?? "none") !== "none") refuse("bias", '"none": trained biases are not supported');
  if (!STARTS.has(json["init_lora_weights"]))
    refuse("init_lora_weights", 'true, false or "gaussian": other starts change the base model too');
  const rank = json["r"];
  if (typeof rank !== "number") return refuse("r", "the rank");
  const alpha = json["lora_alpha"];
  if (typeof alpha !== "number") return refuse("lora_alpha", "a number");
  const targets = json["target_modules"];
  const listed = Array.isArray(targets) && targets.every((each) => typeof each === "string");
  if (typeof targets !== "string" && !listed)
    return refuse("target_modules", "a list of names, or one pattern");
  const rsLora = json["use_rslora"] ?? false;
  if (typeof rsLora !== "boolean") return refuse("use_rslora", "true or false");
  const base = json["base_model_name_or_path"] ?? null;
  if (base !== null && typeof base !== "string") return refuse("base_model_name_or_path", "a name or path");
  for (const key of Object.keys(json)) {
    if (READ.has(key) || HARMLESS.has(key) || isOff(json[key])) continue;
    refuse(key, "no such option, or one that is off: nlakit does not support it");
  }
  return { rank, alpha, rsLora, base, targetModules: targets as string | readonly string[] };
}

function isOff(value: unknown): boolean {
  if (value === null || value === false) return true;
  return typeof value === "object" && Object.keys(value as object).length === 0;
}

/** The adapted modules in our names, with the names that the file gives them. */
function moduleNames(file: WeightsFile, config: DecoderConfig): Map<string, string> {
  const known = linearModules(config);
  const names = new Map<string, string>();
  for (const name of file.entries.keys()) {
    const prefix = /^(.*)\.lora_[AB]\.weight$/.exec(name)?.[1];
    const inner = prefix?.startsWith(WRAPPED) ? prefix.slice(WRAPPED.length) : undefined;
    const module = inner?.replace(/^(language_model\.model|model\.language_model)\./, "model.");
    if (prefix !== undefined && module !== undefined && known.has(module)) names.set(module, prefix);
    else {
      throw loraError(
        `tensor ${name}`,
        "a module that the model has not, or that cannot be adapted here",
        `${WRAPPED}model.layers.K.MODULE.lora_A.weight or lora_B, K below ${config.layers}, MODULE one of ${LORA_TARGETS.join(", ")}`,
        file.path,
      );
    }
  }
  return names;
}

/** target_modules and the file must speak of the same modules. */
function checkTargets(
  { targetModules }: AdapterConfig,
  found: ReadonlyMap<string, string>,
  config: DecoderConfig,
  subject: string,
): void {
  const wanted = [...linearModules(config).keys()].filter(isTargeted(targetModules, subject));
  if (typeof targetModules !== "string") {
    for (const target of targetModules) {
      if (wanted.some((module) => isTargeted([target], subject)(module))) continue;
      throw loraError("target_modules", `"${target}"`, `some of ${LORA_TARGETS.join(", ")}`, subject);
    }
  }
  const missing = wanted.find((module) => !found.has(module));
  if (missing !== undefined)
    throw loraError(`module ${missing}`, "no matrices", "those of every target module", subject);
  const extra = [...found.keys()].find((module) => !wanted.includes(module));
  if (extra !== undefined)
    throw loraError(
      `module ${extra}`,
      "matrices in the file",
      "only modules that target_modules names",
      subject,
    );
}

function isTargeted(targets: readonly string[] | string, subject: string): (module: string) => boolean {
  if (targets === "all-linear") return () => true;
  if (typeof targets !== "string") return (module) => targets.some((target) => isTarget(module, target));
  try {
    const pattern = new RegExp(`^(?:${targets})$`, "u");
    return (module) => pattern.test(module);
  } catch (cause) {
    throw loraError("target_modules", messageOf(cause), "a regular expression, or a list of names", subject);
  }
}

async function matrix(
  file: WeightsFile,
  name: string,
  shape: readonly [number, number],
): Promise<Float32Array> {
  const entry = file.entries.get(name);
  if (!entry || formatShape(entry.shape) !== formatShape(shape)) {
    throw loraError(
      `tensor ${name}`,
      entry ? formatShape(entry.shape) : "no such tensor",
      `${formatShape(shape)}, by the rank in adapter_config.json and the model`,
      file.path,
    );
  }
  const values = await file.readF32(name);
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at < 0) return values;
  throw loraError(`tensor ${name}, element ${at}`, String(values[at]), "a finite number", file.path);
}
