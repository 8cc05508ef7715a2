// Training sets: what is put around labels in both formats, what a set keeps, and inputs that would train on the wrong thing.
// The reference's own files are in golden.test.ts.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { openParquet } from "../data/parquet.js";
import { readDatasetSidecar } from "../data/sidecar.js";
import { makeContract, reconstructorPrompt } from "../nla/contract.js";
import type { Contract, ContractDraft } from "../nla/contract.js";
import { chooseMarker } from "../nla/start.js";
import { targetDirectory } from "../nla/target.js";
import { loadTokenizer } from "../text/tokenizer.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { buildTrainingSet } from "./build.js";
import type { BuildOptions } from "./build.js";
import { writeTestRows } from "./testing/dataset.js";
import type { TestRows } from "./testing/dataset.js";
import { openTrainingRows } from "./training-rows.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-build-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let next = 0;
const file = (name: string) => path.join(scratch, `${name}-${next++}.parquet`);
let tokenizer: Tokenizer;
let plain: Contract;
let tags: Contract;

beforeAll(async () => {
  const chosen = chooseMarker(await loadTokenizer(targetDirectory("aidreams260K")));
  tokenizer = chosen.tokenizer;
  const draft: ContractDraft = {
    layer: 1,
    dim: 4,
    char: chosen.char,
    verbalizerTemplate: "({injection_char})",
    reconstructorTemplate: "{explanation}",
    injectionScale: 2,
    format: "plain",
  };
  plain = makeContract(draft, tokenizer);
  tags = makeContract(
    { ...draft, format: "tags", reconstructorTemplate: "Notes: <n>{explanation}</n> <v>" },
    tokenizer,
  );
});

async function built(
  rows: TestRows,
  options: Pick<BuildOptions, "set" | "contract"> & Partial<BuildOptions>,
) {
  const input = file("input");
  await writeTestRows(input, rows);
  const facts = await buildTrainingSet({ input, tokenizer, out: file(options.set), ...options });
  const parquet = await openParquet(facts.file);
  const columns = parquet.columns.map(({ name }) => name);
  const values: Record<string, unknown> = {};
  for await (const chunk of parquet.chunks()) Object.assign(values, chunk.values);
  parquet.close();
  return { facts, columns, values, sidecar: await readDatasetSidecar(facts.file) };
}

const label = (row: number) => ` Now: row ${row}\n`;

const broken = (row: number) => (row % 3 === 0 ? "a </explanation> b" : label(row));

describe("the tags format", () => {
  it("wraps stripped labels, and they read back the same from both sets", async () => {
    const av = await built({ rows: 30, label }, { set: "av_sft", contract: tags });
    expect((av.values["response"] as string[])[7]).toBe("<explanation>\nNow: row 7\n</explanation>");
    expect((av.values["prompt"] as unknown[])[7]).toEqual([{ role: "user", content: "(<INJECT>)" }]);
    const ar = await built({ rows: 30, label }, { set: "ar_sft", contract: tags });
    expect((ar.values["prompt"] as string[])[7]).toBe("Notes: <n>Now: row 7</n> <v>");
    for (const { facts } of [av, ar]) {
      using rows = await openTrainingRows(facts.file);
      expect((await rows.rows([7]))[0]).toMatchObject({
        label: "Now: row 7",
        text: "Text up to row 7",
        position: 57,
      });
    }
  });

  it("leaves out labels that would not come out of their tags again, and counts them", async () => {
    const { facts, values } = await built({ rows: 30, label: broken }, { set: "av_sft", contract: tags });
    expect(facts).toMatchObject({ rows: 20, dropped: 10 });
    expect((values["activation_vector"] as Float32Array).filter((_, i) => i % 4 === 0).slice(0, 4)).toEqual(
      Float32Array.from([1, 2, 4, 5]),
    );
    const all = built({ rows: 3, label: () => "</explanation>" }, { set: "av_sft", contract: tags });
    await expect(all).rejects.toMatchObject({ code: "build.none" });
  });

  it("states both prompts, the marker and the suffix in the sidecar", async () => {
    const { sidecar } = await built({ rows: 5, label }, { set: "ar_sft", contract: tags });
    expect(sidecar).toMatchObject({
      datasetId: "ar_sft_tests_L1_00000000",
      stage: "ar_sft",
      rowCount: 5,
      keepDebugMetadata: true,
      tokens: { injectionChar: tags.marker.char, injectionTokenId: 512, criticSuffixIds: tags.suffixIds },
      templates: { av: "({injection_char})", ar: "Notes: <n>{explanation}</n> <v>" },
      parentDatasets: ["base_tests_L1_00000000"],
      format: { kind: "tags", end: null },
      extensions: true,
    });
    const prompt = reconstructorPrompt(tags, tokenizer, "Now: row 1");
    expect(prompt.slice(-tags.suffixIds.length)).toEqual(tags.suffixIds);
  });
});

