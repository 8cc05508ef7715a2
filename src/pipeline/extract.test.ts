// Extraction on the bundled model: what the rows hold, and that whatever cannot give activations ends in an error and no file.
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { openParquet } from "../data/parquet.js";
import { readDatasetSidecar } from "../data/sidecar.js";
import { activationsOf, loadTarget } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { Device } from "../tensor/index.js";
import { extractActivations } from "./extract.js";
import type { ExtractOptions } from "./extract.js";
import { openTrainingRows } from "./training-rows.js";
import type { Row } from "./training-rows.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-extract-"));
let device: Device;
let target: Target;
let next = 0;

beforeAll(async () => {
  device = Device.open({ threads: 1 });
  target = await loadTarget("aidreams260K", device);
});
afterAll(() => {
  target[Symbol.dispose]();
  device[Symbol.dispose]();
  rmSync(scratch, { recursive: true, force: true });
});

const STORY = "Once upon a time there was a little dog named Max. He liked to run in the big green park. ";

function corpusOf(documents: readonly (string | readonly { role: string; content: string }[])[]): string {
  const file = path.join(scratch, `corpus-${next++}.jsonl`);
  const lines = documents.map((each) =>
    JSON.stringify(typeof each === "string" ? { text: each } : { messages: each }),
  );
  writeFileSync(file, lines.join("\n"));
  return file;
}

const outFile = () => path.join(scratch, `base-${next++}.parquet`);

function extract(corpus: string, options: Partial<ExtractOptions> = {}) {
  return extractActivations({
    target,
    layer: 2,
    corpus: { path: corpus },
    positions: { minPosition: 5, perDocument: 4 },
    out: outFile(),
    ...options,
  });
}

async function rowsOf(file: string): Promise<Row[]> {
  using source = await openTrainingRows(file);
  return await source.rows(Array.from({ length: source.rowCount }, (_, i) => i));
}

describe("rows", () => {
  it("hold the state after the block at their position, whatever the batch", async () => {
    const documents = [
      STORY,
      "A cat sat. ".repeat(4),
      STORY.slice(30),
      "The sun was hot and the sea was blue.",
    ];
    const corpus = corpusOf(documents);
    const { file, rows } = await extract(corpus, { batchDocuments: 3 });
    const single = await extract(corpus, { batchDocuments: 1 });
    expect(rows).toBe(16);
    const [threes, ones] = [await rowsOf(file), await rowsOf(single.file)];
    for (const [i, row] of threes.entries()) {
      const text = documents[Number(row.docId.split(":").at(-1))] as string;
      const ids = target.tokenizer.encode(text, { addSpecialTokens: true });
      const [all] = (await activationsOf(target, 2, [ids])) as [Float32Array];
      const expected = all.slice(row.position * 64, (row.position + 1) * 64);
      expect(Math.max(...row.vector.map((value, k) => Math.abs(value - expected[k]!)))).toBeLessThan(1e-5);
      expect(row.text).toBe(target.tokenizer.decode(ids.slice(0, row.position + 1)));
      const { vector: _, ...others } = ones[i] as Row;
      expect(row).toMatchObject(others);
    }
  });

  it("are the same bytes a second time", async () => {
    const corpus = corpusOf([STORY, STORY.slice(20)]);
    const [a, b] = [await extract(corpus), await extract(corpus)];
    expect(await rowsOf(a.file)).toEqual(await rowsOf(b.file));
    const { datasetId } = await readDatasetSidecar(b.file);
    expect(a.datasetId).toBe(datasetId);
  });

  it("have the text behind the position in a column of their own, at the end, only if asked for", async () => {
    const documents = [STORY, `naïve café 🦊🦊 ${STORY}`];
    const corpus = corpusOf(documents);
    const { file } = await extract(corpus, { positions: { minPosition: 0, perDocument: 30 }, textAfter: 20 });
    const parquet = await openParquet(file);
    let seen = 0;
    for await (const chunk of parquet.chunks()) {
      const after = chunk.strings("text_after");
      const ids = chunk.strings("doc_id");
      for (const [row, before] of chunk.strings("detokenized_text_truncated").entries()) {
        const text = documents[Number(ids[row]?.split(":").at(-1))] as string;
        // A position inside a character leaves a replacement mark on both sides of the seam.
        if (!text.startsWith(before)) expect(before + after[row]).toContain("\uFFFD");
        else expect(after[row]).toBe(Array.from(text.slice(before.length)).slice(0, 20).join(""));
        seen++;
      }
    }
    expect(seen).toBe(60);
    parquet.close();
    expect(parquet.columns.map(({ name }) => name)).toEqual([
      "n_raw_tokens",
      "detokenized_text_truncated",
      "activation_vector",
      "activation_layer",
      "doc_id",
      "text_after",
    ]);
    const plain = await openParquet((await extract(corpus)).file);
    plain.close();
    expect(plain.columns.at(-1)?.name).toBe("doc_id");
  });

  it("can go without their text", async () => {
    const { file } = await extract(corpusOf([STORY]), { debugText: false });
    expect((await rowsOf(file)).every(({ text }) => text === null)).toBe(true);
    expect((await readDatasetSidecar(file)).keepDebugMetadata).toBe(false);
  });

  it("are counted, with the documents that give fewer or none", async () => {
    const progress: number[] = [];
    const { tokenizer } = target;
    const eight = tokenizer.decode(tokenizer.encode(STORY, { addSpecialTokens: true }).slice(0, 8));
    const { file, ...facts } = await extract(corpusOf([STORY, "Hi", eight, STORY]), {
      batchDocuments: 2,
      onProgress: ({ rows }) => progress.push(rows),
    });
    expect(facts).toMatchObject({
      documents: 4,
      documentsWithoutRows: 1,
      documentsWithFewerRows: 1,
      rows: 11,
    });
    expect(facts).toMatchObject({ layer: 2, width: 64, maxLength: 128 }); // the model's context, not 2048
    expect(progress.at(-1)).toBe(11);
    const { rowCount, extraction } = await readDatasetSidecar(file);
    expect(rowCount).toBe(11);
    expect([...extraction.corpusSlice]).toEqual([
      ["start", 0],
      ["length", 4],
    ]);
  });
});

