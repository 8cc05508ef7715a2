// Warm-start rows of the verbalizer against the reference's, for three families and both mask types.
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import { fillTemplate, INJECTION_PLACEHOLDER, parseTemplate } from "../nla/template.js";
import { promptIds, responseEndIds } from "../nla/prompt-ids.js";
import { loadTokenizer } from "../text/tokenizer.js";
import { verbalizerRow, type LossMaskType } from "./av-rows.js";

const file = sharedPath("golden/nla/train/av_sft_rows.json");
const actors = sharedPath("golden/nla/actor");
const plain = sharedPath("assets/models/aidreams260K/hf");

interface Row {
  response: string;
  token_ids: number[];
  response_length: number;
  loss_mask: number[];
}
interface Sidecar {
  tokens: { injection_char: string };
  prompt_templates: { actor: string };
}

describe.skipIf(file === null || actors === null)("verbalizer rows equal the reference's", () => {
  const golden = JSON.parse(readFileSync(file as string, "utf8")) as Record<string, { ok?: Row[]; error?: unknown }>;
  const names = Object.keys(golden).filter((name) => name !== "note");

  it("covers three families, two types each", () => expect(names.length).toBe(6));

  it.each(names)("%s", async (name) => {
    const [family, type] = name.split(" ") as [string, LossMaskType];
    const directory = path.join(actors as string, family, "av");
    const sidecar = parse(readFileSync(path.join(directory, "nla_meta.yaml"), "utf8")) as Sidecar;
    const template = parseTemplate(sidecar.prompt_templates.actor, INJECTION_PLACEHOLDER);
    const content = fillTemplate(template, sidecar.tokens.injection_char);
    const tokenizer = await loadTokenizer(directory);
    const rowOf = (response: string) => verbalizerRow(tokenizer, content, response, { lossMaskType: type });
    const { ok } = golden[name]!;
    if (ok === undefined) return expect(() => rowOf("x")).toThrow(NlaError);
    expect(ok.length).toBe(5);
    for (const { response, token_ids, response_length, loss_mask } of ok) {
      const row = rowOf(response);
      expect(row.tokenIds).toEqual(token_ids);
      expect(row.responseLength).toBe(response_length);
      expect(row.lossMask).toEqual(loss_mask);
    }
  });

  it("refuses a row beyond the limit, and a response that merges with the header", async () => {
    const tokenizer = await loadTokenizer(path.join(actors as string, "qwen2/av"));
    expect(() => verbalizerRow(tokenizer, "a", "b", { maxLength: 3 })).toThrow(/of prompt, 3 of response\); wanted at most 3/);
    expect(responseEndIds(tokenizer, "a")).toEqual([1098, 198]);
    const headerEnd = tokenizer.encode("<|im_start|>assistant\n").length;
    expect(tokenizer.encode("<|im_start|>assistant\n\n\nx").length).toBe(0 * headerEnd);
  });
});

describe.skipIf(plain === null)("verbalizer rows without a chat template", () => {
  it("are BOS, prompt, response and end token", async () => {
    const tokenizer = await loadTokenizer(plain as string);
    const row = verbalizerRow(tokenizer, "Read this:", "Now: whispers\n");
    expect(row.tokenIds[0]).toBe(tokenizer.bosId);
    expect(row.tokenIds.at(-1)).toBe(tokenizer.eosId);
    expect(row.tokenIds.slice(0, -row.responseLength)).toEqual(promptIds(tokenizer, "Read this:"));
    expect(tokenizer.decode(row.tokenIds.slice(-row.responseLength))).toBe("Now: whispers\n");
    expect(verbalizerRow(tokenizer, "Read this:", "x", { lossMaskType: "qwen" })).toEqual(
      verbalizerRow(tokenizer, "Read this:", "x"),
    );
  });
});