describe("the plain format", () => {
  it("keeps labels to the last blank", async () => {
    const av = await built({ rows: 5, label }, { set: "av_sft", contract: plain });
    expect((av.values["response"] as string[])[3]).toBe(" Now: row 3\n");
    const ar = await built({ rows: 5, label }, { set: "ar_sft", contract: plain });
    expect((ar.values["prompt"] as string[])[3]).toBe(" Now: row 3\n");
    for (const { facts } of [av, ar]) {
      using rows = await openTrainingRows(facts.file);
      expect((await rows.rows([3]))[0]?.label).toBe(" Now: row 3\n");
    }
    expect(av.sidecar.format).toEqual({ kind: "plain", end: 2 });
  });
});

const columnsOf = async (options: Pick<BuildOptions, "set"> & Partial<BuildOptions>, rows: TestRows) =>
  (await built(rows, { contract: plain, ...options })).columns;

describe("sets", () => {
  const text = "detokenized_text_truncated";
  const provenance = ["activation_vector", "n_raw_tokens", "activation_layer", "doc_id"];

  it("have the reference's columns; eval has its label as well", async () => {
    const labelled = { rows: 3, label };
    expect(await columnsOf({ set: "av_sft" }, labelled)).toEqual(["prompt", "response", ...provenance, text]);
    expect(await columnsOf({ set: "ar_sft" }, labelled)).toEqual(["prompt", ...provenance, text]);
    expect(await columnsOf({ set: "rl" }, { rows: 3 })).toEqual(["prompt", ...provenance, text]);
    expect(await columnsOf({ set: "rl" }, labelled)).toEqual(["prompt", ...provenance, text]);
    expect(await columnsOf({ set: "eval" }, { rows: 3 })).toEqual(["prompt", ...provenance, text]);
    expect(await columnsOf({ set: "eval" }, labelled)).toEqual([
      "prompt",
      ...provenance,
      text,
      "api_explanation",
    ]);
    expect(await columnsOf({ set: "rl", keepText: false }, { rows: 3 })).toEqual(["prompt", ...provenance]);
  });

  it("of held-out documents read like rl, under their own name", async () => {
    const { sidecar, facts } = await built({ rows: 3, label }, { set: "eval", contract: plain });
    expect(sidecar).toMatchObject({ stage: "rl", datasetId: "eval_tests_L1_00000000" });
    using rows = await openTrainingRows(facts.file);
    expect((await rows.rows([2]))[0]?.label).toBe(label(2));
  });
});

const refused = async (
  rows: TestRows,
  options: Pick<BuildOptions, "set"> & Partial<BuildOptions>,
  code: string,
) => {
  const out = file("refused");
  await expect(built(rows, { contract: plain, ...options, out })).rejects.toMatchObject({ code });
  expect(existsSync(out)).toBe(false);
};

describe("inputs are refused", () => {
  it("without labels where labels are trained on", () =>
    refused({ rows: 3 }, { set: "av_sft" }, "parquet.no-column"));
  it("without their text where it shall be kept", () =>
    refused({ rows: 3, without: ["detokenized_text_truncated"] }, { set: "rl" }, "parquet.no-column"));
  it("of another width than the contract", () =>
    refused({ rows: 3, width: 5 }, { set: "rl" }, "build.contract"));
  it("of another layer than the contract", () =>
    refused({ rows: 3, layer: 2 }, { set: "rl" }, "build.contract"));

  it("with rows of another layer than their sidecar says", async () => {
    const mixed = file("mixed");
    await writeTestRows(mixed, { rows: 3, layer: 2 });
    const { extraction } = await readDatasetSidecar(mixed);
    await refused(
      { rows: 3, layer: 2, sidecar: { extraction: { ...extraction, layerIndex: 1 } } },
      { set: "rl" },
      "build.contract",
    );
  });

  it("that are training sets already", async () => {
    const { facts } = await built({ rows: 3, label }, { set: "av_sft", contract: plain });
    const again = buildTrainingSet({
      input: facts.file,
      set: "rl",
      contract: plain,
      tokenizer,
      out: file("again"),
    });
    await expect(again).rejects.toMatchObject({ code: "data.stage" });
  });
});

const qwen = sharedPath("golden/nla/pipeline/tiny-qwen2");

describeWith(qwen, "a label that melts into the suffix", () => {
  // One of the reference's own refusals: full stops melt with the one at a label's end.
  it("stops the build, with the row named", async () => {
    const { char, tokenizer: pair } = chooseMarker(await loadTokenizer(qwen as string));
    const contract = makeContract(
      {
        layer: 1,
        dim: 4,
        char,
        verbalizerTemplate: "<v>{injection_char}</v>",
        reconstructorTemplate: "Notes: {explanation}....",
        injectionScale: 2,
        format: "tags",
      },
      pair,
    );
    const rows = { rows: 30, label: (row: number) => (row === 17 ? "what follows must fit it." : "no stop") };
    await expect(built(rows, { set: "ar_sft", contract, tokenizer: pair })).rejects.toMatchObject({
      code: "template.suffix-merged",
      subject: expect.stringContaining("row 17 (tests:train:1)") as string,
    });
  });
});
