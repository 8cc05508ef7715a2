// Where the tokenizer library differed from the Rust one: each case gives what the Rust library gives (seen with tokenizers 0.22.1).
import { describe, expect, it } from "vitest";
import { createDecoder } from "./decoder.js";
import { createLibraryTokenizer } from "./library.js";

interface Rules {
  vocab: string[];
  merges?: string[];
  pre?: object | null;
  unknown?: string;
  fuse?: boolean;
}

/** Token strings of a text under a small byte-pair vocabulary. */
function tokensOf(text: string, { vocab, merges = [], pre = null, unknown, fuse = false }: Rules): string[] {
  const tokenizer = createLibraryTokenizer({
    added_tokens: [],
    decoder: null,
    post_processor: null,
    pre_tokenizer: pre,
    model: {
      type: "BPE",
      vocab: Object.fromEntries(vocab.map((token, id) => [token, id])),
      merges,
      unk_token: unknown ?? null,
      fuse_unk: fuse,
    },
  });
  return tokenizer.encode(text, { add_special_tokens: false }).tokens;
}

describe("pre-tokenizers", () => {
  it("byte level: U+FEFF is no blank and U+0085 is one", () => {
    const pre = { type: "ByteLevel", add_prefix_space: false, use_regex: true };
    // The blank joins the word U+FEFF (bytes EF BB BF), and not the blank U+0085 (bytes C2 85).
    const rules = { vocab: ["Ġ", "ï", "»", "¿", "Â", "ħ", "Ġï", "ĠÂ"], merges: ["Ġ ï", "Ġ Â"], pre };
    expect(tokensOf(" \uFEFF", rules)).toEqual(["Ġï", "»", "¿"]);
    expect(tokensOf("\u0085 \uFEFF", rules)).toEqual(["Â", "ħ", "Ġï", "»", "¿"]);
  });

  it("whitespace: accented letters belong to the word", () => {
    const rules = { vocab: ["é", "t", "ét", "!", "t!"], merges: ["é t", "t !"], pre: { type: "Whitespace" } };
    expect(tokensOf("ét!", rules)).toEqual(["ét", "!"]);
  });

  it("metaspace: the text is cut before each mark, unless split is false", () => {
    const rules = { vocab: ["▁", "a", "b", "▁a", "a▁", "▁b"], merges: ["a ▁", "▁ a", "▁ b"] };
    const pre = { type: "Metaspace", replacement: "▁", prepend_scheme: "never" };
    expect(tokensOf("a b", { ...rules, pre })).toEqual(["a", "▁b"]);
    expect(tokensOf("a b", { ...rules, pre: { ...pre, split: false } })).toEqual(["a▁", "b"]);
    const sequence = { type: "Sequence", pretokenizers: [pre] };
    expect(tokensOf("a  b", { ...rules, pre: sequence })).toEqual(["a", "▁", "▁b"]);
  });

  it("metaspace: old files say add_prefix_space", () => {
    const rules = { vocab: ["▁", "a", "▁a"], merges: ["▁ a"] };
    const pre = { type: "Metaspace", replacement: "▁" };
    expect(tokensOf("a", { ...rules, pre: { ...pre, add_prefix_space: true } })).toEqual(["▁a"]);
    expect(tokensOf("a", { ...rules, pre: { ...pre, add_prefix_space: false } })).toEqual(["a"]);
  });
});

describe("unknown tokens", () => {
  it("are fused within a word, not from word to word", () => {
    const rules = { vocab: ["?", "a"], unknown: "?", fuse: true, pre: { type: "WhitespaceSplit" } };
    expect(tokensOf("xx yy a", rules)).toEqual(["?", "?", "a"]);
  });
});

const decode = (config: object | null, tokens: string[]): string => createDecoder(config, "t").decode(tokens);

describe("decoders", () => {
  it("byte level: a token outside the byte table keeps its letters", () => {
    expect(decode({ type: "ByteLevel" }, ["Ġa", "㎡", "Ã", "©"])).toBe(" a㎡é");
  });

  it("metaspace: all marks of the first token go", () => {
    expect(decode({ type: "Metaspace", replacement: "▁" }, ["▁▁a", "▁b"])).toBe("a b");
    expect(decode({ type: "Metaspace", replacement: "▁", prepend_scheme: "never" }, ["▁▁a"])).toBe("  a");
  });

  it("replace: a dollar sign in the content is a dollar sign", () => {
    expect(decode({ type: "Replace", pattern: { String: "x" }, content: "$&$1" }, ["axb"])).toBe("a$&$1b");
    expect(decode({ type: "Replace", pattern: { Regex: "[xy]+" }, content: "-" }, ["axyb"])).toBe("a-b");
  });

  it("strip: at the edges of each token, or of the whole after fuse", () => {
    const strip = { type: "Strip", content: " ", start: 1, stop: 1 };
    expect(decode(strip, [" a ", "  b"])).toBe("a b");
    const fused = { type: "Sequence", decoders: [{ type: "Fuse" }, strip] };
    expect(decode(fused, [" ", " a", " b "])).toBe(" a b");
    expect(createDecoder(fused, "t").pieces([" ", " a", " b "])).toEqual(["", " a", " b"]);
  });

  it("none: tokens joined by blanks; an unknown one is refused", () => {
    expect(decode(null, ["a", "b"])).toBe("a b");
    expect(createDecoder(null, "t").pieces(["a", "b"])).toEqual(["a", " b"]);
    expect(() => createDecoder({ type: "Rot13" }, "t")).toThrow(/decoder type "Rot13"/);
  });
});

function tokensOfWords(text: string, unk_token?: string): string[] {
  const tokenizer = createLibraryTokenizer({
    added_tokens: [],
    decoder: null,
    post_processor: null,
    pre_tokenizer: { type: "WhitespaceSplit" },
    model: {
      type: "WordLevel",
      vocab: { cat: 0, cats: 1, s: 2, "<unk>": 3 },
      ...(unk_token === undefined ? {} : { unk_token }),
    },
  });
  return tokenizer.encode(text, { add_special_tokens: false }).tokens;
}

describe("whole words", () => {
  it("are tokens or unknown, and never cut into pieces", () => {
    expect(tokensOfWords("cat cats catss s", "<unk>")).toEqual(["cat", "cats", "<unk>", "s"]);
  });

  it("call the unknown <unk> where the file does not name it, and do not fuse it", () => {
    expect(tokensOfWords("dog dog cat")).toEqual(["<unk>", "<unk>", "cat"]);
  });

  it("take a word of a million letters in no time", () => {
    const before = performance.now();
    expect(tokensOfWords("a".repeat(1_000_000))).toEqual(["<unk>"]);
    expect(performance.now() - before).toBeLessThan(2000);
  });
});
