// Token ids of documents: equal to encoding the whole text, whatever the tokenizer's rules, and fast for long texts.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { targetDirectory } from "../nla/target.js";
import { loadTokenizer } from "../text/tokenizer.js";
import { documentTokens } from "./document-tokens.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-tokens-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const shakespeare = sharedPath("assets/corpora/tinyshakespeare.txt");
const tokenizers = {
  aidreams260K: targetDirectory("aidreams260K"),
  llama2: sharedPath("assets/tokenizers/llama2"),
  gpt2: sharedPath("assets/tokenizers/gpt2"),
  "tiny qwen2": sharedPath("golden/nla/pipeline/tiny-qwen2"),
  "tiny llama 3": sharedPath("golden/nla/pipeline-llama/tiny-llama"),
  "tiny gemma 3": sharedPath("golden/nla/pipeline-gemma3/tiny-gemma3"),
};

const asDocument = (text: string) => ({ text, messages: null });

describe.each(Object.entries(tokenizers))("%s", (_, directory) => {
  it.skipIf(directory === null || shakespeare === null)("keeps the first ids of a longer text", async () => {
    const text = readFileSync(shakespeare as string, "utf8");
    const tokenizer = await loadTokenizer(directory as string);
    // From a few places, so that cuts fall on different characters; special tokens and odd blanks among them.
    for (const [start, length] of [
      [0, 16],
      [1001, 40],
      [52_007, 100],
      [700_000, 333],
    ] as const) {
      const part = `${text.slice(start, start + 8000)} <|endoftext|>  <s> naïve\u00a0café ${text.slice(start, start + 8000)}`;
      const whole = tokenizer.encode(part, { addSpecialTokens: true }).slice(0, length);
      expect(documentTokens(tokenizer, length)(asDocument(part))).toEqual(whole);
      const short = part.slice(0, 50);
      expect(documentTokens(tokenizer, 1000)(asDocument(short))).toEqual(
        tokenizer.encode(short, { addSpecialTokens: true }),
      );
    }
  });
});

describe("long texts", () => {
  it("are cut before they are encoded", async () => {
    const tokenizer = await loadTokenizer(targetDirectory("aidreams260K"));
    const text = "Once upon a time there was a little dog named Max. ".repeat(100_000);
    const start = performance.now();
    const ids = documentTokens(tokenizer, 128)(asDocument(text));
    // Encoding all of its 5 MB takes more than a minute.
    expect(performance.now() - start).toBeLessThan(5000);
    expect(ids).toEqual(tokenizer.encode(text.slice(0, 2000), { addSpecialTokens: true }).slice(0, 128));
  });

  it("with special tokens in them are cut at the same id", async () => {
    const tokenizer = await loadTokenizer(targetDirectory("aidreams260K"));
    const text = `${"</s>".repeat(3)} ${"Once upon a time there was a ".repeat(300)}`;
    const whole = tokenizer.encode(text, { addSpecialTokens: true });
    for (const length of [4, 64, 128]) {
      expect(documentTokens(tokenizer, length)(asDocument(text))).toEqual(whole.slice(0, length));
    }
  });
});

describeWith(tokenizers.llama2, "tokens that are longer than usual", () => {
  it("take a longer part", async () => {
    const tokenizer = await loadTokenizer(tokenizers.llama2 as string);
    const text = `x${" ".repeat(60)}`.repeat(200);
    const whole = tokenizer.encode(text, { addSpecialTokens: true });
    // 8 characters a token would give too few.
    expect(tokenizer.encode(text.slice(0, 8 * 100)).length).toBeLessThan(90);
    expect(documentTokens(tokenizer, 100)(asDocument(text))).toEqual(whole.slice(0, 100));
  });
});

// A vocabulary with a token that goes over blanks: "aaaa", " bbbb" and " cccc" melt into one.
const MERGES = [
  ...["a", "b", "c"].flatMap((letter) => [`${letter} ${letter}`, `${letter.repeat(2)} ${letter.repeat(2)}`]),
  "▁ bbbb",
  "▁ cccc",
  "aaaa ▁bbbb",
  "aaaa▁bbbb ▁cccc",
  "▁ aaaa▁bbbb▁cccc",
  "▁ d",
];
const PIECES = ["<unk>", "<s>", "</s>", ..."abcd▁", ...MERGES.map((merge) => merge.replace(" ", ""))];

