// How numbers and tables are written in the report.
import type { Range } from "./evaluation.js";
import { escapeHtml, MINUS } from "./svg.js";

/** A table of text; every column but the first is of numbers. */
export function tableHtml(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const head = `<tr>${cellsHtml(header, "th")}</tr>`;
  const body = rows.map((row) => `<tr>${cellsHtml(row, "td")}</tr>`).join("");
  return `<div class="wide"><table><thead>${head}</thead><tbody>${body}</tbody></table></div>`;
}

function cellsHtml(row: readonly string[], tag: "th" | "td"): string {
  return row.map((cell, i) => `<${tag}${i === 0 ? "" : ' class="n"'}>${escapeHtml(cell)}</${tag}>`).join("");
}

/** A number with a real minus. */
export function decimal(value: number, digits = 3): string {
  return value.toFixed(digits).replace(/^-/, MINUS);
}

/** A share in percent, kept on one line. */
export function percent(value: number): string {
  return `${decimal(100 * value, 1)}\u00a0%`;
}

/** An interval as numbers. */
export function rangeText([low, high]: Range): string {
  return `${decimal(low)} to ${decimal(high)}`;
}

/** A number with so many digits, a dash for none. */
export function optional(value: number | null, digits: number): string {
  return value === null ? "–" : decimal(value, digits);
}

/** A number, 0 without a sign where rounding left a trace of one. */
export function plainZero(value: number): string {
  return decimal(Math.abs(value) < 5e-4 ? 0 : value);
}
