// The prompts that a new pair gets where its config states none: tags in a chat for models that can afford them, a plain
// prompt of a few tokens ended by EOS for models that cannot. The sidecar records which; readers obey it.
import type { Target } from "../nla/target.js";
import type { ContractDraft } from "../nla/contract.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { TrainConfig } from "./config-schema.js";

// Below these, tags and instructions would take most of what an explanation needs: 16 characters of tag are as many tokens
// in a vocabulary of bytes, and a prompt of sixty tokens is half of a context of 128.
const SMALL_VOCABULARY = 4096;
const SMALL_CONTEXT = 512;

type Wording = Pick<ContractDraft, "format" | "verbalizerTemplate" | "reconstructorTemplate">;

/** The wording for models that can afford tags. */
export const TAGGED: Wording = {
  format: "tags",
  verbalizerTemplate:
    "Inside the brackets is an activation of a language model, taken while it read a text: <act>{injection_char}</act>\n" +
    "Write down what the activation says about the text and how it goes on, between <explanation> and </explanation>.",
  reconstructorTemplate: "A language model has read this: <notes>{explanation}</notes> <act>",
};

// Every token of a prompt is paid for in each of thousands of rollouts. The reconstructor reads the state of the
// explanation's own last token: a suffix would cost a tiny model most of what it could say (docs/log.md).
const PLAIN: Wording = {
  format: "plain",
  verbalizerTemplate: "({injection_char})",
  reconstructorTemplate: "{explanation}",
};

/** The wording for a target: plain where it has no chat template, or vocabulary or context are too small for tags. */
export function wordingOf(
  { templates }: TrainConfig,
  { model }: Pick<Target, "model">,
  tokenizer: Tokenizer,
): Wording {
  const { vocabulary, contextLength } = model.config;
  const small =
    vocabulary < SMALL_VOCABULARY || contextLength < SMALL_CONTEXT || tokenizer.chatTemplate === null;
  const wording = small ? PLAIN : TAGGED;
  return {
    format: wording.format,
    verbalizerTemplate: templates.verbalizer ?? wording.verbalizerTemplate,
    reconstructorTemplate: templates.reconstructor ?? wording.reconstructorTemplate,
  };
}
