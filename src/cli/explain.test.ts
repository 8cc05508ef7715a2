// `nla explain` with an untrained pair: the page, the JSON, and its errors.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { Device } from "../tensor/index.js";
import { UsageError } from "./output.js";
import { parsePositions, positionsIn } from "./positions.js";
import { displayWidth } from "./table.js";
import { runNla } from "./testing/run-nla.js";

const TEXT = "Once upon a time there was a dog.";
let folder: string;
let run: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-explain-"));
  run = path.join(folder, "run");
  using device = Device.open({ threads: 1 });
  await writeUntrainedPair(run, device);
});
afterAll(() => rm(folder, { recursive: true }));

const explain = (...args: string[]) =>
  runNla(["explain", ...args, "--threads", "1", "--max-new-tokens", "30"]);

interface ReadingJson {
  readonly model: string;
  readonly layer: number;
  readonly tokens: readonly Record<string, unknown>[];
}

async function positionsRead(...args: string[]): Promise<unknown[]> {
  const { out } = await explain(...args, "--nla", run, "--json");
  return (JSON.parse(out) as ReadingJson).tokens.map(({ position }) => position);
}

describe("nla explain --json", () => {
  it("gives exactly the documented keys", async () => {
    const { code, out, err } = await explain(TEXT, "--nla", run, "--json");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const reading = JSON.parse(out) as ReadingJson;
    expect(Object.keys(reading)).toEqual(["model", "layer", "tokens"]);
    expect(reading).toMatchObject({ model: "aidreams260K", layer: 2 });
    expect(reading.tokens.length).toBe(23);
    for (const token of reading.tokens) {
      expect(Object.keys(token)).toEqual([
        "position",
        "token",
        "token_id",
        "l2_norm",
        "description",
        "mse",
        "cosine_similarity",
      ]);
    }
    const read = reading.tokens.filter(({ description }) => description !== null);
    expect(read.length).toBeGreaterThan(5);
    for (const { mse, cosine_similarity } of read) {
      expect(mse).toBeCloseTo(2 * (1 - (cosine_similarity as number)), 4);
    }
  });

  it("reads what a range, a list and a file choose", async () => {
    const file = path.join(folder, "text.txt");
    await writeFile(file, TEXT);
    expect(await positionsRead("--file", file, "--positions", "2:5")).toEqual([2, 3, 4]);
    expect(await positionsRead(TEXT, "--positions", "3,5,-1")).toEqual([3, 5, 22]);
    expect(await positionsRead(TEXT, "--positions", "-1")).toEqual([22]);
    expect(await positionsRead(TEXT, "--positions", "-2:")).toEqual([21, 22]);
  });
});

describe("nla explain on a page", () => {
  it("is one plain line a token without a terminal", async () => {
    const { code, out } = await explain(TEXT, "--nla", run, "--positions", "1:7");
    expect(code).toBe(0);
    expect(out).not.toContain("\u001B");
    const lines = out.split("\n");
    expect(lines[0]).toContain("aidreams260K, output of block 2");
    expect(lines.filter((line) => /^ +\d+ {2}/.test(line)).length).toBe(6);
    expect(out).toMatch(/^ {3}1 {2}.* [░▏▎▍▌▋▊▉█]{8} +-?\d\.\d\d {2}\S/m);
    expect(out).toContain("Fidelity is the cosine");
  });

  it("fits the terminal's width, in colour unless that is not wanted", async () => {
    const args = [
      "explain",
      TEXT,
      "--nla",
      run,
      "--positions",
      "1:9",
      "--threads",
      "1",
      "--max-new-tokens",
      "60",
    ];
    const { out } = await runNla(args, { terminal: 60 });
    expect(out).toContain("\u001B[");
    const plain = await runNla(args, { terminal: 60, env: { NO_COLOR: "1" } });
    expect(plain.out).not.toContain("\u001B");
    const page = plain.out.split("\n").slice(2);
    for (const line of page) expect(displayWidth(line), line).toBeLessThanOrEqual(60);
    expect(page.length).toBeGreaterThan(12); // wrapped
  });

  it("says where there is no explanation", async () => {
    const { out } = await runNla([
      "explain",
      TEXT,
      "--nla",
      run,
      "--positions",
      "4",
      "--max-new-tokens",
      "1",
      "--threads",
      "1",
    ]);
    expect(out).toMatch(/ - +\(no explanation\)/);
  });
});

describe("nla explain refuses", () => {
  it.each([
    ["no text", [], "cli.text", 2, "no text"],
    ["a text and a file", [TEXT, "--file", "a.txt"], "cli.text", 2, "a text and --file"],
    ["an empty text", [""], "read.empty", 1, "nothing"],
    ["a file that is not there", ["--file", "/nowhere/a.txt"], "explain.file", 1, "ENOENT"],
    ["a text longer than the context", ["dog ".repeat(200)], "read.length", 1, "tokens"],
    ["a position that is not there", [TEXT, "--positions", "40"], "read.position", 1, "a text of 23 tokens"],
    ["words for positions", [TEXT, "--positions", "first"], "cli.option", 2, '"first"'],
    ["a range without tokens", [TEXT, "--positions", "9:9"], "cli.positions", 2, "no token"],
    ["a temperature below 0", [TEXT, "--temperature", "-1"], "cli.option", 2, '"-1"'],
    ["a model that is not there", [TEXT, "--model", "/nowhere"], "cli.target", 1, "/nowhere"],
  ])("%s", async (_, args, code, exit, found) => {
    const result = await explain(...args, "--nla", run, "--json");
    expect(result.code).toBe(exit);
    const { error } = JSON.parse(result.out) as { error: Record<string, string> };
    expect(error["code"]).toBe(code);
    expect(error["found"]).toContain(found);
    expect(error["wanted"]).not.toBe("");
    expect(error["next"]).not.toBe("");
  });

  it("a folder that holds no pair, in words", async () => {
    const { code, out, err } = await explain(TEXT, "--nla", folder);
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toContain("no folder verbalizer in it");
    expect(err).toContain("next");
  });

  it("a call without --nla", async () => {
    const { code, err } = await explain(TEXT);
    expect(code).toBe(2);
    expect(err).toContain("--nla");
  });
});

describe("positions", () => {
  it.each([
    ["0", 5, [0]],
    ["3, 1,-1", 5, [3, 1, -1]],
    ["1:3", 5, [1, 2]],
    [":2", 5, [0, 1]],
    ["3:", 5, [3, 4]],
    [":", 3, [0, 1, 2]],
    ["-2:", 5, [3, 4]],
    ["2:99", 5, [2, 3, 4]],
    ["-99:1", 5, [0]],
  ])("%s of %i tokens", (text, length, wanted) => {
    expect(positionsIn(parsePositions(text), length)).toEqual(wanted);
  });

  it.each(["", "1.5", "a", "1:2:3", "-:3", "1,,2", "1e3", "99999999999"])("%j are none", (text) => {
    expect(() => parsePositions(text)).toThrow(UsageError);
  });
});
