// What an unquoted YAML scalar means to PyYAML, which reads YAML 1.1: `0226` is 150, `2:30` is 150, `yes` is true, `8e4` is text.
//
// Shared by reading (yaml-read.ts) and writing (yaml-write.ts has to quote text that would be read as something else).

/** A float that is kept apart from an integer, so that `1.0` is written as `1.0` again. */
export class YamlFloat {
  constructor(readonly value: number) {}
}

/** A YAML value. Mappings keep their order; a number is an integer where it is whole, as in Python. */
export type YamlValue =
  null | boolean | number | bigint | string | YamlFloat | readonly YamlValue[] | YamlMap;
/** A YAML mapping, in the order of the file. */
export type YamlMap = ReadonlyMap<YamlScalar, YamlValue>;
/** What can be a key. */
export type YamlScalar = null | boolean | number | bigint | string;

const BOOL = /^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$/;
const NULL = /^(?:~|null|Null|NULL|)$/;
const INT =
  /^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$/;
const FLOAT =
  /^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/;
const TIMESTAMP =
  /^(?:\d{4}-\d\d-\d\d|\d{4}-\d\d?-\d\d?(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d(?:\.\d*)?(?:[ \t]*(?:Z|[-+]\d\d?(?::\d\d)?))?)$/;

/** The tag that an unquoted scalar resolves to. */
export type ScalarTag = "null" | "bool" | "int" | "float" | "timestamp" | "merge" | "value" | "str";

/** What PyYAML takes the unquoted `text` for. */
export function tagOf(text: string): ScalarTag {
  if (NULL.test(text)) return "null";
  if (BOOL.test(text)) return "bool";
  if (INT.test(text)) return "int";
  if (FLOAT.test(text)) return "float";
  if (TIMESTAMP.test(text)) return "timestamp";
  if (text === "<<") return "merge";
  return text === "=" ? "value" : "str";
}

/**
 * The value of an unquoted scalar. A timestamp stays text: no field that is read here is a date but `created_at`,
 * which is only passed on. Returns undefined where the text is no value of the tag (only possible for explicit tags).
 */
export function scalarValue(text: string, tag: ScalarTag): YamlScalar | YamlFloat | undefined {
  if (tag === "null") return NULL.test(text) ? null : undefined;
  if (tag === "bool") return BOOL.test(text) ? /^(?:yes|true|on)$/i.test(text) : undefined;
  if (tag === "int") return INT.test(text) ? intValue(text) : undefined;
  if (tag === "float")
    return FLOAT.test(text) || INT.test(text) ? new YamlFloat(floatValue(text)) : undefined;
  return text;
}

function intValue(text: string): number | bigint {
  const plain = text.replaceAll("_", "").toLowerCase();
  const negative = plain.startsWith("-");
  const digits = plain.replace(/^[-+]/, "");
  const value = digits.includes(":") ? sexagesimal(digits) : BigInt(prefixed(digits));
  const signed = negative ? -value : value;
  const number = Number(signed);
  return Number.isSafeInteger(number) ? number : signed;
}

/** `0226` and `0b1` and `0x9` as JavaScript spells them. A lone `0`, or a prefix with only underscores, is zero. */
function prefixed(digits: string): string {
  if (/^0[bx]/.test(digits)) return digits.length > 2 ? digits : "0";
  return digits.startsWith("0") ? `0o${digits.slice(1) || "0"}` : digits;
}

function sexagesimal(digits: string): bigint {
  return digits.split(":").reduce((sum, part) => sum * 60n + BigInt(part), 0n);
}

function floatValue(text: string): number {
  const plain = text.replaceAll("_", "").toLowerCase();
  const sign = plain.startsWith("-") ? -1 : 1;
  const digits = plain.replace(/^[-+]/, "");
  if (digits === ".inf") return sign * Infinity;
  if (digits === ".nan") return NaN;
  const parts = digits.split(":").map(Number);
  return sign * parts.reduce((sum, part) => sum * 60 + part, 0);
}

/** A float as PyYAML writes it: Python's shortest repr, always with a point. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return ".nan";
  if (!Number.isFinite(value)) return value > 0 ? ".inf" : "-.inf";
  const [mantissa = "", exponentText = "0"] = Math.abs(value).toExponential().split("e");
  const exponent = Number(exponentText);
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  const digits = mantissa.replace(".", "");
  if (exponent >= -4 && exponent < 16) {
    if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
    const whole = digits.slice(0, exponent + 1).padEnd(exponent + 1, "0");
    return `${sign}${whole}.${digits.slice(exponent + 1) || "0"}`;
  }
  const point = digits.length > 1 ? mantissa : `${mantissa}.0`;
  return `${sign}${point}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
}
