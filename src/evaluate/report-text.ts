// How numbers and tables are written in the report.
import type { Range } from "./evaluation.js";
import { escapeHtml } from "./svg.js";

/** A table of text; every column but the first is of numbers. */
export function tableHtml(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const head = `<tr>${cellsHtml(header, "th")}</tr>`;
  const body = rows.map((row) => `<tr>${cellsHtml(row, "td")}</tr>`).join("");
  return `<div class="wide"><table><thead>${head}</thead><tbody>${body}</tbody></table></div>`;
}

function cellsHtml(row: readonly string[], tag: "th" | "td"): string {
  return row.map((cell, i) => `<${tag}${i === 0 ? "" : ' class="n"'}>${escapeHtml(cell)}</${tag}>`).join("");
}

/** A share in percent, with a real minus. */
export function percent(value: number): string {
  return `${(100 * value).toFixed(1)} %`.replace("-", "−");
}

/** An interval as numbers. */
export function rangeText([low, high]: Range): string {
  return `${low.toFixed(3)} to ${high.toFixed(3)}`;
}

/** A number with so many digits, a dash for none. */
export function optional(value: number | null, digits: number): string {
  return value === null ? "–" : value.toFixed(digits);
}

/** A number, 0 without a sign where rounding left a trace of one. */
export function plainZero(value: number): string {
  return (Math.abs(value) < 5e-4 ? 0 : value).toFixed(3);
}
