// The world's tokenizer folder, loaded by the project's own tokenizer: one id per word, there and back, unknown words as one token.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { chooseMarker } from "../nla/start.js";
import { loadTokenizer } from "../text/tokenizer.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { Chooser } from "./chooser.js";
import { documentsOf } from "./documents.js";
import { labelAt } from "./labels.js";
import { writeWorldTokenizer } from "./tokenizer-folder.js";
import { worldVocabulary } from "./vocabulary.js";

const vocabulary = worldVocabulary();
let folder: string;
let tokenizer: Tokenizer;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "nla-world-"));
  await writeWorldTokenizer(folder);
  tokenizer = await loadTokenizer(folder);
});
afterAll(() => rm(folder, { recursive: true }));

it("has one id per token of documents and labels, and gives the text back", () => {
  for (const document of documentsOf({ seed: 31, count: 100 })) {
    const ids = tokenizer.encode(document.words.join(" "));
    expect(ids).toEqual(document.words.map((word) => vocabulary.indexOf(word)));
    expect(tokenizer.decode(ids)).toBe(document.words.join(" "));
    const label = labelAt(document, 20, new Chooser(1));
    expect(tokenizer.encode(label)).not.toContain(tokenizer.unkId);
    expect(tokenizer.decode(tokenizer.encode(label))).toBe(label);
  }
});

it("knows its special tokens, and the injection marker from the start", () => {
  const { size, padId, bosId, eosId, unkId } = tokenizer;
  expect([size, padId, bosId, eosId, unkId]).toEqual([vocabulary.length, 0, 1, 2, 3]);
  expect(chooseMarker(tokenizer)).toMatchObject({ char: "\u320e", added: false });
  expect(tokenizer.encode("the fox", { addSpecialTokens: true })[0]).toBe(bosId);
  expect(tokenizer.encode("<bos> \u320e <sep>")).toEqual([1, 4, 5]);
});

it("reads what people type", () => {
  const ids = tokenizer.encode("The fox (a zebra) slept, Mira.");
  expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe("the fox ( a <unk> ) slept , mira .");
});
