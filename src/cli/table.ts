// Plain aligned tables and bars for a terminal. Text from models and corpora is made printable first: it may hold
// anything, escape sequences included.
import { NlaError } from "../error.js";

/** A column of a table. */
export interface Column {
  readonly header: string;
  /** Defaults to "left". */
  readonly align?: "left" | "right";
  /** Cells longer than this end in an ellipsis. Defaults to no limit. */
  readonly maxWidth?: number;
}

const GAP = "  ";
const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
const FULL = "█";
const REST = "░";

const NAMED: Readonly<Record<string, string>> = { "\n": "⏎", "\r": "␍", "\t": "⇥" };

// Blocks whose characters take two cells: Hangul, CJK and their punctuation, full-width forms, emoji.
const WIDE =
  /^[\u1100-\u115F\u2E80-\u303E\u3041-\uA4CF\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE6F\uFF00-\uFF60\uFFE0-\uFFE6\u{1F300}-\u{1FAFF}\u{20000}-\u{3FFFD}]/u;

const segments = new Intl.Segmenter("en", { granularity: "grapheme" });

/** Text on one line in which every character can be seen: `⏎` for a newline, `\x1b` for an escape. */
export function printable(text: string): string {
  return text.replaceAll(
    /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u061C\u200E\u200F\u202A-\u202E\u2066-\u2069]/gu,
    (character) => {
      const code = character.codePointAt(0) ?? 0;
      return (
        NAMED[character] ??
        (code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`)
      );
    },
  );
}

/** Cells that printable text takes on a terminal. */
export function displayWidth(text: string): number {
  let width = 0;
  for (const { segment } of segments.segment(text)) width += WIDE.test(segment) ? 2 : 1;
  return width;
}

/** `text` cut to at most `width` cells, with an ellipsis where something was cut. */
export function truncate(text: string, width: number): string {
  if (displayWidth(text) <= width) return text;
  let kept = "";
  let used = 0;
  for (const { segment } of segments.segment(text)) {
    const wide = displayWidth(segment);
    if (used + wide > width - 1) break;
    kept += segment;
    used += wide;
  }
  return `${kept}…`;
}

/** Text broken at spaces into lines of at most `width` cells; a longer word stands on its own line. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`;
    if (line !== "" && displayWidth(longer) > width) {
      lines.push(line);
      line = word;
    } else line = longer;
  }
  lines.push(line);
  return lines;
}

/**
 * A bar of block characters, exact to an eighth of a cell. Values below 0 (a cosine, an FVE) are an empty bar, values above
 * 1 a full one.
 *
 * @throws NlaError `table.bar` for a value that is not a number: an empty bar would say 0
 */
export function bar(value: number, width = 10): string {
  if (Number.isNaN(value)) {
    throw new NlaError({
      code: "table.bar",
      subject: "a bar",
      found: "NaN",
      wanted: "a number, usually between 0 and 1",
      next: "Print the missing value as text.",
    });
  }
  const eighths = Math.round(Math.min(1, Math.max(0, value)) * width * 8);
  const filled = FULL.repeat(Math.floor(eighths / 8)) + (EIGHTHS[eighths % 8] ?? "");
  return filled + REST.repeat(width - filled.length);
}

/**
 * Rows as an aligned table with a header, no lines around it, no spaces at line ends.
 *
 * @throws NlaError `table.row` for a row with another number of cells than there are columns
 */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  for (const [index, row] of rows.entries()) {
    if (row.length === columns.length) continue;
    throw new NlaError({
      code: "table.row",
      subject: `row ${index} of a table`,
      found: `${row.length} cells`,
      wanted: `${columns.length}, one for each column`,
      next: "Give an empty cell for what is missing.",
    });
  }
  const cells = rows.map((row) =>
    row.map((cell, i) => truncate(printable(cell), columns[i]?.maxWidth ?? Infinity)),
  );
  const all = [columns.map(({ header }) => header), ...cells];
  const widths = columns.map((_, i) => Math.max(...all.map((row) => displayWidth(row[i] ?? ""))));
  return all
    .map((row) =>
      row
        .map((cell, i) => {
          const padding = " ".repeat((widths[i] ?? 0) - displayWidth(cell));
          return columns[i]?.align === "right" ? padding + cell : cell + padding;
        })
        .join(GAP)
        .trimEnd(),
    )
    .join("\n");
}
