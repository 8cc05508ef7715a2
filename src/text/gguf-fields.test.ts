// Tokenizers written as GGUF fields and read back: the same ids, texts and special tokens; what GGUF cannot say is refused by name.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { ggufTokenizerFields } from "./gguf-fields.js";
import { CUTS, ggufTokenizerFiles } from "./gguf-tokenizer.js";
import { Tokenizer, loadTokenizer } from "./tokenizer.js";
import type { TokenizerFiles } from "./tokenizer-files.js";

const ASSETS = path.resolve(import.meta.dirname, "../../assets");
const bundled = await loadTokenizer(path.join(ASSETS, "aidreams260K"));
const NO_VOCABULARY = { next: expect.stringContaining("--no-tokenizer") as string };

function readBack(tokenizer: Tokenizer, vocabulary = tokenizer.size, endIds: number[] = []) {
  const { fields, notes } = ggufTokenizerFields(tokenizer, { vocabulary, endIds });
  const values = new Map([...fields].map(([key, { value }]) => [key, value]));
  return { values, notes, tokenizer: new Tokenizer(ggufTokenizerFiles("read back", values)) };
}

/** The bundled tokenizer with other rules, or another config. */
function changed(rules: object, config: object = {}): Tokenizer {
  const { files } = bundled;
  const changedRules = { ...files.rules, ...rules } as TokenizerFiles["rules"];
  return new Tokenizer({ ...files, rules: changedRules, config: { ...files.config, ...config } });
}

function refusal(tokenizer: Tokenizer, endIds: number[] = [], vocabulary = tokenizer.size): unknown {
  try {
    ggufTokenizerFields(tokenizer, { vocabulary, endIds });
  } catch (thrown) {
    return thrown;
  }
  throw new Error("it was not refused");
}

describe("the bundled tokenizer", () => {
  it("comes back with ids, flags and specials; rows without a token are no tokens", () => {
    const { values, tokenizer, notes } = readBack(bundled, 520, [2, 5, 7]);
    expect(notes).toEqual([]);
    expect(tokenizer.size).toBe(bundled.size);
    expect([tokenizer.bosId, tokenizer.eosId, tokenizer.unkId]).toEqual([1, 2, 0]);
    expect(tokenizer.allSpecialIds).toEqual(bundled.allSpecialIds);
    expect(values.get("tokenizer.ggml.eot_token_id")).toBe(5);
    expect(values.get("tokenizer.ggml.eom_token_id")).toBe(7);
    expect((values.get("tokenizer.ggml.tokens") as string[])[519]).toBe("[PAD519]");
    expect((values.get("tokenizer.ggml.token_type") as number[])[519]).toBe(5);
    const text = "The dog’s  name\nis 42 — «Ж»";
    expect(tokenizer.encode(text, { addSpecialTokens: true })).toEqual(
      bundled.encode(text, { addSpecialTokens: true }),
    );
  });

  it("comes back with EOS after a text, too", () => {
    const post = {
      type: "TemplateProcessing",
      single: [{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "</s>", type_id: 0 } }],
      pair: [],
      special_tokens: { "</s>": { id: "</s>", ids: [2], tokens: ["</s>"] } },
    };
    const { tokenizer } = readBack(changed({ post_processor: post }));
    expect(tokenizer.encode("a", { addSpecialTokens: true }).at(-1)).toBe(2);
    expect(tokenizer.encode("a", { addSpecialTokens: true })[0]).not.toBe(1);
  });

  it("with a marker added, as every new verbalizer's: one special id", () => {
    const { tokenizer: own, id } = bundled.withAddedToken("\u320e");
    const { tokenizer } = readBack(own);
    expect(tokenizer.encode("(\u320e)")).toEqual(own.encode("(\u320e)"));
    expect(tokenizer.encode("(\u320e)")).toContain(id);
    expect(tokenizer.allSpecialIds).toEqual(own.allSpecialIds);
  });

  it("says what is lost of added tokens that take the blanks around them", () => {
    const stripping = { id: 512, content: "<mark>", single_word: false, lstrip: true, rstrip: true };
    const added = [
      ...(bundled.files.rules["added_tokens"] as object[]),
      { ...stripping, normalized: false, special: true },
    ];
    const { notes } = readBack(changed({ added_tokens: added }));
    expect(notes).toEqual([expect.stringContaining("1 of 4 special tokens")]);
  });
});

