// `nla world`: what it prints for people and programs, the page, and what it says to bad input.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { worldDocument } from "../world/documents.js";
import { worldVocabulary } from "../world/vocabulary.js";
import { runNla } from "./testing/run-nla.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "nla-world-cli-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("nla world sample", () => {
  it("prints documents, wrapped to the terminal", async () => {
    const { code, out } = await runNla(["world", "sample", "--kind", "rhyme", "--count", "2"], {
      terminal: 40,
    });
    expect(code).toBe(0);
    const lines = out.split("\n");
    expect(lines.filter((line) => line.startsWith("rhyme "))).toHaveLength(2);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(40);
    expect(out.replaceAll(/\s+/g, " ")).toContain(worldDocument(1, 1, { kind: "rhyme" }).words.join(" "));
  });

  it("prints a line of JSON per document, from any index", async () => {
    const { out } = await runNla([
      "world",
      "sample",
      "--seed",
      "3",
      "--index",
      "7",
      "--count",
      "2",
      "--json",
    ]);
    const [first, second] = out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    const { words, facts, kind } = worldDocument(3, 7);
    expect(first).toMatchObject({ seed: 3, index: 7, kind, text: words.join(" "), facts });
    expect(second.index).toBe(8);
  });

  it.each([
    [["--kind", "novel"], /story, chat, log, exam, lesson, rhyme|story/],
    [["--count", "0"], /at least 1/],
    [["--seed", "-3"], /whole number/],
    [["--seed", "x"], /whole number/],
  ])("refuses %j", async (args, message) => {
    const { code, err } = await runNla(["world", "sample", ...args]);
    expect(code).toBe(2);
    expect(err).toMatch(message);
  });
});

describe("nla world vocabulary", () => {
  it("prints every word and how many they are", async () => {
    const { out } = await runNla(["world", "vocabulary"]);
    expect(out.split("\n\n")[0]!.split(/\s+/)).toEqual(worldVocabulary());
    expect(out).toContain(`${worldVocabulary().length} tokens`);
    const { out: json } = await runNla(["world", "vocabulary", "--json"]);
    expect(JSON.parse(json)).toEqual({ size: worldVocabulary().length, tokens: worldVocabulary() });
  });

  it("writes a tokenizer folder", async () => {
    const out = path.join(folder, "tokenizer");
    expect((await runNla(["world", "vocabulary", "--out", out])).code).toBe(0);
    const { model } = JSON.parse(await readFile(path.join(out, "tokenizer.json"), "utf8"));
    expect(Object.keys(model.vocab)).toEqual(worldVocabulary());
  });
});

describe("nla world entropy", () => {
  it("prints nats per token of every kind and of all", async () => {
    const { out } = await runNla(["world", "entropy", "--count", "2000"]);
    for (const kind of ["story", "chat", "log", "exam", "lesson", "rhyme", "all"])
      expect(out).toContain(kind);
    const { out: json } = await runNla(["world", "entropy", "--count", "2000", "--json"]);
    const { kinds, all } = JSON.parse(json);
    expect(all.documents).toBe(2000);
    expect(all.nats_per_token).toBeGreaterThan(0.43);
    expect(all.nats_per_token).toBeLessThan(0.5);
    const nats = kinds.reduce((sum: number, row: { tokens: number; nats_per_token: number }) => {
      return sum + row.tokens * row.nats_per_token;
    }, 0);
    expect(nats / all.tokens).toBeCloseTo(all.nats_per_token, 6);
  });
});

describe("nla world truth", () => {
  it("prints a line per token, and what becomes known where", async () => {
    const { code, out } = await runNla(["world", "truth", "--kind", "chat", "--index", "4"]);
    expect(code).toBe(0);
    const { words, facts } = worldDocument(1, 4, { kind: "chat" });
    const lines = out.split("\n");
    for (const [i, word] of words.entries()) {
      expect(lines[3 + i]!.trim().split(/\s+/).slice(0, 2)).toEqual([String(i), word]);
    }
    const side = facts.find(({ category }) => category === "test")!;
    expect(lines[3 + side.from]).toContain(`test ${side.value}`);
    expect(out).toMatch(/Known at the end: .*kind chat/);
  });

  it.each([40, 60, 80, 200])("keeps to a terminal of %i columns", async (terminal) => {
    for (const kind of ["story", "log", "exam"]) {
      const { out } = await runNla(["world", "truth", "--kind", kind], { terminal });
      expect(Math.max(...out.split("\n").map((line) => line.length))).toBeLessThanOrEqual(terminal);
    }
  });

  it("writes a page that stands alone", async () => {
    const file = path.join(folder, "pages", "chat.html");
    const { code, out } = await runNla(["world", "truth", "--kind", "chat", "--html", file]);
    expect(code).toBe(0);
    expect(out).toContain(file);
    const page = await readFile(file, "utf8");
    expect(page).toMatch(/^<!doctype html>/);
    expect(page).not.toMatch(/(src|href)=|https?:/);
    const { words } = worldDocument(1, 0, { kind: "chat" });
    expect(page.match(/class="w /g)).toHaveLength(words.length);
    const [, truths] = /const truths = (.*);/.exec(page) ?? [];
    expect(JSON.parse(truths as string)).toHaveLength(words.length);
  });

  it("refuses a file without a name, and says why a place cannot be written", async () => {
    expect((await runNla(["world", "truth", "--html", ""])).code).toBe(2);
    const { code, err } = await runNla(["world", "truth", "--html", folder]);
    expect(code).toBe(1);
    expect(err).toMatch(/next/);
    expect(err).not.toMatch(/ {4}at /);
  });
});
