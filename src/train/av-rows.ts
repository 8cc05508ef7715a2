// Token ids and loss masks of a verbalizer's warm-start row: the prompt, which is not trained, and the response with the
// end of its turn, which is. Not the injection (nla/injection.ts) and not batching.
import { NlaError } from "../error.js";
import { promptIds, responseEndIds } from "../nla/prompt-ids.js";
import type { Tokenizer } from "../text/tokenizer.js";

/**
 * How the response gets its ids. `generic`: tokenised apart from the prompt, the ids of the turn's end appended; what
 * generation sees. `qwen`: the assistant's turn rendered and tokenised as one, so a template may trim the response.
 */
export type LossMaskType = "generic" | "qwen";

/** A row of the verbalizer's warm start. */
export interface VerbalizerRow {
  /** Prompt, response and end, [T]. */
  readonly tokenIds: number[];
  /** Number of ids at the end that are the response and its end. */
  readonly responseLength: number;
  /** 1 for each trained id among the last `responseLength`, [responseLength]. */
  readonly lossMask: number[];
}

/**
 * The row for one prompt and response.
 *
 * @param content the user turn, the marker in its place
 * @param options.lossMaskType Defaults to `generic`. Without a chat template both are the same.
 * @param options.maxLength longest row allowed, in tokens. Defaults to no limit.
 * @throws NlaError `av-row.merged` (`qwen` only) if the response's first token merged with the turn's header,
 *   `av-row.too-long` beyond `maxLength`, and what the chat template throws
 */
export function verbalizerRow(
  tokenizer: Tokenizer,
  content: string,
  response: string,
  { lossMaskType = "generic", maxLength = Infinity }: { lossMaskType?: LossMaskType; maxLength?: number } = {},
): VerbalizerRow {
  const prompt = promptIds(tokenizer, content);
  const trained =
    lossMaskType === "qwen" && tokenizer.chatTemplate !== null
      ? wholeTurnIds(tokenizer, content, response)
      : [...tokenizer.encode(response), ...responseEndIds(tokenizer, content)];
  const length = prompt.length + trained.length;
  if (length > maxLength) {
    throw new NlaError({
      code: "av-row.too-long",
      subject: "verbalizer training row",
      found: `${length} tokens (${prompt.length} of prompt, ${trained.length} of response)`,
      wanted: `at most ${maxLength}`,
      next: "Shorten the labels or the verbalizer's template; the plain format saves the tags.",
    });
  }
  return { tokenIds: [...prompt, ...trained], responseLength: trained.length, lossMask: trained.map(() => 1) };
}

// The assistant's turn rendered alone, from its header on: what stands before it (BOS, a default system turn) is cut off.
function wholeTurnIds(tokenizer: Tokenizer, content: string, response: string): number[] {
  const user = { role: "user", content };
  const withHeader = tokenizer.renderChat([user], { addGenerationPrompt: true });
  const header = withHeader.slice(tokenizer.renderChat([user]).length);
  const alone = tokenizer.renderChat([{ role: "assistant", content: response }]);
  const at = header === "" ? -1 : alone.indexOf(header);
  const headerIds = tokenizer.encode(header);
  const turnIds = at < 0 ? [] : tokenizer.encode(alone.slice(at));
  if (turnIds.length <= headerIds.length || headerIds.some((id, i) => turnIds[i] !== id)) {
    throw new NlaError({
      code: "av-row.merged",
      subject: "verbalizer training row",
      found: `a turn of ${turnIds.length} tokens that does not begin with the header's ${headerIds.length}`,
      wanted: "a response that starts with a token of its own",
      next: 'Use the loss mask type "generic", which tokenises the response apart.',
    });
  }
  return turnIds.slice(headerIds.length);
}
