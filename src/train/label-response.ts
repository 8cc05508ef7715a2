// Labels as responses that teach them: wrapped as the contract says, with what ends a response behind, cut to what the context
// leaves after the prompt. Not the batches (response-batch.ts) and not the labels themselves (pipeline/).
import { NlaError } from "../error.js";
import { wrapExplanation } from "../nla/explanation.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import { responseEndIds } from "../nla/response-end.js";

/**
 * Turns a label into token ids, its end included. A label that is too long loses words from its end, and keeps tags and end:
 * an explanation without them would teach a verbalizer to fail.
 *
 * @throws NlaError `train.no-stop` where what ends a response would not end generation, `train.no-room` where the context
 *   leaves no room for a word, and `av-row.no-end`
 */
export function responseEncoder({
  tokenizer,
  contract,
  prompt,
  model,
  stopTokens,
}: Pick<Verbalizer, "tokenizer" | "contract" | "prompt" | "model" | "stopTokens">): (
  label: string,
) => number[] {
  const end = responseEndIds(tokenizer);
  const [stop] = end as [number, ...number[]];
  if (!stopTokens.includes(stop)) {
    throw new NlaError({
      code: "train.no-stop",
      subject: `the verbalizer of ${tokenizer.directory}`,
      found: `token ${stop} at the end of a turn, and generation that stops at ${stopTokens.join(", ") || "nothing"}`,
      wanted: "a turn's end that stops generation: each explanation would run into its cap",
      next: `Add ${stop} to eos_token_id in the target's config.json.`,
    });
  }
  const room = model.config.contextLength - prompt.ids.length;
  const encode = (label: string) => {
    return [...tokenizer.encode(wrapExplanation(label, { format: contract.format })), ...end];
  };
  return (label) => {
    const whole = encode(label);
    if (whole.length <= room) return whole;
    // The longest beginning that fits, by halving: a character more is hardly ever a token less, and where it is, the
    // beginning is a little shorter than it could be.
    const characters = Array.from(label);
    const ids = (count: number) => encode(characters.slice(0, count).join(""));
    let fits = 0;
    let tooMany = characters.length;
    while (tooMany - fits > 1) {
      const middle = (fits + tooMany) >> 1;
      if (ids(middle).length <= room) fits = middle;
      else tooMany = middle;
    }
    const words = /^[\s\S]*\S(?=\s)/.exec(characters.slice(0, fits + 1).join(""))?.[0];
    const cut = encode(words ?? characters.slice(0, fits).join(""));
    if (fits > 0 && cut.length <= room) return cut;
    throw new NlaError({
      code: "train.no-room",
      subject: `the label ${JSON.stringify(label.slice(0, 60))}`,
      found: `a prompt of ${prompt.ids.length} tokens in a context of ${model.config.contextLength}`,
      wanted: "room for at least a word and the end of a response",
      next: "Shorten the verbalizer's template (templates.verbalizer).",
    });
  };
}
