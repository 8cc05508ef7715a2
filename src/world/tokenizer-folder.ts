// The tokenizer of the world as a Hugging Face folder: a whole-word model over the closed vocabulary, lower case, punctuation apart, BOS
// before a text. What loads it is text/tokenizer.ts, or transformers; nothing here tokenizes.
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { writeFileAtomic } from "../data/files.js";
import { SPECIAL_TOKENS, worldVocabulary } from "./vocabulary.js";

const [PAD, BOS, EOS, UNKNOWN, MARKER, SEPARATOR] = SPECIAL_TOKENS;

/**
 * Writes tokenizer.json and tokenizer_config.json into `directory`, which is made if absent. Ids are positions in
 * {@link worldVocabulary}. The errors are those of the file system, a full disk as NlaError `disk.full`.
 */
export async function writeWorldTokenizer(directory: string): Promise<void> {
  await mkdir(directory, { recursive: true });
  const { rules, config } = worldTokenizerFiles();
  await writeFileAtomic(path.join(directory, "tokenizer.json"), jsonLines(rules));
  await writeFileAtomic(path.join(directory, "tokenizer_config.json"), jsonLines(config));
}

/** What the two files hold. */
export function worldTokenizerFiles(): { rules: object; config: object } {
  const vocabulary = worldVocabulary();
  const idOf = (token: string): number => vocabulary.indexOf(token);
  return {
    rules: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: SPECIAL_TOKENS.map((content) => ({
        id: idOf(content),
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: { type: "Lowercase" },
      pre_tokenizer: { type: "BertPreTokenizer" },
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: BOS, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        pair: [
          { SpecialToken: { id: BOS, type_id: 0 } },
          { Sequence: { id: "A", type_id: 0 } },
          { Sequence: { id: "B", type_id: 0 } },
        ],
        special_tokens: { [BOS]: { id: BOS, ids: [idOf(BOS)], tokens: [BOS] } },
      },
      decoder: null,
      model: {
        type: "WordLevel",
        vocab: Object.fromEntries(vocabulary.map((token, id) => [token, id])),
        unk_token: UNKNOWN,
      },
    },
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      bos_token: BOS,
      eos_token: EOS,
      pad_token: PAD,
      unk_token: UNKNOWN,
      additional_special_tokens: [MARKER, SEPARATOR],
      clean_up_tokenization_spaces: false,
    },
  };
}

function jsonLines(value: object): string {
  return `${JSON.stringify(value, null, 1)}\n`;
}
