// Where a data file has its labels, and how they are unwrapped: in a column of their own, in a response, or inside the reconstructor's
// prompt. Used by training and by the tools that take labels from sets built earlier.
import { extractExplanation } from "../nla/explanation.js";
import { EXPLANATION_PLACEHOLDER, parseTemplate } from "../nla/template.js";
import { LABEL_COLUMN, PROMPT_COLUMN, RESPONSE_COLUMN } from "./columns.js";
import type { DataFile } from "./data-file.js";

/** The column of a file that its labels are in. */
export interface LabelColumn {
  readonly name: string;
  readonly wrapping: string;
  /** The label in a value; null where it is not wrapped as it should be. */
  unwrap(value: string): string | null;
}

/**
 * Where a file has its labels; null if nowhere.
 *
 * @param template the reconstructor's prompt. Defaults to that of the file's sidecar.
 * @throws NlaError `template.*`
 */
export function labelColumn({ parquet, sidecar }: DataFile, template?: string): LabelColumn | null {
  const has = (name: string): boolean =>
    parquet.columns.some((column) => column.name === name && column.type === "string");
  if (has(LABEL_COLUMN)) return { name: LABEL_COLUMN, wrapping: "nothing", unwrap: (value) => value };
  const format = sidecar.format.kind;
  if (has(RESPONSE_COLUMN)) {
    const unwrap = (value: string) => extractExplanation(value, { format });
    return { name: RESPONSE_COLUMN, wrapping: format, unwrap };
  }
  const prompt = template ?? sidecar.templates.ar;
  if (!has(PROMPT_COLUMN) || prompt === null) return null;
  const { before, after, raw } = parseTemplate(prompt, EXPLANATION_PLACEHOLDER);
  return {
    name: PROMPT_COLUMN,
    wrapping: JSON.stringify(raw.slice(0, 80)),
    unwrap: (value) =>
      value.length >= before.length + after.length && value.startsWith(before) && value.endsWith(after)
        ? value.slice(before.length, value.length - after.length)
        : null,
  };
}
