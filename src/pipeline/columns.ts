// Columns of the pipeline's files. The reference's come first, in its order and with its names; what we add stands after them.
import type { ColumnToWrite } from "../data/parquet-write.js";
import { DOC_COLUMN, VECTOR_COLUMN } from "../data/parquet.js";

/** Position + 1: tokens up to and with the one whose activation it is. */
export const COUNT_COLUMN = "n_raw_tokens";
/** The document decoded up to and with the position. */
export const TEXT_COLUMN = "detokenized_text_truncated";
/** Block whose output the vectors are. */
export const LAYER_COLUMN = "activation_layer";
/** Ours, optional: the text that follows the position. */
export const AFTER_COLUMN = "text_after";
/** The label. */
export const LABEL_COLUMN = "api_explanation";
/** Verbalizer's or reconstructor's prompt. */
export const PROMPT_COLUMN = "prompt";
/** What the verbalizer shall answer. */
export const RESPONSE_COLUMN = "response";

/** Columns of activations: base, split, and labelled files begin with these. */
export function activationColumns(width: number, options: { readonly text: boolean }): ColumnToWrite[] {
  return [
    { name: COUNT_COLUMN, type: "int64" },
    ...(options.text ? [{ name: TEXT_COLUMN, type: "string" as const }] : []),
    { name: VECTOR_COLUMN, type: { vector: width } },
    { name: LAYER_COLUMN, type: "int64" },
    { name: DOC_COLUMN, type: "string" },
  ];
}
