// Broken tokenizer directories: each ends in an error that says what is wrong with which file.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import { loadTokenizer } from "./tokenizer.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-tokenizer-files-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
let made = 0;

const sound = {
  added_tokens: [{ id: 2, content: "<s>", special: true }],
  model: { type: "BPE", vocab: { a: 0, b: 1 }, merges: [] },
};

function directoryOf(files: Record<string, string | Uint8Array | object>): string {
  const directory = path.join(scratch, String(made++));
  mkdirSync(directory);
  for (const [name, content] of Object.entries(files)) {
    const plain = typeof content === "string" || content instanceof Uint8Array;
    writeFileSync(path.join(directory, name), plain ? content : JSON.stringify(content));
  }
  return directory;
}

async function failure(directory: string): Promise<NlaError> {
  try {
    await loadTokenizer(directory);
  } catch (error) {
    if (error instanceof NlaError) return error;
    throw error;
  }
  throw new Error("it loaded");
}

const broken: [string, Record<string, string | Uint8Array | object>, string, RegExp][] = [
  ["no tokenizer.json", {}, "tokenizer.missing", /tokenizer\.json: found no such file/],
  [
    "text that is not JSON",
    { "tokenizer.json": "version https://git-lfs" },
    "tokenizer.json",
    /wanted a JSON object/,
  ],
  ["a truncated file", { "tokenizer.json": JSON.stringify(sound).slice(0, 60) }, "tokenizer.json", /JSON/],
  ["a JSON list", { "tokenizer.json": "[1]" }, "tokenizer.json", /found a list/],
  [
    "bytes that are not UTF-8",
    { "tokenizer.json": Uint8Array.of(0x7b, 0xff) },
    "tokenizer.json",
    /not UTF-8/,
  ],
  ["no model", { "tokenizer.json": { added_tokens: [] } }, "tokenizer.json", /"model" is absent/],
  [
    "an unknown model type",
    { "tokenizer.json": { ...sound, model: { type: "PieceLevel", vocab: { a: 0 } } } },
    "tokenizer.model_unknown",
    /model type "PieceLevel"; wanted BPE, Unigram, WordPiece, WordLevel/,
  ],
  [
    "an empty vocabulary",
    { "tokenizer.json": { ...sound, model: { type: "BPE", vocab: {}, merges: [] } } },
    "tokenizer.vocabulary",
    /no vocabulary/,
  ],
  ...[-1, 1.5, 1e12, "7"].map((id): [string, Record<string, object>, string, RegExp] => [
    `the id ${JSON.stringify(id)}`,
    { "tokenizer.json": { ...sound, model: { type: "BPE", vocab: { a: id }, merges: [] } } },
    "tokenizer.vocabulary",
    /wanted whole numbers/,
  ]),
  [
    "one id for two tokens",
    { "tokenizer.json": { ...sound, model: { type: "BPE", vocab: { a: 1, b: 1 }, merges: [] } } },
    "tokenizer.vocabulary",
    /id 1 for both "a" and "b"/,
  ],
  [
    "an added token on the id of another",
    { "tokenizer.json": { ...sound, added_tokens: [{ id: 1, content: "<s>", special: true }] } },
    "tokenizer.vocabulary",
    /id 1 for both "b" and "<s>"/,
  ],
  [
    "an added token without content",
    { "tokenizer.json": { ...sound, added_tokens: [{ id: 2 }] } },
    "tokenizer.vocabulary",
    /added token/,
  ],
  [
    "a flag that cannot be kept",
    { "tokenizer.json": { ...sound, added_tokens: [{ id: 2, content: "x", single_word: true }] } },
    "tokenizer.single_word",
    /single_word true/,
  ],
  [
    "merges that are no pairs",
    { "tokenizer.json": { ...sound, model: { ...sound.model, merges: [7] } } },
    "tokenizer.unusable",
    /wanted rules/,
  ],
  [
    "an unknown pre-tokenizer",
    { "tokenizer.json": { ...sound, pre_tokenizer: { type: "Magic" } } },
    "tokenizer.unusable",
    /Magic/,
  ],
  [
    "an unknown decoder",
    { "tokenizer.json": { ...sound, decoder: { type: "Magic" } } },
    "tokenizer.decoder",
    /Magic/,
  ],
  [
    "a config of another model",
    { "tokenizer.json": sound, "tokenizer_config.json": { eos_token: "<|im_end|>" } },
    "tokenizer.special_missing",
    /"<\|im_end\|>", which tokenizer\.json does not have/,
  ],
  [
    "a config that is not JSON",
    { "tokenizer.json": sound, "tokenizer_config.json": "<html>" },
    "tokenizer.json",
    /tokenizer_config\.json/,
  ],
];