const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } });

function writeTokenizer(name: string, { end }: { readonly end: boolean }): string {
  const directory = path.join(scratch, name);
  mkdirSync(directory);
  const single = [special("<s>"), { Sequence: { id: "A", type_id: 0 } }, ...(end ? [special("</s>")] : [])];
  const rules = {
    version: "1.0",
    added_tokens: ["<unk>", "<s>", "</s>"].map((content, id) => ({
      id,
      content,
      special: true,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
    })),
    normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single,
      pair: single,
      special_tokens: {
        "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] },
        "</s>": { id: "</s>", ids: [2], tokens: ["</s>"] },
      },
    },
    decoder: { type: "Replace", pattern: { String: "▁" }, content: " " },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      fuse_unk: true,
      byte_fallback: false,
      vocab: Object.fromEntries(PIECES.map((piece, id) => [piece, id])),
      merges: MERGES,
    },
  };
  writeFileSync(path.join(directory, "tokenizer.json"), JSON.stringify(rules));
  writeFileSync(path.join(directory, "tokenizer_config.json"), JSON.stringify({ unk_token: "<unk>" }));
  return directory;
}

describe("a vocabulary with a token that goes over blanks", () => {
  it("is never cut inside one", async () => {
    const tokenizer = await loadTokenizer(writeTokenizer("over-blanks", { end: false }));
    const phrase = "aaaa bbbb cccc  "; // two tokens, so 8 characters a token: the first part holds just enough
    expect(tokenizer.encode(phrase.repeat(3))).toHaveLength(2 * 3 + 1);
    for (let shift = 0; shift < 20; shift++) {
      const text = "z".repeat(shift) + phrase.repeat(60); // unknown letters are one token
      const whole = tokenizer.encode(text, { addSpecialTokens: true });
      for (let length = 2; length < 20; length++) {
        expect(documentTokens(tokenizer, length)(asDocument(text))).toEqual(whole.slice(0, length));
      }
    }
  });

  it("takes the whole text where there is no place to cut", async () => {
    const tokenizer = await loadTokenizer(writeTokenizer("no-place", { end: false }));
    const text = "aaaa bbbb ".repeat(200);
    const whole = tokenizer.encode(text, { addSpecialTokens: true });
    expect(documentTokens(tokenizer, 9)(asDocument(text))).toEqual(whole.slice(0, 9));
  });
});

describe("special tokens", () => {
  it("count, and an end token stays at the end of a cut text", async () => {
    const tokenizer = await loadTokenizer(writeTokenizer("with-end", { end: true }));
    expect(documentTokens(tokenizer, 5)(asDocument("d d d d d d"))).toEqual([
      1,
      ...tokenizer.encode("d d d d d d").slice(0, 3),
      2,
    ]);
    expect(documentTokens(tokenizer, 50)(asDocument("d"))).toEqual([1, PIECES.indexOf("d"), 2]);
    expect(() => documentTokens(tokenizer, 2)).toThrow(/found 2 tokens; wanted at least 3/);
  });
});

describeWith(tokenizers["tiny llama 3"], "conversations", () => {
  it("are rendered by the chat template, which writes its own special tokens", async () => {
    const tokenizer = await loadTokenizer(tokenizers["tiny llama 3"] as string);
    const messages = [
      { role: "user", content: "What is a raven?" },
      { role: "assistant", content: "A large black bird. ".repeat(400) },
    ];
    const ids = documentTokens(tokenizer, 100)({ text: null, messages });
    expect(ids).toEqual(tokenizer.encode(tokenizer.renderChat(messages)).slice(0, 100));
    expect(ids.filter((id) => id === tokenizer.bosId)).toHaveLength(1);
  });

  it("need a chat template", async () => {
    const tokenizer = await loadTokenizer(targetDirectory("aidreams260K"));
    const messages = [{ role: "user", content: "Hello." }];
    expect(() => documentTokens(tokenizer, 100)({ text: null, messages })).toThrow(
      expect.objectContaining({ code: "chat.missing" }) as Error,
    );
  });
});
