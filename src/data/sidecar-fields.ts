// Typed access to the mappings of a sidecar: every field is checked, and what nobody asked for is kept and reported.
//
// Here also what datasets and models share: tokens, templates, scales, and this package's own two keys. The reference
// names the verbalizer `actor` or `av` and the reconstructor `critic` or `ar`; in code they are av and ar.
import { NlaError } from "../error.js";
import { YamlFloat, type YamlMap, type YamlScalar, type YamlValue } from "./yaml-scalars.js";

/** A key that this program does not know, as read; written back at the end of its mapping. */
export interface UnknownKey {
  /** Names from the top, e.g. ["extraction", "whitening"]. */
  readonly path: readonly string[];
  readonly value: YamlValue;
}

/** The marker that is replaced by an activation, and what stands around it, as ids of the tokenizer. */
export interface SidecarTokens {
  readonly injectionChar: string;
  readonly injectionTokenId: number;
  readonly leftNeighborId: number;
  readonly rightNeighborId: number;
  /** Ids that every reconstructor prompt ends with. */
  readonly criticSuffixIds: readonly number[] | null;
}

/** The prompts, with `{injection_char}` and `{explanation}` in them; null where the file has none. */
export interface PromptTemplates {
  readonly av: string | null;
  readonly ar: string | null;
}

/** Length that a vector is scaled to; "raw" leaves its own; null: the file does not say, the caller must. */
export type InjectionScale = number | "raw" | null;

/** How the vector enters the prompt: an embedding is replaced, or it is added after a block (see nla/injection.ts). */
export interface Injection {
  readonly kind: "replace" | "add-normed";
}

/** How an explanation is marked off: by tags, or plain and ended by the token `end` (null: the tokenizer's EOS). */
export interface ExplanationFormat {
  readonly kind: "tags" | "plain";
  readonly end: number | null;
}

/** What a file without the two extension keys means. */
export const DEFAULT_INJECTION: Injection = { kind: "replace" };
/** What a file without the two extension keys means. */
export const DEFAULT_FORMAT: ExplanationFormat = { kind: "tags", end: null };

/** Error about one field of a sidecar. */
export function fieldError(subject: string, what: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code: `sidecar.${what}`,
    subject,
    found,
    wanted,
    next: "Correct the sidecar, or write it again with the stage that made it.",
  });
}

function shown(value: YamlValue | undefined): string {
  if (value === undefined) return "nothing";
  if (value instanceof YamlFloat) return String(value.value);
  if (value instanceof Map) return `a mapping of ${[...(value as YamlMap).keys()].join(", ")}`;
  return (JSON.stringify(value, (_, v: unknown) => (typeof v === "bigint" ? String(v) : v)) ?? "").slice(
    0,
    80,
  );
}

/** One mapping of a sidecar. Fields that were read are remembered, so that {@link Fields.unknown} can tell the others. */
export class Fields {
  private readonly read = new Set<YamlScalar>();
  private readonly parts: Fields[] = [];

  constructor(
    private readonly map: YamlMap,
    readonly file: string,
    private readonly path: readonly string[] = [],
  ) {}

  /** `file: a.b` */
  subject(key: string): string {
    return `${this.file}: ${[...this.path, key].join(".")}`;
  }

  has(key: string): boolean {
    return this.map.has(key);
  }

  raw(key: string): YamlValue | undefined {
    this.read.add(key);
    return this.map.get(key);
  }

  private fail(key: string, wanted: string): NlaError {
    return fieldError(this.subject(key), "field", shown(this.map.get(key)), wanted);
  }

  string(key: string): string {
    const value = this.raw(key);
    if (typeof value === "string") return value;
    throw this.fail(key, "text");
  }

  stringOrNull(key: string): string | null {
    return this.isNull(key) ? null : this.string(key);
  }

  /** A whole number >= `least`. */
  count(key: string, least: number): number {
    const value = this.raw(key);
    if (typeof value === "number" && value >= least) return value;
    throw this.fail(key, `a whole number >= ${least}`);
  }