describe("a broken tokenizer directory", () => {
  it.each(broken)("%s", async (_, files, code, message) => {
    const error = await failure(directoryOf(files));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.next).not.toBe("");
  });

  it("that does not exist, or is a file", async () => {
    expect((await failure(path.join(scratch, "nowhere"))).code).toBe("tokenizer.missing");
    const file = path.join(directoryOf({ "tokenizer.json": sound }), "tokenizer.json");
    expect((await failure(file)).code).toBe("tokenizer.unreadable");
  });
});

describe("where tokens are named", () => {
  it("a named token that is only in the vocabulary becomes a special one", async () => {
    const tokenizer = await loadTokenizer(
      directoryOf({
        "tokenizer.json": {
          model: { type: "BPE", vocab: { a: 0, "<e>": 1, "<": 2, e: 3, ">": 4 }, merges: [] },
        },
        "tokenizer_config.json": { eos_token: { content: "<e>" } },
      }),
    );
    expect(tokenizer.encode("a<e>")).toEqual([0, 1]);
    expect(tokenizer.decode([0, 1])).toBe("a");
    expect([tokenizer.eosId, tokenizer.size]).toEqual([1, 5]);
  });

  it("the config overrides the flags of tokenizer.json and may add tokens; the map file fills gaps", async () => {
    const tokenizer = await loadTokenizer(
      directoryOf({
        "tokenizer.json": sound,
        "tokenizer_config.json": {
          bos_token: "<s>",
          added_tokens_decoder: {
            "2": { content: "<s>", special: true, rstrip: true },
            "3": { content: "<t>" },
          },
        },
        "special_tokens_map.json": { bos_token: "b", pad_token: "a", additional_special_tokens: ["<t>"] },
      }),
    );
    expect(tokenizer.encode("<s> a<t>")).toEqual([2, 0, 3]);
    expect([tokenizer.bosId, tokenizer.padId, tokenizer.size]).toEqual([2, 0, 4]);
    expect([...tokenizer.allSpecialIds]).toEqual([2, 0, 3]);
  });
});

describe("saving", () => {
  it("leaves no file of the tokenizer that was there before", async () => {
    const target = directoryOf({
      "chat_template.jinja": "old",
      "special_tokens_map.json": { pad_token: "a" },
    });
    const source = directoryOf({ "tokenizer.json": sound, "tokenizer_config.json": { bos_token: "<s>" } });
    await (await loadTokenizer(source)).save(target);
    const saved = await loadTokenizer(target);
    expect([saved.chatTemplate, saved.padId, saved.bosId]).toEqual([null, null, 2]);
  });

  it("keeps the rules as they were read", async () => {
    const source = directoryOf({ "tokenizer.json": { ...sound, note: { kept: 0.1 } } });
    const target = path.join(scratch, "kept");
    await (await loadTokenizer(source)).save(target);
    const kept = JSON.parse(readFileSync(path.join(target, "tokenizer.json"), "utf8")) as object;
    expect(kept).toEqual({ ...sound, note: { kept: 0.1 } });
  });

  it("says why it failed", async () => {
    const source = directoryOf({ "tokenizer.json": sound });
    const tokenizer = await loadTokenizer(source);
    await expect(tokenizer.save(path.join(source, "tokenizer.json", "below-a-file"))).rejects.toMatchObject({
      code: "tokenizer.write",
    });
  });
});
