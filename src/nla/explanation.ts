// The explanation inside a verbalizer's response: wrapping for training, extraction after generation. Not its reward
// (train/reward.ts) and not its placing in the reconstructor's prompt (nla/template.ts).
//
// The reconstructor sees the stripped text (`tags`) or the very text (`plain`, where the last character may be the blank
// that it must read). An empty explanation is a success: it is scored like any other.
import { between } from "./python-text.js";

/**
 * How an explanation stands in a response. `tags`: between `<explanation>` and `</explanation>` (the released format).
 * `plain`: the whole response up to the end token, for models whose vocabulary or context is too small for tags.
 */
export type ExplanationFormat = "tags" | "plain";

const OPEN = "<explanation>";
const CLOSE = "</explanation>";

/** The response that teaches `text` to a verbalizer; {@link extractExplanation} gives it back (`tags`: stripped). */
export function wrapExplanation(
  text: string,
  { format = "tags" }: { format?: ExplanationFormat } = {},
): string {
  return format === "plain" ? text : `${OPEN}\n${text}\n${CLOSE}`;
}

/**
 * The explanation in a response, or null where there is none (`tags` without a closed pair). `tags` strips it as Python
 * does, and of several pairs the first counts; `plain` takes every character.
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
  return end < 0 ? response : response.slice(0, end);
}

/**
 * What to show a reader: the explanation, or the raw response, unstripped, where it has no closed pair of tags (as the
 * reference's inference client does). Never feed this to a reward: there a missing pair is a failure.
 */
export function explanationToShow(
  response: string,
  options: { format?: ExplanationFormat; endText?: string | null } = {},
): string {
  return extractExplanation(response, options) ?? response;
}
