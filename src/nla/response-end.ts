// How a verbalizer's response ends, in tokens: with the end of the assistant's turn where there is a chat template, else with EOS.
import { NlaError } from "../error.js";
import type { Tokenizer } from "../text/tokenizer.js";

// Any user turn does for finding out how a template opens and closes the assistant's.
const USER_TURN = { role: "user", content: "x" };
// A response that no template trims and that is unlikely to stand in a template's own text.
const PROBE = "qXzq";

/**
 * Ids that follow a response and are trained with it: the turn's close of the chat template (e.g. `<|im_end|>` and a line
 * break), or the end token where there is no template. The first of them must end generation.
 *
 * @throws NlaError `av-row.no-end` where nothing follows a response: such a verbalizer would never stop
 */
export function responseEndIds(tokenizer: Tokenizer): number[] {
  if (tokenizer.chatTemplate === null) {
    if (tokenizer.eosId !== null) return [tokenizer.eosId];
    throw noEnd(tokenizer, "neither a chat template nor an end token");
  }
  const text = tokenizer.renderChat([USER_TURN, { role: "assistant", content: PROBE }]);
  const at = text.lastIndexOf(PROBE);
  const ids = at < 0 ? [] : tokenizer.encode(text.slice(at + PROBE.length));
  if (ids.length === 0) throw noEnd(tokenizer, "a chat template that does not close the assistant's turn");
  return ids;
}

function noEnd(tokenizer: Tokenizer, found: string): NlaError {
  return new NlaError({
    code: "av-row.no-end",
    subject: `tokenizer ${tokenizer.directory}`,
    found,
    wanted: "something that ends a response",
    next: "Name an eos_token in tokenizer_config.json, or give the model a chat template that closes turns.",
  });
}
