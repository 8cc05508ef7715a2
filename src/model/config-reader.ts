// Typed reading of a config.json: every key is asked for by name, and what nobody asked for is refused where it looks as if
// it changed the mathematics. It knows no family; families.ts says which keys there are.
import { NlaError } from "../error.js";

/** A parsed JSON object. */
export type Json = Readonly<Record<string, unknown>>;

// Keys with these words in them have, in one architecture or another, changed what a model computes.
const MATHS =
  /attn|attention|rope|rotary|head|norm|scal|multiplier|softcap|clip|window|mlp|ffn|expert|moe|bias|layer|act|embed|logit|residual|quant|position|alibi|parallel|mamba|conv|sparse/;

// These hold such words too, and change nothing here: training only, or how another program computes the same.
const HARMLESS =
  /dropout|_pdrop$|implementation|^initializer|^architectures$|^cache_|^max_window_layers$|^transformers|^_name|^auto_map$|^output_/;

/** The error of one key of a config.json. */
export function configError(subject: string, key: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code: "model.config",
    subject: `${subject}, ${key}`,
    found,
    wanted,
    next: "The file must be the one that belongs to the weights.",
  });
}

/** Reads typed values of one JSON object, and names the key where one is missing or wrong. */
export class ConfigReader {
  readonly json: Json;
  readonly subject: string;
  readonly #asked = new Set<string>();

  constructor(json: Json, subject: string) {
    this.json = json;
    this.subject = subject;
  }

  /** The value as it is; undefined where the key is absent. */
  raw(key: string): unknown {
    this.#asked.add(key);
    return this.json[key];
  }

  /** A finite number; `fallback` where the key is absent or null. */
  number(key: string, fallback?: number): number {
    const value = this.raw(key) ?? fallback;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    throw configError(this.subject, key, JSON.stringify(value) ?? "nothing", "a number");
  }

  /** A number above 0. */
  positive(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    if (value > 0) return value;
    throw configError(this.subject, key, String(value), "a number above 0");
  }

  /** A number above 0; null where the key is absent or null. */
  positiveOrNull(key: string): number | null {
    return (this.raw(key) ?? null) === null ? null : this.positive(key);
  }

  // Larger extents than this do not occur, and would overflow the sizes computed from them.
  size(key: string, fallback?: number): number {
    const value = this.number(key, fallback);
    if (Number.isInteger(value) && value > 0 && value <= 16_777_216) return value;
    throw configError(this.subject, key, String(value), "an integer from 1 to 16,777,216");
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.raw(key) ?? fallback;
    if (typeof value === "boolean") return value;
    throw configError(this.subject, key, JSON.stringify(value) ?? "nothing", "true or false");
  }

  /** An object, or null where the key is absent or null. */
  object(key: string): Json | null {
    const value = this.raw(key) ?? null;
    if (value === null) return null;
    if (typeof value === "object" && !Array.isArray(value)) return value as Json;
    throw configError(this.subject, key, JSON.stringify(value), "a JSON object");
  }

  /** Refuses a value that the family's code would have to honour and does not; absent and null are allowed. */
  refuse(key: string, ...allowed: readonly unknown[]): void {
    const value = this.raw(key);
    if (value === undefined || value === null || allowed.includes(value)) return;
    const wanted =
      allowed.length === 0 ? "no such key" : allowed.map((each) => JSON.stringify(each)).join(" or ");
    throw configError(this.subject, key, shortened(value), `${wanted}: no other is known`);
  }

  /**
   * Refuses keys that nobody asked for and whose name says that they change the mathematics, unless they are off (null,
   * false, an empty object or list).
   *
   * @param all refuses every key that nobody asked for, whatever its name
   */
  refuseRest({ all = false }: { all?: boolean } = {}): void {
    for (const [key, value] of Object.entries(this.json)) {
      if (this.#asked.has(key) || HARMLESS.test(key) || isOff(value)) continue;
      if (!all && !MATHS.test(key)) continue;
      throw configError(
        this.subject,
        key,
        shortened(value),
        "no such key, or null: nlakit does not know what it does to this family",
      );
    }
  }
}

function shortened(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}

function isOff(value: unknown): boolean {
  if (value === null || value === false) return true;
  return typeof value === "object" && Object.keys(value as object).length === 0;
}
