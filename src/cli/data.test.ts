// `nla data ...` from a text file to a shuffled training set, as a user would do it, and what it says to mistakes.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { dataCommand } from "./data.js";
import { runCli } from "./program.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-cli-data-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const at = (name: string) => path.join(scratch, name);

async function nla(...args: string[]) {
  let [out, err] = ["", ""];
  const code = await runCli(["data", ...args], [dataCommand], {
    version: "0",
    streams: {
      stdout: { write: (text) => (out += text), columns: 100 },
      stderr: { write: (text) => (err += text) },
      env: {},
    },
  });
  return { code, out, err };
}

interface Facts {
  readonly rows: number;
  readonly datasetId: string;
}

async function facts<T = Facts>(...args: string[]): Promise<T> {
  const { code, out, err } = await nla(...args, "--json");
  expect(code, out + err).toBe(0);
  return JSON.parse(out) as T;
}

const TEMPLATES = [
  "--verbalizer-template",
  "({injection_char})",
  "--reconstructor-template",
  "{explanation}",
];
const PLAIN = ["--model", "aidreams260K", ...TEMPLATES, "--format", "plain"];
const extractArgs = (corpus: string, out: string) => {
  const what = `extract --model aidreams260K --layer 2 --corpus ${corpus} --threads 1 --out ${out}`;
  return `${what} --cut paragraphs --per-document 5 --min-position 4 --text-after 40 --seed 7`.split(" ");
};
const story = (i: number) =>
  `One day dog number ${i} ran to the park.\nThe sun was hot and the dog was glad to be ${i}.`;

beforeAll(() => {
  writeFileSync(at("stories.txt"), Array.from({ length: 40 }, (_, i) => story(i)).join("\n\n"));
});

describe("the stages", () => {
  it("go from a text file to a shuffled training set", async () => {
    const base = await facts(...extractArgs(at("stories.txt"), at("new/base.parquet")));
    expect(base).toMatchObject({ rows: 200, documents: 40, layer: 2, width: 64 });
    const split = await facts<{ sets: Record<string, Facts> }>(
      "split",
      at("new/base.parquet"),
      "--out",
      at("splits"),
      "--eval",
      "0.1",
      "--rl",
      "0.42",
    );
    expect(Object.values(split.sets).reduce((sum, { rows }) => sum + rows, 0)).toBe(200);
    const label = await facts(
      "label",
      at("splits/av_sft_raw.parquet"),
      "--words-before",
      "3",
      "--words-after",
      "2",
      "--out",
      at("x.parquet"),
    );
    expect(label.rows).toBe(split.sets["av_sft"]?.rows);
    const build = await facts(
      "build",
      at("x.parquet"),
      "--set",
      "av_sft",
      ...PLAIN,
      "--out",
      at("av.parquet"),
    );
    expect(build.datasetId).toMatch(/^av_sft_aidreams260K_L2_[0-9a-f]{8}__av_sft_raw__explained$/);
    const shuffled = await facts("shuffle", at("av.parquet"), "--seed", "5", "--out", at("av_shuf.parquet"));
    expect(shuffled).toMatchObject({ rows: build.rows, datasetId: `${build.datasetId}__shuf5` });
  });

  it("can be looked at, as a table and as JSON", async () => {
    const { code, out } = await nla("show", at("av_shuf.parquet"), "--start", "3", "--rows", "2");
    expect(code).toBe(0);
    const lines = out.trimEnd().split("\n");
    expect(lines).toHaveLength(5);
    expect(lines[2]).toMatch(/^row  document +position +norm  text up to the position +label$/);
    expect(lines[3]).toMatch(/^ +3  stories:train:\d+ +\d+ +\d+\.?\d* .*Now: /);
    const shown = await facts<{
      rowCount: number;
      rows: { row: number; label: string; norm: number; text: string }[];
    }>("show", at("av_shuf.parquet"), "--start", "3", "--rows", "2");
    expect(shown.rows.map(({ row }) => row)).toEqual([3, 4]);
    const [first] = shown.rows;
    expect(first?.norm).toBeGreaterThan(0);
    // The label ends exactly where the text ends: at the position.
    expect(first?.text.endsWith(first.label.slice(first.label.indexOf("Now: ") + 5))).toBe(true);
    const past = await nla("show", at("av_shuf.parquet"), "--start", "100000");
    expect(past.code).toBe(1);
    expect(past.err).toMatch(/row 100000 as the first to show/);
  });

  it("give the same rows to the same command", async () => {
    const again = await facts(...extractArgs(at("stories.txt"), at("again.parquet")));
    const rows = async (file: string) =>
      (await facts<{ rows: unknown[] }>("show", file, "--rows", "200")).rows;
    expect(again.rows).toBe(200);
    expect(await rows(at("again.parquet"))).toEqual(await rows(at("new/base.parquet")));
  });
});

describe("help", () => {
  it.each(["extract", "split", "label", "build", "shuffle", "show"])(
    "of %s has an example",
    async (command) => {
      const { code, out } = await nla(command, "--help");
      expect(code).toBe(0);
      expect(out).toContain(`Examples:\n  nla data ${command} `);
      expect(out).toContain("--json");
    },
  );
});

describe("mistakes", () => {
  it.each([
    ["a share above 1", ["split", "base.parquet", "--rl", "1.5", "--out", "x"], /--rl.*found +"1.5"/s, 2],
    ["a cut that is none", [...extractArgs("a.txt", "b"), "--cut", "words"], /--cut/, 2],
    ["a set that is none", ["build", "a", "--set", "test", "--out", "b"], /av_sft/, 2],
    ["no prompts", ["build", "a", "--set", "rl", "--out", at("b")], /--pair, or --model/, 2],
    ["a missing file", ["show", "absent.parquet"], /wanted  a readable Parquet file/, 1],
  ])("%s", async (_, args, message, code) => {
    const ended = await nla(...args);
    expect(ended.err).toMatch(message);
    expect(ended.code).toBe(code);
  });

  it("in the data are one JSON object with --json, and leave no file", async () => {
    const args = extractArgs(at("stories.txt"), at("none.parquet"));
    args[args.indexOf("--layer") + 1] = "9";
    const { code, out } = await nla(...args, "--json");
    expect(code).toBe(1);
    expect(JSON.parse(out)).toMatchObject({ error: { code: "model.layer", wanted: "a layer from 0 to 3" } });
    expect(existsSync(at("none.parquet"))).toBe(false);
  });
});
