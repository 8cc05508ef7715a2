// Real tokenizers against what the Python stack gave for them: ids, decoded text, pieces, and the files that are written.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { afterAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { loadTokenizer, type Tokenizer } from "./tokenizer.js";

const assets = sharedPath("assets/tokenizers");
const goldenNla = sharedPath("golden/nla/pipeline") && sharedPath("golden/nla"); // the whole set, not the part in fixtures
const goldenStories = sharedPath("golden/models/aidreams260K-tokenizer.json");
const bundled = path.resolve(import.meta.dirname, "../../assets/aidreams260K");
const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-tokenizer-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function readJson<T>(file: string): T {
  return JSON.parse(readFileSync(file, "utf8")) as T;
}

/** A directory with one tokenizer.json (from the assets, or given) and the config of the test. */
function directoryOf(name: string, rules: string | object, config: object): string {
  const directory = path.join(scratch, name);
  mkdirSync(directory, { recursive: true });
  const target = path.join(directory, "tokenizer.json");
  if (typeof rules === "string") cpSync(path.join(assets as string, rules), target);
  else writeFileSync(target, JSON.stringify(rules));
  writeFileSync(path.join(directory, "tokenizer_config.json"), JSON.stringify(config));
  return directory;
}

interface Entry {
  id: string;
  input_ids: number[];
  decoded_with_special: string;
  decoded_skip_special: string;
}

interface Vocabulary {
  name: string;
  rules: string;
  expected: string;
  config: object;
  addSpecialTokens: boolean;
}

