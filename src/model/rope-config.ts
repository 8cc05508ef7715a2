// Rotary settings of a config.json: transformers 4 writes `rope_theta` and `rope_scaling`, transformers 5 both inside
// `rope_parameters`, by kind of layer where a model has two. Scalings that are not listed here are refused by name.
import type { RopeConfig, RopeScaling } from "./decoder-config.js";
import { configError, ConfigReader } from "./config-reader.js";
import type { Json } from "./config-reader.js";

/** Options of {@link ropeOf}. */
export interface RopeOptions {
  /** Base where the file names none. Defaults to 10,000. */
  readonly theta?: number;
  /** Which of transformers 5's nested settings: `rope_parameters.full_attention`. Defaults to the outer ones. */
  readonly layerType?: string;
  /** transformers 4's key of the base. Defaults to `"rope_theta"`. */
  readonly thetaKey?: string;
  /** Whether transformers 4's `rope_scaling` applies. Defaults to true. */
  readonly scaled?: boolean;
}

/**
 * The rotary settings of a model, or of one kind of its layers.
 *
 * @throws NlaError `model.config` for a kind of scaling that is not known, or a missing or unknown key of it
 */
export function ropeOf(read: ConfigReader, options: RopeOptions = {}): RopeConfig {
  const { theta = 10_000, layerType, thetaKey = "rope_theta", scaled = true } = options;
  const scaling = read.object("rope_scaling");
  const outer = read.object("rope_parameters");
  const named = read.positive(thetaKey, theta);
  const context = read.raw("max_position_embeddings");
  if (!outer) {
    const kind = scaled && scaling ? scalingOf(scaling, `${read.subject}, rope_scaling`, context) : null;
    return { theta: named, scaling: kind };
  }
  const subject = `${read.subject}, rope_parameters`;
  const reader = new ConfigReader(outer, subject);
  const inner = layerType === undefined ? outer : reader.object(layerType);
  if (!inner) throw configError(subject, String(layerType), "nothing", "its rope_theta and rope_type");
  const place = layerType === undefined ? subject : `${subject}, ${layerType}`;
  return {
    theta: new ConfigReader(inner, place).positive("rope_theta", theta),
    scaling: scalingOf(inner, place, context),
  };
}

function scalingOf(json: Json, subject: string, context: unknown): RopeScaling | null {
  const read = new ConfigReader(json, subject);
  const kind = read.raw("rope_type") ?? json.type ?? "default";
  read.raw("type");
  read.raw("rope_theta");
  read.refuse("partial_rotary_factor", 1);
  const scaling = byKind(read, kind, context);
  read.refuseRest({ all: true });
  return scaling;
}

function byKind(read: ConfigReader, kind: unknown, context: unknown): RopeScaling | null {
  switch (kind) {
    case "default":
      return null;
    case "linear":
      return { kind, factor: read.positive("factor") };
    case "llama3":
      return {
        kind,
        factor: read.positive("factor"),
        lowFrequencyFactor: read.positive("low_freq_factor"),
        highFrequencyFactor: read.positive("high_freq_factor"),
        originalLength: read.size("original_max_position_embeddings"),
      };
    case "yarn":
      return {
        kind,
        factor: read.positive("factor"),
        originalLength: read.size(
          "original_max_position_embeddings",
          typeof context === "number" ? context : undefined,
        ),
        fastTurns: read.positive("beta_fast", 32),
        slowTurns: read.positive("beta_slow", 1),
        magnitude: read.positiveOrNull("attention_factor"),
        truncate: read.flag("truncate", true),
      };
    default:
      throw configError(
        read.subject,
        "rope_type",
        JSON.stringify(kind),
        "default, linear, llama3 or yarn: no other is known",
      );
  }
}