  countOrNull(key: string, least: number): number | null {
    return this.isNull(key) ? null : this.count(key, least);
  }

  /** A whole number of any sign, or null where absent or null. */
  integerOrNull(key: string): number | null {
    return this.isNull(key) ? null : this.count(key, -Number.MAX_SAFE_INTEGER);
  }

  /** A number, whole or not, or null where absent or null. */
  numberOrNull(key: string): number | null {
    if (this.isNull(key)) return null;
    const value = this.raw(key);
    if (typeof value === "number") return value;
    if (value instanceof YamlFloat) return value.value;
    throw this.fail(key, "a number");
  }

  boolean(key: string, absent: boolean): boolean {
    const value = this.raw(key);
    if (value === undefined) return absent;
    if (typeof value === "boolean") return value;
    throw this.fail(key, "true or false");
  }

  /** A list of texts; absent or null is an empty one. */
  strings(key: string): readonly string[] {
    if (this.isNull(key)) return [];
    const value = this.raw(key);
    if (isListOf(value, (item) => typeof item === "string")) return value as readonly string[];
    throw this.fail(key, "a list of texts");
  }

  countsOrNull(key: string): readonly number[] | null {
    if (this.isNull(key)) return null;
    const value = this.raw(key);
    if (isListOf(value, (item) => typeof item === "number" && item >= 0)) return value as readonly number[];
    throw this.fail(key, "a list of whole numbers >= 0");
  }

  mapOrNull(key: string): YamlMap | null {
    if (this.isNull(key)) return null;
    const value = this.raw(key);
    if (value instanceof Map) return value as YamlMap;
    throw this.fail(key, "a mapping");
  }

  /** A mapping as fields, whose unknown keys count as this one's. */
  part(key: string): Fields {
    const part = this.partOrNull(key);
    if (part !== null) return part;
    throw this.fail(key, "a mapping");
  }

  partOrNull(key: string): Fields | null {
    const map = this.mapOrNull(key);
    if (map === null) return null;
    const part = new Fields(map, this.file, [...this.path, key]);
    this.parts.push(part);
    return part;
  }

  private isNull(key: string): boolean {
    return (this.raw(key) ?? null) === null;
  }

  /** Keys that nobody has read, here and below. */
  unknown(): readonly UnknownKey[] {
    const own = [...this.map].filter(([key]) => !this.read.has(key));
    return [
      ...own.map(([key, value]) => ({ path: [...this.path, String(key)], value })),
      ...this.parts.flatMap((part) => part.unknown()),
    ];
  }
}

function isListOf(value: YamlValue | undefined, is: (item: YamlValue) => boolean): boolean {
  return Array.isArray(value) && (value as readonly YamlValue[]).every(is);
}

/** @throws NlaError `sidecar.field`. */
export function readTokens(tokens: Fields): SidecarTokens {
  const injectionChar = tokens.string("injection_char");
  if (injectionChar === "") {
    throw fieldError(tokens.subject("injection_char"), "field", "an empty text", "the marker character");
  }
  return {
    injectionChar,
    injectionTokenId: tokens.count("injection_token_id", 0),
    leftNeighborId: tokens.count("injection_left_neighbor_id", 0),
    rightNeighborId: tokens.count("injection_right_neighbor_id", 0),
    criticSuffixIds: tokens.countsOrNull("critic_suffix_ids"),
  };
}

/** Tokens as they are written, keys in the reference's order. */
export function tokensMap(tokens: SidecarTokens): YamlMap {
  return new Map<YamlScalar, YamlValue>([
    ["injection_char", tokens.injectionChar],
    ["injection_token_id", tokens.injectionTokenId],
    ["injection_left_neighbor_id", tokens.leftNeighborId],
    ["injection_right_neighbor_id", tokens.rightNeighborId],
    ["critic_suffix_ids", tokens.criticSuffixIds],
  ]);
}

/** Templates under either name; the released name wins if it holds text, as in the reference. */
export function readTemplates(templates: Fields | null): PromptTemplates {
  if (templates === null) return { av: null, ar: null };
  const [av, actor] = [templates.stringOrNull("av"), templates.stringOrNull("actor")];
  const [ar, critic] = [templates.stringOrNull("ar"), templates.stringOrNull("critic")];
  return { av: av || actor, ar: ar || critic };
}

