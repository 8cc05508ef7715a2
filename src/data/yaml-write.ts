// Writes YAML with the very bytes of PyYAML's safe_dump(sort_keys=False): block style, 80 columns, ASCII only.
//
// The layout rules were learnt from that emitter's behaviour and are checked against files that it wrote. Equal bytes
// matter: a sidecar that passes through this program and the reference's then shows no differences in version control.
import {
  YamlFloat,
  type YamlMap,
  type YamlScalar,
  type YamlValue,
  floatText,
  tagOf,
} from "./yaml-scalars.js";

const WIDTH = 80; // a line is folded at the first blank after this column

/** The text of a mapping, ending with a newline. */
export function writeYaml(value: YamlMap): string {
  return value.size === 0 ? "{}\n" : mapping(value, 0).join("");
}

// Every piece ends with a newline; `indent` is the column of the keys.
function mapping(map: YamlMap, indent: number): string[] {
  return [...map].map(([key, value]) => {
    const name = keyText(key);
    return `${" ".repeat(indent)}${name}:${entry(value, indent, indent + name.length + 1, "key")}`;
  });
}

/** What follows a `key:` or a `-` that ends at `column`, its newline included. */
function entry(value: YamlValue, indent: number, column: number, after: "key" | "dash"): string {
  if (Array.isArray(value)) return list(value as readonly YamlValue[], indent, after);
  if (value instanceof Map) {
    if (value.size === 0) return " {}\n";
    const lines = mapping(value as YamlMap, indent + 2).join("");
    return after === "key" ? `\n${lines}` : ` ${lines.slice(indent + 2)}`; // a dash and its first key share a line
  }
  return ` ${scalar(value as YamlScalar | YamlFloat, { column: column + 1, indent: indent + 2 })}\n`;
}

function list(items: readonly YamlValue[], indent: number, after: "key" | "dash"): string {
  if (items.length === 0) return " []\n";
  // Under a key the dashes stand at the key's own column; in another list one level deeper.
  const own = after === "key" ? indent : indent + 2;
  const lines = items.map((item) => `${" ".repeat(own)}-${entry(item, own, own + 1, "dash")}`).join("");
  return after === "key" ? `\n${lines}` : ` ${lines.slice(own)}`;
}

interface Place {
  readonly column: number; // where the scalar begins
  readonly indent: number; // where its further lines begin
}

function keyText(key: YamlScalar): string {
  return scalar(key, null);
}

/** A scalar's text. Without a place (a key) it is never folded. */
function scalar(value: YamlScalar | YamlFloat, place: Place | null): string {
  if (value === null) return "null";
  if (value instanceof YamlFloat) return floatText(value.value);
  if (typeof value === "boolean" || typeof value === "bigint") return String(value);
  if (typeof value === "number") return Number.isInteger(value) ? BigInt(value).toString() : floatText(value);
  const style = styleOf(value, place === null);
  if (style === "plain") return plain(value, place);
  return style === "single" ? singleQuoted(value, place) : doubleQuoted(value, place);
}

/** Plain where that reads back as the same text, else single quotes, else double quotes (which alone have escapes). */
function styleOf(text: string, isKey: boolean): "plain" | "single" | "double" {
  if (text === "") return "single";
  const edge = /^[ \n]|[ \n]$/.test(text);
  const escapes = /[^\n\u0020-\u007e]/u.test(text);
  const blankBeforeBreak = / \n/.test(text);
  const breakBeforeBlank = /\n /.test(text);
  const lines = text.includes("\n");
  if (!edge && !escapes && !lines && !hasIndicator(text) && tagOf(text) === "str") return "plain";
  return escapes || blankBeforeBreak || breakBeforeBlank || (isKey && lines) ? "double" : "single";
}

/** True if unquoted text in a block would be taken for something else: a comment, a key, a list item, a quote. */
function hasIndicator(text: string): boolean {
  if (/^(?:---|\.\.\.)/.test(text) || /^[#,[\]{}&*!|>'"%@`]/.test(text)) return true;
  return /^[-?:](?:[ \n]|$)/.test(text) || /:(?:[ \n]|$)/.test(text) || /[ \n]#/.test(text);
}

function plain(text: string, place: Place | null): string {
  let column = place?.column ?? 0;
  let out = "";
  for (const [run] of text.matchAll(/ +|[^ ]+/g)) {
    if (run === " " && place !== null && column > WIDTH) {
      out += `\n${" ".repeat(place.indent)}`;
      column = place.indent;
    } else {
      out += run;
      column += run.length;
    }
  }
  return out;
}

function singleQuoted(text: string, place: Place | null): string {
  let column = (place?.column ?? 0) + 1;
  let out = "'";
  for (const match of text.matchAll(/ +|\n+|[^ \n]+/g)) {
    const [run] = match;
    const inside = match.index > 0 && match.index + run.length < text.length;
    if (run.startsWith("\n") && place !== null) {
      out += `\n${run}${" ".repeat(place.indent)}`; // a single newline in quotes reads as a blank, so one more
      column = place.indent;
    } else if (run === " " && inside && place !== null && column > WIDTH) {
      out += `\n${" ".repeat(place.indent)}`;
      column = place.indent;
    } else {
      const doubled = run.replaceAll("'", "''");
      out += doubled;
      column += doubled.length;
    }
  }
  return `${out}'`;
}

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ["\0", "0"],
  ["\u0007", "a"],
  ["\b", "b"],
  ["\t", "t"],
  ["\n", "n"],
  ["\v", "v"],
  ["\f", "f"],
  ["\r", "r"],
  ["\u001b", "e"],
  ['"', '"'],
  ["\\", "\\"],
  ["\u0085", "N"],
  ["\u00a0", "_"],
  ["\u2028", "L"],
  ["\u2029", "P"],
]);

function escaped(c: string): string {
  const short = ESCAPES.get(c);
  if (short !== undefined) return `\\${short}`;
  if (c >= " " && c <= "~") return c;
  const code = c.codePointAt(0) as number;
  const hex = code.toString(16).toUpperCase();
  if (code <= 0xff) return `\\x${hex.padStart(2, "0")}`;
  return code <= 0xffff ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}

function doubleQuoted(text: string, place: Place | null): string {
  const characters = Array.from(text);
  let column = (place?.column ?? 0) + 1;
  let out = '"';
  let afterEscape = false;
  for (const [i, c] of characters.entries()) {
    const piece = escaped(c);
    // A line may end before a blank, or on either side of an escape; a blank that begins a line needs a backslash.
    const foldable = place !== null && i > 0 && i < characters.length - 1;
    if (foldable && piece === c && (c === " " || afterEscape) && column > WIDTH) {
      const start = c === " " ? "\\" : "";
      out += `\\\n${" ".repeat(place.indent)}${start}`;
      column = place.indent + start.length;
    }
    out += piece;
    column += piece.length;
    afterEscape = piece !== c;
    if (foldable && afterEscape && column > WIDTH + 1) {
      const start = characters[i + 1] === " " ? "\\" : "";
      out += `\\\n${" ".repeat(place.indent)}${start}`;
      column = place.indent + start.length;
    }
  }
  return `${out}"`;
}
