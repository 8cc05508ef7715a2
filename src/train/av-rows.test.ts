// Warm-start rows of the verbalizer against the reference's, for three families and both mask types.
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, it, onTestFinished } from "vitest";
import { parse } from "yaml";
import { describeWith, sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import { promptIds } from "../nla/contract.js";
import { INJECTION_PLACEHOLDER, parseTemplate } from "../nla/template.js";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.js";
import { responseEndIds } from "../nla/response-end.js";
import { verbalizerRow, type LossMaskType } from "./av-rows.js";

const file = sharedPath("golden/nla/train/av_sft_rows.json");
const actors = sharedPath("golden/nla/actor");
const plain = sharedPath("assets/models/aidreams260K/hf");
const qwen = sharedPath("assets/tokenizers/qwen2");

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

describeWith(file && actors, "verbalizer rows equal the reference's", () => {
  const golden = JSON.parse(readFileSync(file as string, "utf8")) as Record<
    string,
    { ok?: Row[]; error?: unknown }
  >;
  const names = Object.keys(golden).filter((name) => name !== "note");

  it("covers three families, two types each", () => expect(names.length).toBe(6));

  it.each(names)("%s", async (name) => {
    const [family, type] = name.split(" ") as [string, LossMaskType];
    const directory = path.join(actors as string, family, "av");
    const { tokens, prompt_templates } = parse(
      readFileSync(path.join(directory, "nla_meta.yaml"), "utf8"),
    ) as Sidecar;
    const tokenizer = await loadTokenizer(directory);
    const prompt = promptIds(
      parseTemplate(prompt_templates.actor, INJECTION_PLACEHOLDER),
      tokens.injection_char,
      tokenizer,
    );
    const rowOf = (response: string) => verbalizerRow(tokenizer, prompt, response, { lossMaskType: type });
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

  it("says how long a row is that is too long", async () => {
    const tokenizer = await loadTokenizer(path.join(actors as string, "qwen2/av"));
    expect(responseEndIds(tokenizer)).toEqual([1098, 198]);
    expect(() => verbalizerRow(tokenizer, [1, 2], "b", { maxLength: 4 })).toThrow(
      /5 tokens \(2 of prompt, 3 of response\); wanted at most 4/,
    );
  });
});

describeWith(qwen, "verbalizer rows in a vocabulary with merged line breaks", () => {
  it("refuse a response that merges with the header, unless tokenised apart", async () => {
    const tokenizer = await loadQwen(
      "{% for m in messages %}<|im_start|>{{ m.role + '\n' + m.content }}<|im_end|>{{ '\n' }}{% endfor %}" +
        "{% if add_generation_prompt %}<|im_start|>{{ 'assistant\n' }}{% endif %}",
    );
    const rowOf = (response: string, lossMaskType: LossMaskType) =>
      verbalizerRow(tokenizer, [1], response, { lossMaskType });
    expect(() => rowOf("\n\nnotes", "qwen")).toThrow(/does not begin with the 3 of its header/);
    expect(rowOf("\n\nnotes", "generic").responseLength).toBe(4);
    expect(rowOf("notes", "qwen")).toEqual(rowOf("notes", "generic"));
  });

  it("refuse the type qwen where the header stands in the user's turn, as in this model's own template", async () => {
    const tokenizer = await loadQwen(null);
    expect(() => verbalizerRow(tokenizer, [1], "notes", { lossMaskType: "qwen" })).toThrow(
      /without a header of its own/,
    );
    expect(verbalizerRow(tokenizer, [1], "notes").responseLength).toBe(3);
  });
});

describeWith(plain, "verbalizer rows without a chat template", () => {
  it("end with the end token, and decode to the response", async () => {
    const tokenizer = await loadTokenizer(plain as string);
    const row = verbalizerRow(tokenizer, [1, 300], "Now: whispers\n");
    expect(row.tokenIds.slice(0, 2)).toEqual([1, 300]);
    expect(row.tokenIds.at(-1)).toBe(tokenizer.eosId);
    expect(tokenizer.decode(row.tokenIds.slice(-row.responseLength))).toBe("Now: whispers\n");
    expect(verbalizerRow(tokenizer, [1], "x", { lossMaskType: "qwen" })).toEqual(
      verbalizerRow(tokenizer, [1], "x"),
    );
  });
});

// The real vocabulary; its rules lie there under another name than the loader's.
async function loadQwen(chatTemplate: string | null): Promise<Tokenizer> {
  const folder = mkdtempSync(path.join(tmpdir(), "nlakit-av-rows-"));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  copyFileSync(path.join(qwen as string, "tokenizer.assembled.json"), path.join(folder, "tokenizer.json"));
  copyFileSync(
    path.join(qwen as string, "tokenizer_config.json"),
    path.join(folder, "tokenizer_config.json"),
  );
  if (chatTemplate !== null) writeFileSync(path.join(folder, "chat_template.jinja"), chatTemplate);
  return loadTokenizer(folder);
}
