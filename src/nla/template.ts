// Prompt templates with exactly one placeholder, in the dialect of Python's `str.format`, and the two rules that tie a
// template to a tokenizer: the marker's neighbours and the reconstructor's suffix ids. Not chat rendering (text/).
//
// Stricter than `str.format` on purpose: a second placeholder, a conversion or a format width fills silently there and
// yields a prompt that no checkpoint was trained on.
import { NlaError } from "../error.js";

/** The placeholder of a verbalizer's template. */
export const INJECTION_PLACEHOLDER = "injection_char";
/** The placeholder of a reconstructor's template. */
export const EXPLANATION_PLACEHOLDER = "explanation";

// Templates are a few hundred characters; the limit stops a forged sidecar from being tokenised for minutes.
const MAX_TEMPLATE_CHARACTERS = 1_000_000;

/** A parsed template: what stands before and after the value, with `{{` and `}}` already read as braces. */
export interface PromptTemplate {
  /** The text as it stands in the sidecar. */
  readonly raw: string;
  readonly placeholder: string;
  readonly before: string;
  readonly after: string;
}

/**
 * Parses a template with one `{placeholder}`; `{{` and `}}` stand for braces.
 *
 * @throws NlaError `template.brace` for an unpaired brace, `template.placeholder` for another name, a conversion or a
 *   format, no placeholder, or more than one
 */
export function parseTemplate(raw: string, placeholder: string): PromptTemplate {
  if (raw.length > MAX_TEMPLATE_CHARACTERS) {
    throw templateError(
      "template.length",
      raw,
      `${raw.length} characters`,
      `at most ${MAX_TEMPLATE_CHARACTERS}`,
    );
  }
  const literals = [""];
  const wanted = `{${placeholder}} exactly once, and {{ or }} for braces`;
  for (let i = 0; i < raw.length; i++) {
    const character = raw[i]!;
    if (character !== "{" && character !== "}") {
      literals[literals.length - 1] += character;
    } else if (raw[i + 1] === character) {
      literals[literals.length - 1] += character;
      i++;
    } else if (character === "}") {
      throw templateError("template.brace", raw, `a single } at character ${i}`, wanted);
    } else {
      const close = raw.indexOf("}", i);
      if (close < 0)
        throw templateError("template.brace", raw, `a { at character ${i} that is never closed`, wanted);
      const name = raw.slice(i + 1, close);
      if (name !== placeholder) throw templateError("template.placeholder", raw, `{${name}}`, wanted);
      literals.push("");
      i = close;
    }
  }
  if (literals.length !== 2) {
    throw templateError("template.placeholder", raw, `{${placeholder}} ${literals.length - 1} times`, wanted);
  }
  return { raw, placeholder, before: literals[0]!, after: literals[1]! };
}

/** The template with `value` in its place; the value is taken as it is, braces included. */
export function fillTemplate({ before, after }: PromptTemplate, value: string): string {
  return before + value + after;
}

/** `text` as template text: braces doubled, so that filling gives them back. */
export function escapeTemplateText(text: string): string {
  return text.replace(/[{}]/g, "$&$&");
}

/**
 * The ids on both sides of the injection token in a rendered prompt: what a sidecar records as neighbours.
 *
 * @param promptIds ids of the canonical verbalizer prompt (chat template, generation prompt), [T]
 * @throws NlaError `template.marker` unless the token stands there exactly once and not at an edge
 */
export function injectionNeighbours(
  promptIds: readonly number[],
  tokenId: number,
): { left: number; right: number } {
  const sites = promptIds.flatMap((id, position) => (id === tokenId ? [position] : []));
  const site = sites[0];
  const left = site === undefined ? undefined : promptIds[site - 1];
  const right = site === undefined ? undefined : promptIds[site + 1];
  if (sites.length !== 1 || left === undefined || right === undefined) {
    throw new NlaError({
      code: "template.marker",
      subject: "verbalizer prompt",
      found: `injection token ${tokenId} at positions [${sites.slice(0, 8).join(", ")}] of ${promptIds.length}`,
      wanted: "exactly one, with a token on each side",
      next: "Put {injection_char} once between two characters that do not merge with it, e.g. <vector>{injection_char}</vector>.",
    });
  }
  return { left, right };
}

/**
 * The ids with which every reconstructor prompt ends: those of the raw template text after the placeholder, without the
 * first, which may merge with the explanation's last character. The raw text, braces not unescaped: this is how the
 * released sidecars were made, and {@link assertPromptEndsWith} catches a template where it matters.
 *
 * @param encode tokenises without special tokens
 * @param options.allowNone give [] for a template that ends with the placeholder, whose vector is then read at the
 *   explanation's own last token. Defaults to false: the reference needs a suffix.
 * @throws NlaError `template.suffix` if fewer than two ids follow the placeholder
 */
export function criticSuffixIds(
  template: PromptTemplate,
  encode: (text: string) => readonly number[],
  { allowNone = false }: { allowNone?: boolean } = {},
): number[] {
  const mark = `{${template.placeholder}}`;
  const suffix = template.raw.slice(template.raw.lastIndexOf(mark) + mark.length);
  if (allowNone && suffix === "") return [];
  const ids = encode(suffix);
  if (ids.length < 2) {
    throw new NlaError({
      code: "template.suffix",
      subject: "reconstructor template",
      found: `${ids.length} tokens after the placeholder (${JSON.stringify(suffix)})`,
      wanted: "at least 2: the first may merge with the explanation and is not checked",
      next: "Lengthen the text after {explanation}, e.g. with a closing tag.",
    });
  }
  return ids.slice(1);
}

/**
 * Checks that a reconstructor prompt ends as its sidecar says. The last position is where the vector is read, so a
 * merged last token would be read from a state the reconstructor never saw.
 *
 * @throws NlaError `template.suffix-merged`
 */
export function assertPromptEndsWith(promptIds: readonly number[], suffixIds: readonly number[]): void {
  if (promptEndsWith(promptIds, suffixIds)) return;
  const end = promptIds.slice(Math.max(0, promptIds.length - suffixIds.length));
  throw new NlaError({
    code: "template.suffix-merged",
    subject: "reconstructor prompt",
    found: `${promptIds.length} tokens ending in [${end.join(", ")}]`,
    wanted: `[${suffixIds.join(", ")}] at the end`,
    next: "The explanation's end merged with the template's suffix, or the tokenizer is not the sidecar's: use a suffix that starts with a tag.",
  });
}

/** Whether a prompt's last ids are the suffix. */
export function promptEndsWith(promptIds: readonly number[], suffixIds: readonly number[]): boolean {
  const start = promptIds.length - suffixIds.length;
  return start >= 0 && suffixIds.every((id, i) => id === promptIds[start + i]);
}

function templateError(code: string, raw: string, found: string, wanted: string): NlaError {
  const shown = raw.length > 80 ? `${raw.slice(0, 80)}...` : raw;
  return new NlaError({
    code,
    subject: `template ${JSON.stringify(shown)}`,
    found,
    wanted,
    next: "Correct the template in the sidecar or the config.",
  });
}
