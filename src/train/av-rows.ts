// Token ids and loss masks of a verbalizer's warm-start row: the prompt, which is not trained, and the response with the
// end of its turn, which is. Not the injection (nla/injection.ts) and not batching.
import { NlaError } from "../error.js";
import { responseEndIds } from "../nla/response-end.js";
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

// Any user turn does for finding out how a template opens and closes the assistant's.
const USER_TURN = { role: "user", content: "x" };

const USE_GENERIC = 'Use the loss mask type "generic", which tokenises the response apart.';

/**
 * The row for one prompt and response.
 *
 * @param promptIds the verbalizer's prompt (nla/contract.ts), [P]
 * @param options.lossMaskType Defaults to `generic`. Without a chat template both are the same.
 * @param options.maxLength longest row allowed, in tokens. Defaults to no limit.
 * @throws NlaError `av-row.merged` (`qwen` only) if the response's first token merged with the turn's header,
 *   `av-row.no-header` (`qwen` only) if the template gives that turn none, `av-row.too-long` beyond `maxLength`, `av-row.no-end` as {@link responseEndIds}, and what the chat template throws
 */
export function verbalizerRow(
  tokenizer: Tokenizer,
  promptIds: readonly number[],
  response: string,
  {
    lossMaskType = "generic",
    maxLength = Infinity,
  }: { lossMaskType?: LossMaskType; maxLength?: number } = {},
): VerbalizerRow {
  const trained =
    lossMaskType === "qwen" && tokenizer.chatTemplate !== null
      ? wholeTurnIds(tokenizer, response)
      : [...tokenizer.encode(response), ...responseEndIds(tokenizer)];
  const length = promptIds.length + trained.length;
  if (length > maxLength) {
    throw new NlaError({
      code: "av-row.too-long",
      subject: "verbalizer training row",
      found: `${length} tokens (${promptIds.length} of prompt, ${trained.length} of response)`,
      wanted: `at most ${maxLength}`,
      next: "Shorten the labels or the verbalizer's template; the plain format saves the tags.",
    });
  }
  return {
    tokenIds: [...promptIds, ...trained],
    responseLength: trained.length,
    lossMask: trained.map(() => 1),
  };
}

// The assistant's turn rendered alone, from its header on: what stands before it (BOS, a default system turn) is cut off.
function wholeTurnIds(tokenizer: Tokenizer, response: string): number[] {
  const open = tokenizer.renderChat([USER_TURN], { addGenerationPrompt: true });
  const header = open.slice(tokenizer.renderChat([USER_TURN]).length);
  const alone = tokenizer.renderChat([{ role: "assistant", content: response }]);
  const at = header === "" ? -1 : alone.indexOf(header);
  if (at < 0) {
    throw new NlaError({
      code: "av-row.no-header",
      subject: `chat template of ${tokenizer.directory}`,
      found: "an assistant's turn without a header of its own",
      wanted: "the generation prompt to open the assistant's turn",
      next: USE_GENERIC,
    });
  }
  const headerIds = tokenizer.encode(header);
  const turnIds = tokenizer.encode(alone.slice(at));
  if (turnIds.length <= headerIds.length || headerIds.some((id, i) => turnIds[i] !== id)) {
    throw new NlaError({
      code: "av-row.merged",
      subject: "verbalizer training row",
      found: `a turn of ${turnIds.length} tokens that does not begin with the ${headerIds.length} of its header`,
      wanted: "a response that starts with a token of its own",
      next: USE_GENERIC,
    });
  }
  return turnIds.slice(headerIds.length);
}