describe("what GGUF cannot say", () => {
  it("a vocabulary of whole words", async () => {
    const words = await loadTokenizer(path.join(ASSETS, "smallworld/target"));
    expect(refusal(words)).toMatchObject({
      code: "gguf.tokenizer",
      found: "the kind WordLevel",
      ...NO_VOCABULARY,
    });
  });

  it("a normalizer that changes texts", () => {
    const lower = {
      type: "Sequence",
      normalizers: [{ type: "Lowercase" }, bundled.files.rules["normalizer"]],
    };
    expect(refusal(changed({ normalizer: lower }))).toMatchObject({
      code: "gguf.tokenizer",
      found: expect.stringContaining("Lowercase") as string,
    });
  });

  it("cuts that llama.cpp has no name for", () => {
    const cut = { type: "Split", pattern: { Regex: "x+" }, behavior: "Isolated", invert: false };
    const bytes = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
    const sequence = { type: "Sequence", pretokenizers: [cut, bytes] };
    expect(refusal(changed({ normalizer: null, pre_tokenizer: sequence }))).toMatchObject({
      code: "gguf.tokenizer",
      found: 'words cut by "x+"',
      wanted: expect.stringContaining(Object.keys(CUTS).join(", ")) as string,
    });
  });

  it("merges in an order that scores cannot give", () => {
    const { model } = bundled.files.rules;
    const merges = (model["merges"] as unknown[]).slice(1);
    expect(refusal(changed({ model: { ...model, merges } }))).toMatchObject({
      code: "gguf.tokenizer",
      found: "merges in an order that scores of tokens cannot give",
    });
  });

  it("more ends than three, more ids than rows", () => {
    expect(refusal(bundled, [2, 5, 6, 7])).toMatchObject({ found: "4 ids that end a text" });
    expect(refusal(bundled, [], 500)).toMatchObject({ found: "512 ids" });
  });
});

const tokenizers = sharedPath("golden/nla/actor");
describeWith(tokenizers, "tokenizers of the reference's verbalizers", () => {
  it.each(["llama", "qwen2"])("%s: 83 texts in many languages", async (family) => {
    const inputs = sharedPath("assets/tokenizers/expected/multilingual_inputs.json");
    const own = await loadTokenizer(path.join(tokenizers as string, family, "av"));
    const { tokenizer, values } = readBack(own);
    expect(values.get("tokenizer.ggml.model")).toBe("gpt2");
    expect(values.get("tokenizer.ggml.pre")).toBe(family === "llama" ? "llama-bpe" : "qwen2");
    const texts = inputs === null ? [] : await textsOf(inputs);
    for (const text of texts) {
      const ids = own.encode(text, { addSpecialTokens: true });
      expect(tokenizer.encode(text, { addSpecialTokens: true }), text).toEqual(ids);
      expect(tokenizer.decode(ids), text).toBe(own.decode(ids));
    }
    const messages = [{ role: "user" as const, content: "Hello" }];
    expect(tokenizer.renderChat(messages)).toBe(own.renderChat(messages));
  });
});

async function textsOf(file: string): Promise<string[]> {
  const json: unknown = JSON.parse(await readFile(file, "utf8"));
  const strings = (value: unknown): string[] =>
    typeof value === "string"
      ? [value]
      : typeof value === "object" && value !== null
        ? Object.values(value).flatMap(strings)
        : [];
  return strings(json);
}