// The assembled files have no config of their own; the expected texts were decoded without clean-up of blanks.
const vocabularies: Vocabulary[] = [
  {
    name: "gpt2",
    rules: "gpt2/tokenizer.json",
    expected: "gpt2_multilingual.json",
    config: { bos_token: "<|endoftext|>", eos_token: "<|endoftext|>", unk_token: "<|endoftext|>" },
    addSpecialTokens: true,
  },
  {
    name: "qwen2",
    rules: "qwen2/tokenizer.assembled.json",
    expected: "qwen2_5_multilingual.json",
    config: { bos_token: null, eos_token: "<|endoftext|>", pad_token: "<|endoftext|>" },
    addSpecialTokens: true,
  },
  {
    name: "llama2",
    rules: "llama2/tokenizer.json",
    expected: "tinyllama_multilingual.json",
    config: { tokenizer_class: "LlamaTokenizer", bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>" },
    addSpecialTokens: true,
  },
];

describeWith(assets, "the multilingual texts", () => {
  it.each(vocabularies)("$name: ids, decoded text and pieces", async (vocabulary) => {
    const tokenizer = await loadTokenizer(directoryOf(vocabulary.name, vocabulary.rules, vocabulary.config));
    const inputs = readJson<{ id: string; text: string }[]>(
      path.join(assets as string, "expected/multilingual_inputs.json"),
    );
    const { entries } = readJson<{ entries: Entry[] }>(
      path.join(assets as string, "expected", vocabulary.expected),
    );
    expect([inputs.length, entries.length]).toEqual([83, 83]);
    for (const { id, text } of inputs) {
      const entry = entries.find((one) => one.id === id) as Entry;
      const ids = tokenizer.encode(text, { addSpecialTokens: vocabulary.addSpecialTokens });
      expect(ids, id).toEqual(entry.input_ids);
      expect(tokenizer.decode(ids), id).toBe(entry.decoded_skip_special);
      expect(tokenizer.decode(ids, { skipSpecialTokens: false }), id).toBe(entry.decoded_with_special);
      const pieces = tokenizer.pieces(ids);
      expect(pieces.length, id).toBe(ids.length);
      expect(pieces.join(""), id).toBe(entry.decoded_with_special);
    }
  });

  it("llama 3.2: the French paragraph", async () => {
    const config = { bos_token: "<|begin_of_text|>", eos_token: "<|end_of_text|>" };
    const tokenizer = await loadTokenizer(
      directoryOf("llama3.2", "llama3.2/tokenizer.assembled.json", config),
    );
    const { text, token_ids } = readJson<{ text: string; token_ids: number[] }>(
      path.join(assets as string, "expected/llama_3.2_encoded.json"),
    );
    // The expected list starts with BOS; the assembled file has no post-processor to add it.
    expect([tokenizer.bosId, ...tokenizer.encode(text)]).toEqual(token_ids);
    expect(tokenizer.decode(token_ids)).toBe(text);
    expect(tokenizer.size).toBe(128256);
  });
});

describeWith(goldenStories, "aidreams260K", () => {
  it("gives the 65 golden encodings and texts", async () => {
    const tokenizer = await loadTokenizer(bundled);
    const { cases } = readJson<{ cases: { text: string; ids: number[]; decoded: string }[] }>(
      goldenStories as string,
    );
    expect(cases.length).toBe(65);
    for (const { text, ids, decoded } of cases) {
      const name = JSON.stringify(text);
      expect(tokenizer.encode(text, { addSpecialTokens: true }), name).toEqual(ids);
      expect(tokenizer.decode(ids), name).toBe(decoded);
      expect(tokenizer.pieces(ids).join(""), name).toBe(tokenizer.decode(ids, { skipSpecialTokens: false }));
    }
    expect([tokenizer.size, tokenizer.bosId, tokenizer.eosId, tokenizer.unkId, tokenizer.padId]).toEqual([
      512,
      1,
      2,
      0,
      null,
    ]);
    expect([...tokenizer.allSpecialIds]).toEqual([1, 2, 0]);
  });
});

interface ContractTokens {
  chat_template: string;
  templates: { actor: string; critic: string };
  single_token_markers: Record<string, number>;
  marker: { char: string; id: number };
  critic_suffix_ids: number[];
  all_special_ids: number[];
  prompt_text: string;
  prompt_ids: number[];
  prompt_ids_without_generation_prompt: number[];
  rows: { explanation: string; token_ids: number[] }[];
}

const contracts: [string, string, string, object][] = [
  [
    "qwen2.json",
    "qwen2-contract",
    "qwen2/tokenizer.assembled.json",
    {
      eos_token: "<|im_end|>",
      pad_token: "<|endoftext|>",
      additional_special_tokens: ["<|im_start|>", "<|im_end|>"],
    },
  ],
  [
    "qwen2_stored_template.json",
    "qwen2-stored",
    "qwen2/tokenizer.assembled.json",
    {
      eos_token: "<|im_end|>",
      pad_token: "<|endoftext|>",
      additional_special_tokens: ["<|im_start|>", "<|im_end|>"],
    },
  ],
  [
    "llama3.json",
    "llama3-contract",
    "llama3.2/tokenizer.assembled.json",
    { bos_token: "<|begin_of_text|>", eos_token: "<|eot_id|>" },
  ],
];

describeWith(assets && goldenNla, "the injection contract's tokens", () => {
  it.each(contracts)("%s", async (file, name, rules, config) => {
    const golden = readJson<ContractTokens>(path.join(goldenNla as string, "tokens", file));
    // Llama's special tokens are the reserved ones by another name in the assembled file.
    const directory = directoryOf(name, rules, { ...config, chat_template: golden.chat_template });
    const tokenizer = await loadTokenizer(directory);
    expect(new Set(tokenizer.allSpecialIds)).toEqual(new Set(golden.all_special_ids));
    const found: Record<string, number> = {};
    for (let point = 0x3200; point <= 0x33ff; point++) {
      const ids = tokenizer.encode(String.fromCodePoint(point));
      if (ids.length === 1) found[`U+${point.toString(16).toUpperCase()}`] = ids[0] as number;
    }
    expect(found).toEqual(golden.single_token_markers);
    const content = golden.templates.actor.replace("{injection_char}", golden.marker.char);
    const messages = [{ role: "user", content }];
    const prompt = tokenizer.renderChat(messages, { addGenerationPrompt: true });
    expect(prompt).toBe(golden.prompt_text);
    expect(tokenizer.encode(prompt)).toEqual(golden.prompt_ids);
    expect(tokenizer.encode(tokenizer.renderChat(messages))).toEqual(
      golden.prompt_ids_without_generation_prompt,
    );
    const suffix = golden.templates.critic.split("{explanation}")[1] as string;
    expect(tokenizer.encode(suffix).slice(1)).toEqual(golden.critic_suffix_ids);
    for (const { explanation, token_ids } of golden.rows) {
      expect(tokenizer.encode(golden.templates.critic.replace("{explanation}", () => explanation))).toEqual(
        token_ids,
      );
    }
  });
});

const bytes = (text: string): string[] =>
  [...Buffer.from(text)].map((byte) => `<0x${byte.toString(16).padStart(2, "0").toUpperCase()}>`);

const gemmaLike = (): string => {
  const vocab: Record<string, number> = { "<pad>": 0, "▁a": 1, b: 2 };
  for (let byte = 0; byte < 256; byte++)
    vocab[`<0x${byte.toString(16).padStart(2, "0").toUpperCase()}>`] = 3 + byte;
  return directoryOf(
    "byte-fallback",
    {
      added_tokens: [{ id: 0, content: "<pad>", special: true }],
      normalizer: { type: "Replace", pattern: { String: " " }, content: "▁" },
      pre_tokenizer: null,
      post_processor: null,
      decoder: {
        type: "Sequence",
        decoders: [
          { type: "Replace", pattern: { String: "▁" }, content: " " },
          { type: "ByteFallback" },
          { type: "Fuse" },
        ],
      },
      model: {
        type: "BPE",
        vocab,
        merges: [],
        byte_fallback: true,
        unk_token: "<pad>",
        ignore_merges: false,
      },
    },
    {},
  );
};

const idsOf = (tokens: string[]): number[] =>
  tokens.map((token) => 3 + Number.parseInt(token.slice(3, 5), 16));

describe("decoding", () => {
  it("turns a whole run of byte tokens into U+FFFD when its end is cut, and a mark at its start stays", async () => {
    const tokenizer = await loadTokenizer(gemmaLike());
    const whole = idsOf(bytes("é🦊"));
    expect(tokenizer.decode([1, ...whole, 2])).toBe(" aé🦊b");
    const cut = whole.slice(0, -1);
    expect(tokenizer.decode([1, ...cut, 2])).toBe(` a${"\uFFFD".repeat(5)}b`);
    expect(tokenizer.decode(idsOf(bytes("\uFEFFx")))).toBe("\uFEFFx");
    expect(tokenizer.pieces([1, ...whole, 2])).toEqual([" a", "", "é", "", "", "", "🦊", "b"]);
    expect(tokenizer.pieces([1, ...cut])).toEqual([" a", "", "é", "", "", "\uFFFD"]);
  });

  it("gives ids without a token no text, and refuses what is no id", async () => {
    const tokenizer = await loadTokenizer(gemmaLike());
    expect(tokenizer.decode([])).toBe("");
    expect(tokenizer.decode([1, 5000, 2])).toBe(" ab");
    expect(tokenizer.pieces([1, 5000])).toEqual([" a", "<id 5000>"]);
    for (const id of [-1, 1.5, Number.NaN]) expect(() => tokenizer.decode([id])).toThrow(/token id/);
  });

  it("removes blanks before punctuation only where the config says so", async () => {
    const rules = {
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: { type: "WhitespaceSplit" },
      post_processor: null,
      decoder: { type: "WordPiece", prefix: "##", cleanup: false },
      model: {
        type: "WordPiece",
        unk_token: "[UNK]",
        continuing_subword_prefix: "##",
        max_input_chars_per_word: 100,
        vocab: { "[UNK]": 0, dog: 1, ",": 2, is: 3, "n't": 4, ".": 5 },
      },
    };
    const ids = [1, 2, 3, 4, 5];
    const clean = await loadTokenizer(directoryOf("clean", rules, { clean_up_tokenization_spaces: true }));
    const plain = await loadTokenizer(directoryOf("plain", rules, {}));
    expect(clean.encode("dog , is n't .")).toEqual(ids);
    expect(clean.decode(ids)).toBe("dog, isn't.");
    expect(plain.decode(ids)).toBe("dog , is n't .");
    expect(plain.pieces(ids)).toEqual(["dog", " ,", " is", " n't", " ."]);
  });
});

describeWith(goldenNla, "the golden tokenizers of the reference's models", () => {
  it.each(["qwen2", "gemma3", "llama"])("%s: the actor's prompt", async (family) => {
    const tokenizer = await loadTokenizer(path.join(goldenNla as string, "actor", family, "av"));
    expect(tokenizer.chatTemplate).not.toBeNull();
    const text = tokenizer.renderChat([{ role: "user", content: "one  two" }], { addGenerationPrompt: true });
    expect(text).toContain("one  two");
    // A rendered prompt names its special tokens, and they come back whole.
    expect(tokenizer.decode(tokenizer.encode(text), { skipSpecialTokens: false })).toBe(text);
  });
});

describeWith(goldenNla, "the texts of the golden pipelines", () => {
  const pipelines = [
    ["pipeline", "tiny-qwen2"],
    ["pipeline-gemma3", "tiny-gemma3"],
    ["pipeline-llama", "tiny-llama"],
  ] as const;

  it.each(pipelines)(
    "%s: the text before each position, cut characters and clean-up included",
    async (run, model) => {
      const folder = path.join(goldenNla as string, run);
      const tokenizer = await loadTokenizer(path.join(folder, model));
      const documents = readJson<{ doc_id: string; token_ids: number[] }[]>(
        path.join(folder, "documents.json"),
      );
      const idsOfDocument = new Map(documents.map(({ doc_id, token_ids }) => [doc_id, token_ids]));
      const instance = await DuckDBInstance.create(":memory:");
      const connection = await instance.connect();
      const reader = await connection.runAndReadAll(
        "SELECT doc_id, n_raw_tokens::INT, detokenized_text_truncated FROM read_parquet($1)",
        [path.join(folder, "out", "base.parquet")],
      );
      const rows = reader.getRows() as [string, number, string][];
      connection.closeSync();
      expect(rows.length).toBeGreaterThan(50);
      for (const [documentId, length, text] of rows) {
        const ids = (idsOfDocument.get(documentId) as number[]).slice(0, length);
        expect(tokenizer.decode(ids), `${documentId} ${length}`).toBe(text);
      }
    },
  );
});

const roundTrip = async (): Promise<{
  before: Tokenizer;
  after: Tokenizer;
  id: number;
  directory: string;
}> => {
  const before = await loadTokenizer(bundled);
  const { tokenizer, id } = before.withAddedToken("<vector>");
  const directory = path.join(scratch, "added");
  await tokenizer.save(directory);
  return { before, after: await loadTokenizer(directory), id, directory };
};

describe("an added token", () => {
  it("takes the next id, is found in a text, and survives saving", async () => {
    const { before, after, id, directory } = await roundTrip();
    expect([id, before.size, after.size]).toEqual([512, 512, 513]);
    const ids = after.encode("one <vector> two", { addSpecialTokens: true });
    expect(ids.filter((one) => one === id)).toEqual([id]);
    expect(before.encode("one <vector> two")).not.toContain(id);
    expect(after.decode(ids)).not.toContain("<vector>");
    expect(after.decode(ids, { skipSpecialTokens: false })).toContain("<vector>");
    expect([...after.allSpecialIds]).toEqual([...before.allSpecialIds]);
    const config = readJson<{ added_tokens_decoder: Record<string, { content: string; special: boolean }> }>(
      path.join(directory, "tokenizer_config.json"),
    );
    expect(config.added_tokens_decoder["512"]).toMatchObject({ content: "<vector>", special: true });
    expect(Object.keys(config.added_tokens_decoder)).toEqual(["0", "1", "2", "512"]);
  });

  it("leaves every other encoding as it was", async () => {
    const { before, after } = await roundTrip();
    for (const text of ["Once upon a time", "", "  two  blanks", "naïve 🦊"]) {
      expect(after.encode(text, { addSpecialTokens: true })).toEqual(
        before.encode(text, { addSpecialTokens: true }),
      );
    }
  });

  it("is refused when it is empty, there already, or would get another id in Python", async () => {
    const tokenizer = await loadTokenizer(bundled);
    expect(() => tokenizer.withAddedToken("")).toThrow(/no characters/);
    expect(() => tokenizer.withAddedToken("<s>")).toThrow(/the same token at id 1/);
    const rules = {
      added_tokens: [],
      decoder: null,
      post_processor: null,
      model: { type: "BPE", vocab: { a: 0, b: 7 }, merges: [] },
    };
    const holes = await loadTokenizer(directoryOf("holes", rules, {}));
    expect(() => holes.withAddedToken("<v>")).toThrow(
      /a vocabulary with holes: its next id is 2, its size 8/,
    );
  });
});

const storyRules = (): object => readJson<object>(path.join(bundled, "tokenizer.json"));

describe("chat templates of a directory", () => {
  const base = { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>" };
  const user = [{ role: "user", content: "hi" }];

  it("come from the file first, then the config, and are saved as a file", async () => {
    const directory = directoryOf("template-both", storyRules(), { ...base, chat_template: "config" });
    expect((await loadTokenizer(directory)).renderChat(user)).toBe("config");
    writeFileSync(path.join(directory, "chat_template.jinja"), "{{ bos_token }}{{ messages[0].content }}");
    const tokenizer = await loadTokenizer(directory);
    expect(tokenizer.renderChat(user)).toBe("<s>hi");
    const saved = path.join(scratch, "template-saved");
    await tokenizer.save(saved);
    expect(readJson<object>(path.join(saved, "tokenizer_config.json"))).not.toHaveProperty("chat_template");
    expect((await loadTokenizer(saved)).renderChat(user)).toBe("<s>hi");
  });

  it("may be a list of named ones", async () => {
    const named = [
      { name: "tool_use", template: "tools" },
      { name: "default", template: "plain" },
    ];
    const tokenizer = await loadTokenizer(
      directoryOf("template-list", storyRules(), { ...base, chat_template: named }),
    );
    expect(tokenizer.renderChat(user)).toBe("plain");
    const saved = path.join(scratch, "template-list-saved");
    await tokenizer.save(saved);
    expect((await loadTokenizer(saved)).renderChat(user)).toBe("plain");
    const other = [...named.slice(0, 1), { name: "rag", template: "r" }];
    const none = await loadTokenizer(
      directoryOf("template-no-default", storyRules(), { ...base, chat_template: other }),
    );
    expect(() => none.renderChat(user)).toThrow(/templates named tool_use, rag, none of them "default"/);
  });

  it("are missing in a model without one", async () => {
    const tokenizer = await loadTokenizer(bundled);
    expect(tokenizer.chatTemplate).toBeNull();
    expect(() => tokenizer.renderChat(user)).toThrow(
      /chat template of .*found none; wanted chat_template\.jinja/,
    );
  });

  it("take the date of the load, and another by option", async () => {
    const directory = directoryOf("template-date", storyRules(), {
      ...base,
      chat_template: "{{ strftime_now('%d %b %Y') }}",
    });
    const tokenizer = await loadTokenizer(directory, { date: "2024-07-26" });
    expect(tokenizer.renderChat(user)).toBe("26 Jul 2024");
    expect(tokenizer.renderChat(user, { date: "2025-01-02" })).toBe("02 Jan 2025");
    expect(tokenizer.withAddedToken("<v>").tokenizer.renderChat(user)).toBe("26 Jul 2024");
    const unpinned = await loadTokenizer(directory);
    expect(() => unpinned.renderChat(user)).toThrow(/strftime_now\("%d %b %Y"\) and no date/);
  });
});
