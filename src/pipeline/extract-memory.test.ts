// Extraction takes no memory that grows with the corpus: the peak of resident memory over a corpus and over one ten times as long.
//
// Each corpus in a process of its own, so that one peak does not hide the other's.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { targetDirectory } from "../nla/target.js";
import { compileSources, runScript } from "../train/testing/child-process.js";
import type { Compiled } from "../train/testing/child-process.js";

const SCRIPT = `
import { extractActivations } from "./dist/pipeline/extract.js";
import { loadTarget } from "./dist/nla/target.js";
import { Device } from "./dist/tensor/index.js";
const [model, corpus, out] = process.argv.slice(2);
const device = Device.open({ threads: 1 });
const target = await loadTarget(model, device);
const positions = { perDocument: 120, minPosition: 4 };
const { rows } = await extractActivations({ target, layer: 1, corpus: { path: corpus }, positions, out, memoryLimitMb: 32 });
console.log(JSON.stringify({ rows, peakMb: process.resourceUsage().maxRSS / 1024 }));
`;

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-extract-memory-"));
let compiled: Compiled;
beforeAll(async () => {
  compiled = await compileSources(["pipeline/extract.ts"]);
}, 120_000);
afterAll(async () => {
  await compiled.remove();
  rmSync(scratch, { recursive: true, force: true });
});

const text = (i: number) =>
  `Story ${i}. ${"Once upon a time there was a little dog who liked to run. ".repeat(10)}`;

function corpusOf(documents: number): string {
  const file = path.join(scratch, `${documents}.jsonl`);

  writeFileSync(
    file,
    Array.from({ length: documents }, (_, i) => JSON.stringify({ text: text(i) })).join("\n"),
  );
  return file;
}

async function peakOf(documents: number): Promise<{ rows: number; peakMb: number }> {
  const script = await compiled.script("extract.mjs", SCRIPT);
  const out = path.join(scratch, `${documents}.parquet`);
  const { code, output } = await runScript(script, [
    targetDirectory("aidreams260K"),
    corpusOf(documents),
    out,
  ]);
  expect(code, output).toBe(0);
  return JSON.parse(output.trim().split("\n").at(-1) as string) as { rows: number; peakMb: number };
}

it("stays flat over ten times the documents", async () => {
  const small = await peakOf(300);
  const large = await peakOf(3000);

  expect(large.rows).toBe(360_000);
  expect(large.rows).toBe(10 * small.rows);
  // The rows of the larger one are some 150 MB. What is allowed: the writer fills its 32 MB, and the garbage collector is not prompt.
  expect(large.peakMb - small.peakMb).toBeLessThan(80);
}, 240_000);
