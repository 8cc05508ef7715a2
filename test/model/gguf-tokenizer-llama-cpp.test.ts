// The tokenizers that we write into GGUF files, judged by llama.cpp's own library: the same ids for texts in many languages, the same
// chat template, the same ends. What differs is named: llama.cpp does not normalize to NFC.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Decoder, parseConfig, saveDecoder } from "../../src/model/index.js";
import { convertCheckpoint } from "../../src/nla/gguf-checkpoint.js";
import { targetDirectory } from "../../src/nla/target.js";
import { Device, sizeOf } from "../../src/tensor/index.js";
import { loadTokenizer } from "../../src/text/tokenizer.js";
import { TRIAL_TEXTS } from "../../src/text/trial-texts.js";
import { sharedPath } from "../shared.js";

const CHILD = path.resolve(import.meta.dirname, "llama/llama-cpp.mjs");
const actors = sharedPath("golden/nla/actor");
const vocabularies = sharedPath("assets/tokenizers");
const multilingual = sharedPath("assets/tokenizers/expected/multilingual_inputs.json");
const runnable = process.platform === "linux" && process.arch === "x64";
if (!runnable) console.log("skipped: no libllama for this platform");

interface Seen {
  readonly ids: readonly (readonly number[])[];
  readonly template: string | null;
  readonly named: Readonly<Record<string, number>>;
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "gguf-tokenizer-"));
});
afterAll(() => rm(folder, { recursive: true }));

function strings(value: unknown): string[] {
  if (typeof value === "string") return [value];
  return typeof value === "object" && value !== null ? Object.values(value).flatMap(strings) : [];
}

async function texts(): Promise<string[]> {
  const more = multilingual === null ? [] : strings(JSON.parse(await readFile(multilingual, "utf8")));
  // An empty text is no text for llama.cpp's function.
  return [...TRIAL_TEXTS, ...more].filter((text) => text !== "");
}

/** What both make of the texts: those for which ids differ, and what llama.cpp says of the file. */
async function compare(from: string, more: readonly string[] = []) {
  const file = path.join(folder, `${path.basename(path.dirname(from))}-${path.basename(from)}.gguf`);
  await convertCheckpoint(from, file);
  const own = await loadTokenizer(from);
  const all = [...(await texts()), ...more];
  const output = execFileSync(process.execPath, [CHILD, "texts", file, JSON.stringify(all)], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const seen = JSON.parse(output) as Seen;
  const differing = all.filter(
    (text, i) => JSON.stringify(own.encode(text, { addSpecialTokens: true })) !== JSON.stringify(seen.ids[i]),
  );
  return { own, seen, differing, count: all.length };
}

describe.skipIf(!runnable)("llama.cpp makes the same ids", () => {
  test("of a SentencePiece vocabulary with scores: the bundled target", async () => {
    const { differing, count, seen } = await compare(targetDirectory("aidreams260K"), ["<s>twice</s> ended"]);
    console.log(`aidreams260K: ${count - differing.length} of ${count} texts`);
    expect(differing).toEqual([]);
    expect(seen.named).toMatchObject({ bos: 1, eos: 2 });
  });

  test.skipIf(actors === null).each([
    ["llama", "<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"],
    ["qwen2", "<|im_start|>user\nHello<|im_end|>\n"],
  ])("of byte-level BPE: %s, and its chat template", async (family, chat) => {
    const { own, seen, differing, count } = await compare(path.join(actors as string, family, "av"), [chat]);
    console.log(`${family}: ${count - differing.length} of ${count} texts`);
    if (family === "qwen2") {
      expect(differing.length).toBeGreaterThan(0);
      for (const text of differing) expect(text.normalize("NFC")).not.toBe(text);
    } else expect(differing).toEqual([]);
    expect(seen.template).toBe(own.chatTemplate);
    expect(seen.named["eos"]).toBe(own.eosId);
  });

  test.skipIf(actors === null)("of merges over whole characters: Gemma's way", async () => {
    // The test tokenizer there has merges across newlines, which no released Gemma has; they go, with the tokens that they make.
    const from = path.join(folder, "gemma", "av");
    await cp(path.join(actors as string, "gemma3", "av"), from, { recursive: true });
    const file = path.join(from, "tokenizer.json");
    await rm(file, { force: true });
    const rules = JSON.parse(
      await readFile(path.join(actors as string, "gemma3", "av", "tokenizer.json"), "utf8"),
    ) as { model: { merges: [string, string][] } };
    rules.model.merges = rules.model.merges.filter((pair) => /^[^\n]+$|^\n+$/.test(pair.join("")));
    await writeFile(file, JSON.stringify(rules));
    // llama.cpp has one attention scale and one order of windows for Gemma; tokens do not depend on either.
    const configFile = path.join(from, "config.json");
    const config = JSON.parse(await readFile(configFile, "utf8")) as Record<string, unknown>;
    const layers = Array.from({ length: Number(config["num_hidden_layers"]) }, (_, k) =>
      k % 6 === 5 ? "full_attention" : "sliding_attention",
    );
    const scale = { query_pre_attn_scalar: config["head_dim"], layer_types: layers };
    await rm(configFile, { force: true });
    await writeFile(configFile, JSON.stringify({ ...config, ...scale }));
    const { seen, own, differing, count } = await compare(from);
    console.log(`gemma: ${count - differing.length} of ${count} texts`);
    expect(differing).toEqual([]);
    expect(seen.template).toBe(own.chatTemplate);
  });

  // The vocabularies of released models, on a model of one small block.
  test.skipIf(vocabularies === null).each([
    ["llama3.2", "tokenizer.assembled.json", "gpt2"],
    ["qwen2", "tokenizer.assembled.json", "gpt2"],
    ["llama2", "tokenizer.json", "llama"],
    ["gpt2", "tokenizer.json", "gpt2"],
  ])(
    "of the vocabulary of %s",
    async (name, tokenizer, kind) => {
      const from = path.join(folder, "released", name);
      await mkdir(from, { recursive: true });
      await copyFile(path.join(vocabularies as string, name, tokenizer), path.join(from, "tokenizer.json"));
      const config = path.join(vocabularies as string, name, "tokenizer_config.json");
      // Which token is BOS stands there; the assembled Llama 3 has none.
      if (existsSync(config)) await copyFile(config, path.join(from, "tokenizer_config.json"));
      const own = await loadTokenizer(from);
      const json = {
        model_type: "llama",
        hidden_size: 32,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        intermediate_size: 32,
        vocab_size: own.size,
        max_position_embeddings: 64,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
      };
      using device = Device.open({ threads: 1 });
      using model = new Decoder(
        device,
        parseConfig(json, "test"),
        (_, shape) => new Float32Array(sizeOf(shape)),
      );
      await saveDecoder(from, model, { dtype: "BF16" });
      const { seen, differing, count } = await compare(from);
      console.log(`${name} (${kind}): ${count - differing.length} of ${count} texts`);
      if (name === "qwen2") for (const text of differing) expect(text.normalize("NFC")).not.toBe(text);
      else expect(differing).toEqual([]);
      expect(seen.template).toBe(own.chatTemplate);
    },
    120_000,
  );
});