/**
 * A scale as the reference spells it: null, "raw", "none", "sqrt_d_model", a number, or a number as text.
 * Returns undefined where the key is absent. @throws NlaError `sidecar.scale`, also for zero, negative and non-finite.
 */
export function readScale(
  extraction: Fields | null,
  key: string,
  dModel: number,
): InjectionScale | undefined {
  if (extraction === null || !extraction.has(key)) return undefined;
  const value = extraction.raw(key) ?? null;
  if (value === null) return null;
  if (value === "raw" || value === "none") return "raw";
  if (value === "sqrt_d_model") return Math.sqrt(dModel);
  const number = scaleNumber(value);
  if (number !== null && Number.isFinite(number) && number > 0) return number;
  const wanted = 'null, "raw", "sqrt_d_model" or a finite number above 0';
  throw fieldError(extraction.subject(key), "scale", shown(value), wanted);
}

function scaleNumber(value: YamlValue): number | null {
  if (typeof value === "number" || typeof value === "boolean") return Number(value); // `yes` is 1.0 to the reference
  if (value instanceof YamlFloat) return value.value;
  const text = typeof value === "string" ? value.trim() : "";
  return /^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$/.test(text) ? Number(text) : null;
}

/** Absent means sqrt(d); null and "raw" mean that vectors are compared at their own length. */
export function mseOf(scale: InjectionScale | undefined, dModel: number): number | null {
  if (scale === undefined) return Math.sqrt(dModel);
  return scale === "raw" ? null : scale;
}

/** A resolved scale as it is written: a float, "raw", or null. */
export function scaleValue(scale: InjectionScale): YamlValue {
  return typeof scale === "number" ? new YamlFloat(scale) : scale;
}

/** The two extension keys; `stated` is false where both are absent and defaults stand in. @throws NlaError `sidecar.field`. */
export function readExtensions(top: Fields): {
  injection: Injection;
  format: ExplanationFormat;
  stated: boolean;
} {
  const injection = top.partOrNull("injection");
  const format = top.partOrNull("format");
  const kind = injection?.string("kind") ?? DEFAULT_INJECTION.kind;
  if (kind !== "replace" && kind !== "embedding" && kind !== "add-normed") {
    const wanted = '"replace" (or "embedding", another name for it) or "add-normed"';
    throw fieldError(top.subject("injection.kind"), "injection", `"${kind}"`, wanted);
  }
  const formatKind = format?.string("kind") ?? DEFAULT_FORMAT.kind;
  if (formatKind !== "tags" && formatKind !== "plain") {
    throw fieldError(top.subject("format.kind"), "format", `"${formatKind}"`, '"tags" or "plain"');
  }
  const end = format?.countOrNull("end", 0) ?? null;
  return {
    injection: { kind: kind === "add-normed" ? kind : "replace" },
    format: { kind: formatKind, end },
    stated: injection !== null || format !== null,
  };
}

/** Adds the two extension keys to a mapping. */
export function addExtensions(
  to: Map<YamlScalar, YamlValue>,
  { injection, format }: { injection: Injection; format: ExplanationFormat },
): void {
  to.set("injection", new Map([["kind", injection.kind]]));
  to.set(
    "format",
    new Map<YamlScalar, YamlValue>([
      ["kind", format.kind],
      ["end", format.end],
    ]),
  );
}

/** `map` with the unknown keys put back, each at the end of the mapping that it was in. */
export function withUnknown(map: YamlMap, unknown: readonly UnknownKey[]): YamlMap {
  const out = new Map(map);
  for (const { path, value } of unknown) {
    const [first, ...rest] = path as [string, ...string[]];
    if (rest.length === 0) out.set(first, value);
    else {
      const below = out.get(first);
      out.set(
        first,
        withUnknown(below instanceof Map ? (below as YamlMap) : new Map(), [{ path: rest, value }]),
      );
    }
  }
  return out;
}