const llama = sharedPath("golden/nla/pipeline-llama/tiny-llama");

describeWith(llama, "conversations", () => {
  it("are rendered through the chat template", async () => {
    using chat = await loadTarget(llama as string, device);
    const messages = [
      { role: "user", content: "Where did the army go in the winter of that year?" },
      { role: "assistant", content: "It went north along the river, and waited there for the spring." },
    ];
    const ids = chat.tokenizer.encode(chat.tokenizer.renderChat(messages));
    const { file } = await extract(corpusOf([messages]), { target: chat, layer: 1 });
    for (const { position, text } of await rowsOf(file)) {
      expect(text).toBe(chat.tokenizer.decode(ids.slice(0, position + 1)));
    }
  });
});

const refused = async (code: string, corpus: string, options: Partial<ExtractOptions> = {}) => {
  const out = outFile();
  await expect(extract(corpus, { out, ...options })).rejects.toMatchObject({ code });
  expect(existsSync(out)).toBe(false);
  expect(readdirSync(scratch).filter((name) => name.startsWith("."))).toEqual([]);
};

describe("what cannot give activations is refused, and no file is left", () => {
  it("an empty corpus", () => refused("corpus.empty", corpusOf([])));
  it("documents of one token", () => refused("extract.no-rows", corpusOf(["a", "b", "c"])));
  it("a layer that does not exist", () => refused("model.layer", corpusOf([STORY]), { layer: 4 }));
  it("a first position behind the context", () =>
    refused("extract.positions", corpusOf([STORY]), { positions: { minPosition: 128 } }));
  it("no position at all", () =>
    refused("extract.positions", corpusOf([STORY]), { positions: { perDocument: 0 } }));
  it("a conversation without a chat template", () =>
    refused("chat.missing", corpusOf([[{ role: "user", content: STORY }]])));

  it("weights that give NaN, with the document named", async () => {
    using model = target.model.copy();
    const weights = model.get("model.layers.1.mlp.down_proj.weight");
    weights.write(weights.readF32().fill(NaN));
    await refused("extract.not-finite", corpusOf([STORY]), { target: { ...target, model } });
    await expect(extract(corpusOf([STORY]), { target: { ...target, model } })).rejects.toThrow(
      /position \d+ of corpus-\d+:train:0: found NaN at index \d+ of the activation after block 2/,
    );
    // Before the block the state is sound.
    expect((await extract(corpusOf([STORY]), { target: { ...target, model }, layer: 0 })).rows).toBe(4);
  });

  it("a run that is stopped", async () => {
    const controller = new AbortController();
    const out = outFile();
    const run = extract(corpusOf(Array.from({ length: 40 }, () => STORY)), {
      out,
      batchDocuments: 1,
      signal: controller.signal,
      onProgress: ({ rows }) => rows >= 8 && controller.abort(new Error("stopped by hand")),
    });
    await expect(run).rejects.toThrow("stopped by hand");
    expect(existsSync(out)).toBe(false);
  });
});
