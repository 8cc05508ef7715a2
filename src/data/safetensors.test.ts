// Folders of shards: values, layout back byte for byte, and every way an index and its shards can disagree.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

import { describeWith, sharedPath } from "../../test/shared.js";
import { type TensorToWrite, openWeights, saveWeights, writeSafetensors } from "./safetensors.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nla-shards-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const sharded = sharedPath("golden/models/llama3-gqa");
const both = sharedPath("golden/nla/critic/qwen2/init-megatron");

function folder(name: string): string {
  const full = path.join(scratch, name);
  mkdirSync(full);
  return full;
}

async function tensorsOf(directory: string): Promise<TensorToWrite[]> {
  const weights = await openWeights(directory);
  const tensors: TensorToWrite[] = [];
  for (const { name, dtype, shape } of weights.entries.values()) {
    tensors.push({ name, dtype, shape, data: await weights.read(name) });
  }
  await weights.close();
  return tensors;
}

describeWith(sharded, "llama3-gqa in three shards", () => {
  it("has every tensor that its index lists, from the right shard", async () => {
    const weights = await openWeights(sharded as string);
    const index = JSON.parse(
      readFileSync(path.join(sharded as string, "model.safetensors.index.json"), "utf8"),
    ) as {
      metadata: { total_size: number };
      weight_map: Record<string, string>;
    };
    expect([...weights.entries.keys()].sort()).toEqual(Object.keys(index.weight_map).sort());
    const bytes = [...weights.entries.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);
    expect(bytes).toBe(index.metadata.total_size);
    expect((await weights.readF32("model.norm.weight")).length).toBe(48);
    await weights.close();
  });

  it("comes back byte for byte, shards and index, whatever the order of the tensors given", async () => {
    const out = folder("back");
    const weights = await openWeights(sharded as string);
    await weights.close();
    const tensors = await tensorsOf(sharded as string);
    await saveWeights(out, tensors.reverse(), { shards: weights.layout });
    const names = readdirSync(out).sort();
    expect(names.length).toBe(4);
    for (const name of names) {
      const same = readFileSync(path.join(out, name)).equals(
        readFileSync(path.join(sharded as string, name)),
      );
      expect([name, same]).toEqual([name, true]);
    }
  });

  it("becomes one file without a layout, with the same values", async () => {
    const out = folder("joined");
    await saveWeights(out, await tensorsOf(sharded as string));
    expect(readdirSync(out)).toEqual(["model.safetensors"]);
    const joined = await tensorsOf(out);
    const before = new Map((await tensorsOf(sharded as string)).map((tensor) => [tensor.name, tensor]));
    expect(joined.length).toBe(before.size);
    for (const tensor of joined) expect(tensor).toEqual(before.get(tensor.name));
  });

  it("refuses tensors that are not those of the layout", async () => {
    const weights = await openWeights(sharded as string);
    await weights.close();
    const tensors = await tensorsOf(sharded as string);
    await expect(
      saveWeights(folder("wrong"), tensors.slice(1), { shards: weights.layout }),
    ).rejects.toMatchObject({
      code: "safetensors.layout",
      next: expect.stringContaining(tensors[0]?.name ?? ""),
    });
  });

  it("says which shard is missing", async () => {
    const here = path.join(scratch, "gone");
    cpSync(sharded as string, here, { recursive: true });
    rmSync(path.join(here, "model-00002-of-00003.safetensors"));
    await expect(openWeights(here)).rejects.toMatchObject({
      code: "safetensors.shard-missing",
      found: expect.stringMatching(/model-00002-of-00003\.safetensors \(\d+ tensors\)/),
    });
  });
});

describeWith(both, "a folder with a single file and an index", () => {
  it("is the single file", async () => {
    const weights = await openWeights(both as string);
    expect(path.basename(weights.path)).toBe("model.safetensors");
    expect(weights.entries.has("lm_head.weight")).toBe(false);
    await weights.close();
  });
});

function byte(name: string): TensorToWrite {
  return { name, dtype: "U8", shape: [1], data: Uint8Array.of(1) };
}

async function indexed(name: string, index: unknown, shards: Record<string, string[]>): Promise<string> {
  const here = folder(name);
  const text = typeof index === "string" ? index : JSON.stringify(index);
  writeFileSync(path.join(here, "model.safetensors.index.json"), text);
  for (const [shard, names] of Object.entries(shards)) {
    await writeSafetensors(path.join(here, shard), names.map(byte));
  }
  return here;
}

describe("an index that does not fit its shards", () => {
  it.each<[string, string, unknown, Record<string, string[]>]>([
    [
      "lists-what-is-nowhere",
      "tensor-missing",
      { weight_map: { a: "1.safetensors", z: "1.safetensors" } },
      { "1.safetensors": ["a"] },
    ],
    [
      "wrong-shard",
      "tensor-missing",
      { weight_map: { a: "1.safetensors", b: "1.safetensors", c: "2.safetensors" } },
      { "1.safetensors": ["a"], "2.safetensors": ["b", "c"] },
    ],
    [
      "in-two-shards",
      "duplicate-name",
      { weight_map: { a: "1.safetensors", b: "2.safetensors" } },
      { "1.safetensors": ["a"], "2.safetensors": ["a", "b"] },
    ],
    ["not-json", "index", "{", {}],
    ["empty-map", "index", { weight_map: {} }, {}],
    ["null", "index", "null", {}],
    ["map-is-a-list", "index", { weight_map: ["a"] }, {}],
    ["leaves-the-folder", "shard-name", { weight_map: { a: "../1.safetensors" } }, {}],
    ["shard-is-a-number", "shard-name", { weight_map: { a: 1 } }, {}],
  ])("%s is safetensors.%s", async (name, code, index, shards) => {
    const here = await indexed(name, index, shards);
    await expect(openWeights(here)).rejects.toMatchObject({ code: `safetensors.${code}` });
  });

  it("an empty folder has no weights", async () => {
    await expect(openWeights(folder("empty"))).rejects.toMatchObject({ code: "safetensors.no-weights" });
  });
});
