// The explanation inside a verbalizer's response: wrapping for training, extraction after generation. Not its reward
// (train/reward.ts) and not its placing in the reconstructor's prompt (nla/template.ts).
//
// The reconstructor always sees the stripped text. An empty explanation is a success: it is scored like any other.
import { between, stripPython } from "./python-text.js";

/**
 * How an explanation stands in a response. `tags`: between `<explanation>` and `</explanation>` (the released format).
 * `plain`: the whole response up to the end token, for models whose vocabulary or context is too small for tags.
 */
export type ExplanationFormat = "tags" | "plain";

const OPEN = "<explanation>";
const CLOSE = "</explanation>";

/** The response that teaches `text` to a verbalizer: the inverse of {@link extractExplanation} up to outer blanks. */
export function wrapExplanation(text: string, { format = "tags" }: { format?: ExplanationFormat } = {}): string {
  return format === "plain" ? text : `${OPEN}\n${text}\n${CLOSE}`;
}

/**
 * The explanation in a response, stripped, or null where there is none (`tags` without a closed pair). Of several pairs
 * the first counts.
 *
 * @param options.format Defaults to `tags`.
 * @param options.endText text of the end token if the response was decoded with special tokens; `plain` stops before its
 *   first occurrence. Defaults to null: the response has none.
 */
export function extractExplanation(
  response: string,
  { format = "tags", endText = null }: { format?: ExplanationFormat; endText?: string | null } = {},
): string | null {
  if (format === "tags") return between(response, OPEN, CLOSE);
  const end = endText ? response.indexOf(endText) : -1;
  return stripPython(end < 0 ? response : response.slice(0, end));
}

/**
 * What to show a reader: the explanation, or the raw response, unstripped, where it has no closed pair of tags (as the
 * reference's inference client does). Never feed this to a reward: there a missing pair is a failure.
 */
export function explanationToShow(response: string, options: { format?: ExplanationFormat; endText?: string | null } = {}): string {
  return extractExplanation(response, options) ?? response;
}
