// What a verbalizer and a reconstructor agreed on: the layer, the marker and its neighbours, both prompts, the scales, how an
// explanation is marked off. It comes from a sidecar or is made for a new pair, and is always asserted against the live
// tokenizer: a contract that does not hold gives explanations of the wrong thing, not an error, so it is checked at load.
import { NlaError } from "../error.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { ExplanationFormat } from "./explanation.js";
import { findInjectionSites } from "./injection.js";
import type { InjectionKind, InjectionMarker } from "./injection.js";
import {
  assertPromptEndsWith,
  criticSuffixIds,
  EXPLANATION_PLACEHOLDER,
  fillTemplate,
  INJECTION_PLACEHOLDER,
  injectionNeighbours,
  parseTemplate,
} from "./template.js";
import type { PromptTemplate } from "./template.js";

/** The agreement between a verbalizer, a reconstructor and the activations they are for. */
export interface Contract {
  /** Block K whose output the activations are. */
  readonly layer: number;
  /** Width of an activation. */
  readonly dim: number;
  /** The character that marks where the activation enters, and the ids around it. */
  readonly marker: InjectionMarker & { readonly char: string };
  readonly templates: { readonly verbalizer: PromptTemplate; readonly reconstructor: PromptTemplate };
  readonly injection: { readonly kind: InjectionKind; readonly scale: number | null };
  /** Length to which both vectors are brought in the loss; null: their own. */
  readonly mseScale: number | null;
  readonly format: ExplanationFormat;
  /** Ids that every reconstructor prompt ends with. */
  readonly suffixIds: readonly number[];
}

/** Everything of a contract but what the tokenizer decides. */
export interface ContractDraft {
  readonly layer: number;
  readonly dim: number;
  readonly char: string;
  readonly verbalizerTemplate: string;
  readonly reconstructorTemplate: string;
  readonly injectionScale: number | null;
  /** Defaults to sqrt(dim). */
  readonly mseScale?: number | null;
  readonly format: ExplanationFormat;
}

/**
 * Makes the contract of a new pair: finds the marker's id and neighbours and the reconstructor's suffix.
 *
 * @param tokenizer the verbalizer's, in which the marker is one token
 * @throws NlaError `contract.marker` where it is not, and those of the templates
 */
export function makeContract(draft: ContractDraft, tokenizer: Tokenizer): Contract {
  const verbalizer = parseTemplate(draft.verbalizerTemplate, INJECTION_PLACEHOLDER);
  const reconstructor = parseTemplate(draft.reconstructorTemplate, EXPLANATION_PLACEHOLDER);
  const tokenId = markerId(draft.char, tokenizer);
  const ids = promptIds(verbalizer, draft.char, tokenizer);
  return {
    layer: draft.layer,
    dim: draft.dim,
    marker: { char: draft.char, tokenId, ...injectionNeighbours(ids, tokenId) },
    templates: { verbalizer, reconstructor },
    injection: { kind: "replace", scale: draft.injectionScale },
    mseScale: draft.mseScale === undefined ? Math.sqrt(draft.dim) : draft.mseScale,
    format: draft.format,
    suffixIds: suffixIdsOf(reconstructor, draft.format, tokenizer),
  };
}

/**
 * The ids with which every reconstructor prompt ends. A plain prompt may end with the explanation itself: then there is
 * nothing to check, and the state of its last word to read.
 *
 * @throws NlaError `template.suffix`
 */
export function suffixIdsOf(
  template: PromptTemplate,
  format: ExplanationFormat,
  tokenizer: Tokenizer,
): number[] {
  return criticSuffixIds(template, (text) => tokenizer.encode(text), { allowNone: format === "plain" });
}

/** The id of a character that is one token. @throws NlaError `contract.marker` */
export function markerId(char: string, tokenizer: Tokenizer): number {
  const ids = tokenizer.encode(char);
  const [id] = ids;
  if (ids.length === 1 && id !== undefined && id !== tokenizer.unkId) return id;
  throw new NlaError({
    code: "contract.marker",
    subject: `injection character ${JSON.stringify(char)}`,
    found: `the tokens [${ids.join(", ")}] in ${tokenizer.directory}`,
    wanted: "one token that is not the unknown one",
    next: "Use the tokenizer that lies beside the verbalizer; for a new pair, nlakit adds the marker to the vocabulary.",
  });
}

/** Ids of the verbalizer's prompt: through the chat template where there is one, else plain with BOS. */
export function promptIds(template: PromptTemplate, char: string, tokenizer: Tokenizer): number[] {
  const content = fillTemplate(template, char);
  if (tokenizer.chatTemplate === null) return tokenizer.encode(content, { addSpecialTokens: true });
  // The template writes the special tokens itself: adding them again would double BOS.
  const rendered = tokenizer.renderChat([{ role: "user", content }], { addGenerationPrompt: true });
  return tokenizer.encode(rendered);
}

/** The verbalizer's prompt and the position in it that takes the activation. */
export interface VerbalizerPrompt {
  readonly ids: readonly number[];
  readonly site: number;
}

/**
 * The verbalizer's prompt, with the marker asserted: its id, that it stands there once, its neighbours.
 *
 * @throws NlaError `contract.marker-drift`, `contract.site`
 */
export function verbalizerPrompt({ marker, templates }: Contract, tokenizer: Tokenizer): VerbalizerPrompt {
  const id = markerId(marker.char, tokenizer);
  if (id !== marker.tokenId) {
    throw new NlaError({
      code: "contract.marker-drift",
      subject: `injection character ${JSON.stringify(marker.char)} in ${tokenizer.directory}`,
      found: `token ${id}`,
      wanted: `token ${marker.tokenId}, as the sidecar says`,
      next: "Use the tokenizer that lies beside the verbalizer.",
    });
  }
  const ids = promptIds(templates.verbalizer, marker.char, tokenizer);
  const sites = findInjectionSites(ids, marker);
  const [site] = sites;
  if (sites.length === 1 && site !== undefined) return { ids, site };
  const at = ids.indexOf(id);
  throw new NlaError({
    code: "contract.site",
    subject: `the verbalizer's prompt in ${tokenizer.directory}`,
    found: `${sites.length} sites; the marker at ${at} between ${ids[at - 1]} and ${ids[at + 1]}`,
    wanted: `one site, between tokens ${marker.left} and ${marker.right}, as the sidecar says`,
    next: "The template, the chat template or the tokenizer is not the one that the pair was trained with.",
  });
}

/**
 * Ids of the reconstructor's prompt for a text: with the special tokens that the tokenizer adds, BOS above all.
 *
 * @throws NlaError `template.suffix-merged` where it does not end as the contract says
 */
export function reconstructorPrompt(
  { templates, suffixIds }: Contract,
  tokenizer: Tokenizer,
  text: string,
): number[] {
  const ids = tokenizer.encode(fillTemplate(templates.reconstructor, text), { addSpecialTokens: true });
  assertPromptEndsWith(ids, suffixIds);
  return ids;
}
