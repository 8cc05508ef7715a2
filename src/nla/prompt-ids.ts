// The ids of a verbalizer's prompt and of what ends its response, with a chat template and without one. The same
// functions serve training and reading, so that the two cannot drift apart. Not the template's wording (template.ts).
import { NlaError } from "../error.js";
import type { Tokenizer } from "../text/tokenizer.js";

/**
 * Ids of a prompt up to where the response begins, [T].
 *
 * With a chat template: one user turn and the generation prompt, no special tokens besides (the template writes its own
 * BOS). Without one: BOS, if the vocabulary has one, and the bare text.
 */
export function promptIds(tokenizer: Tokenizer, content: string): number[] {
  if (tokenizer.chatTemplate !== null) {
    return tokenizer.encode(tokenizer.renderChat([{ role: "user", content }], { addGenerationPrompt: true }));
  }
  const ids = tokenizer.encode(content);
  return tokenizer.bosId === null ? ids : [tokenizer.bosId, ...ids];
}

// No template trims it or treats it specially, and it is unlikely to stand in a template's own text.
const PROBE = "qXzq";

/**
 * Ids that follow a response and are trained with it: the turn's close of the chat template (e.g. `<|im_end|>` and a line
 * break), or the end token. The first of them ends generation.
 *
 * @throws NlaError `prompt.no-end` where nothing follows a response: such a verbalizer would never stop
 */
export function responseEndIds(tokenizer: Tokenizer, content: string): number[] {
  if (tokenizer.chatTemplate === null) return tokenizer.eosId === null ? noEnd(tokenizer) : [tokenizer.eosId];
  const text = tokenizer.renderChat([
    { role: "user", content },
    { role: "assistant", content: PROBE },
  ]);
  const at = text.lastIndexOf(PROBE);
  const ids = at < 0 ? [] : tokenizer.encode(text.slice(at + PROBE.length));
  return ids.length === 0 ? noEnd(tokenizer) : ids;
}

function noEnd(tokenizer: Tokenizer): never {
  throw new NlaError({
    code: "prompt.no-end",
    subject: `tokenizer ${tokenizer.directory}`,
    found: tokenizer.chatTemplate === null ? "neither a chat template nor an end token" : "a chat template that does not close the assistant's turn",
    wanted: "something that ends a response",
    next: "Name an eos_token in tokenizer_config.json, or give the model a chat template that closes turns.",
  });
}
