// `nla forward` against the golden values of a Llama, and what it refuses.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { openSafetensors } from "../data/safetensors.js";
import { runNla } from "./testing/run-nla.js";

const golden = sharedPath("golden/models/llama3-gqa");
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-forward-"));
});
afterAll(() => rm(folder, { recursive: true }));

const forward = (...args: string[]) => runNla(["forward", ...args, "--threads", "1"]);

async function tensorsOf(
  file: string,
): Promise<Map<string, { shape: readonly number[]; values: Float32Array }>> {
  const weights = await openSafetensors(file);
  try {
    const tensors = new Map<string, { shape: readonly number[]; values: Float32Array }>();
    for (const [name, { shape, dtype }] of weights.entries) {
      expect(dtype).toBe("F32");
      tensors.set(name, { shape, values: await weights.readF32(name) });
    }
    return tensors;
  } finally {
    await weights.close();
  }
}

describeWith(golden, "nla forward", () => {
  it("writes what the golden file has, packed and named as there, to 1e-5", async () => {
    const { sequences } = JSON.parse(await readFile(path.join(golden as string, "golden.json"), "utf8")) as {
      sequences: number[][];
    };
    const ids = path.join(folder, "ids.json");
    await writeFile(ids, JSON.stringify(sequences));
    const file = path.join(folder, "golden.safetensors");
    const { code, out } = await forward(
      "--model",
      golden as string,
      "--ids",
      `@${ids}`,
      "--capture",
      "all",
      "--logits",
      "--out",
      file,
      "--json",
    );
    expect(code).toBe(0);
    const report = JSON.parse(out) as {
      lengths: number[];
      tensors: { name: string; shape: number[] }[];
      out: string;
    };
    expect(report.lengths).toEqual(sequences.map(({ length }) => length));
    expect(report.out).toBe(file);
    const ours = await tensorsOf(file);
    const theirs = await tensorsOf(path.join(golden as string, "golden.safetensors"));
    const names = [...theirs.keys()].filter((name) => name === "logits" || name.startsWith("hidden."));
    // The small copy of the golden folder holds only some of them.
    const all = ["hidden.embed", "hidden.block0", "hidden.block1", "hidden.block2", "hidden.norm", "logits"];
    expect([...ours.keys()].toSorted()).toEqual(all.toSorted());
    expect(report.tensors.map(({ name }) => name).toSorted()).toEqual(all.toSorted());
    expect(names.length).toBeGreaterThan(0);
    expect(all).toEqual(expect.arrayContaining(names));
    for (const name of names) {
      const a = ours.get(name)!;
      const b = theirs.get(name)!;
      expect(a.shape, name).toEqual(b.shape);
      let difference = 0;
      let norm = 0;
      b.values.forEach((value, i) => {
        difference += (value - a.values[i]!) ** 2;
        norm += value ** 2;
      });
      expect(Math.sqrt(difference / norm), name).toBeLessThan(1e-5);
    }
  });
});

describe("nla forward with the bundled model", () => {
  it("captures chosen blocks only, and takes one sequence as a plain list", async () => {
    const file = path.join(folder, "blocks.safetensors");
    const { code, out } = await forward(
      "--model",
      "aidreams260K",
      "--ids",
      "[1, 403, 407]",
      "--capture",
      "2,0",
      "--out",
      file,
    );
    expect(code).toBe(0);
    expect(out).toContain("hidden.block0 [3, 64]");
    const tensors = await tensorsOf(file);
    expect([...tensors].map(([name, { shape }]) => [name, shape]).sort()).toEqual([
      ["hidden.block0", [3, 64]],
      ["hidden.block2", [3, 64]],
    ]);
  });

  it.each([
    ["nothing to write", [], "[[1]]", "forward.nothing", 2, "neither"],
    ["text for ids", ["--logits"], "one", "forward.ids", 2, "JSON"],
    ["an object", ["--logits"], '{"ids": [1]}', "forward.ids", 2, "a object"],
    ["no sequence", ["--logits"], "[]", "forward.ids", 2, "no sequence"],
    ["half an id", ["--logits"], "[[1, 1.5]]", "forward.ids", 2, "1.5 at token 1 of sequence 0"],
    ["a negative id", ["--logits"], "[[1], [-1]]", "forward.ids", 2, "-1 at token 0 of sequence 1"],
    ["a list within a list of numbers", ["--logits"], "[1, [2]]", "forward.ids", 2, "1 for sequence 0"],
    ["a file that is not there", ["--logits"], "@/nowhere.json", "forward.ids", 2, "ENOENT"],
    ["an empty sequence", ["--logits"], "[[1], []]", "model.batch", 1, "0 tokens"],
    [
      "more tokens than the context",
      ["--logits"],
      JSON.stringify([Array.from({ length: 129 }, () => 1)]),
      "model.batch",
      1,
      "129 tokens",
    ],
    ["an id beyond the vocabulary", ["--logits"], "[[1, 512]]", "tensor.index", 1, "512"],
    ["a layer that does not exist", ["--capture", "4"], "[[1]]", "model.layer", 1, "a model of 4 blocks"],
    ["a block by name", ["--capture", "last"], "[[1]]", "cli.option", 2, '"last"'],
  ])("refuses %s", async (_, flags, ids, code, exit, found) => {
    const file = path.join(folder, "no.safetensors");
    const result = await forward("--model", "aidreams260K", "--ids", ids, "--out", file, ...flags, "--json");
    expect(result.code).toBe(exit);
    const { error } = JSON.parse(result.out) as { error: Record<string, string> };
    expect(error["code"]).toBe(code);
    expect(error["found"]).toContain(found);
    await expect(readFile(file)).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("refuses a model that is not there", async () => {
    const { code, err } = await forward(
      "--model",
      path.join(folder, "none"),
      "--ids",
      "[[1]]",
      "--logits",
      "--out",
      path.join(folder, "x"),
    );
    expect(code).toBe(1);
    expect(err).toContain("none");
  });
});
