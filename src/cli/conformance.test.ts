// `nla conformance` as it is called: table, JSON, exit codes, and a folder made by --write.
import { appendFile, cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sharedPath } from "../../test/shared.js";
import { convertToGguf } from "../model/index.js";
import type { ConformanceReport } from "../model/index.js";
import { conformanceCommand } from "./conformance.js";
import { runCli } from "./program.js";

const FIXTURES = path.resolve(import.meta.dirname, "../../test/fixtures/golden/models");

async function nla(...args: string[]) {
  let out = "";
  let err = "";
  const code = await runCli(["conformance", ...args, "--threads", "1"], [conformanceCommand], {
    version: "0",
    streams: {
      stdout: { write: (text) => void (out += text) },
      stderr: { write: (text) => void (err += text) },
      env: {},
    },
  });
  return { code, out, err };
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "nlakit-conformance-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("a family that is equal: a table, and exit code 0", async () => {
  const { code, out } = await nla(path.join(FIXTURES, "gemma3"));
  expect(out).toMatch(/gradients +\d\.\de-\d +1\.0e-4 +rel L2 +pass +\S+, of \d+/);
  expect(out).toMatch(/greedy tokens +0 +0 +tokens +pass/);
  expect(out).toContain("All 11 checks pass.");
  expect(out).toContain("Not checked, because the folder has no values: logits, padded right; ");
  expect(code).toBe(0);
});

test("one that is not: FAIL in its row, and exit code 1", async () => {
  const directory = path.join(folder, "wrong");
  await cp(path.join(FIXTURES, "qwen2"), directory, { recursive: true });
  const config = path.join(directory, "config.json");
  const json = JSON.parse(await readFile(config, "utf8")) as { rope_theta: number };
  await writeFile(config, JSON.stringify({ ...json, rope_theta: json.rope_theta * 1.01 }));
  const { code, out } = await nla(directory);
  expect(out).toMatch(/hidden states, padded right.*FAIL/);
  expect(out).toMatch(/config of transformers 5.*FAIL +rope/);
  expect(out).toMatch(/alone as in the batch.*pass/);
  expect(code).toBe(1);
  const asJson = await nla(directory, "--json");
  expect(asJson.code).toBe(1);
  expect(JSON.parse(asJson.out)).toMatchObject({ passed: false, family: "qwen2" });
});

test("--write makes a folder that passes, refuses to replace it, and notices a later change", async () => {
  const directory = path.join(folder, "own");
  for (const name of ["config.json", "model.safetensors"])
    await cp(path.join(FIXTURES, "qwen3", name), path.join(directory, name));
  const made = await nla(directory, "--write", "--json");
  const report = JSON.parse(made.out) as { passed: boolean; checks: { check: string }[]; absent: string[] };
  expect(report.passed).toBe(true);
  expect(made.code).toBe(0);
  expect(report.absent).toEqual(["parameters after AdamW steps", "config of transformers 5"]);
  expect(report.checks).toHaveLength(13);
  const again = await nla(directory, "--write");
  expect(again.code).toBe(1);
  expect(again.err).toContain("golden.json already");
  await cp(path.join(FIXTURES, "qwen3", "config.json"), path.join(directory, "config.json"));
  const config = path.join(directory, "config.json");
  const json = JSON.parse(await readFile(config, "utf8")) as object;
  await writeFile(config, JSON.stringify({ ...json, rms_norm_eps: 1e-3 }));
  expect((await nla(directory)).code).toBe(1);
});

test("a model as GGUF against the values of its folder: the same bounds in the same type, wider ones in q8_0", async () => {
  const directory = path.join(FIXTURES, "qwen3");
  const file = path.join(folder, "qwen3.gguf");
  await convertToGguf(directory, file);
  const same = await nla(directory, "--model", file, "--json");
  const report = JSON.parse(same.out) as ConformanceReport;
  expect(report).toMatchObject({ passed: true, family: "qwen3" });
  const bounds = new Map(report.checks.map(({ check, bound }) => [check, bound]));
  expect(bounds.get("hidden states, padded right")).toBe(1e-5);
  expect(bounds.get("gradients")).toBe(1e-4);
  expect(bounds.get("greedy tokens")).toBe(0);
  await convertToGguf(directory, file, { holding: "q8_0" });
  const small = JSON.parse((await nla(directory, "--model", file, "--json")).out) as ConformanceReport;
  expect(small.passed).toBe(true);
  const hidden = small.checks.find(({ check }) => check === "hidden states, padded right");
  expect(hidden).toMatchObject({ bound: 0.1 });
  expect(hidden?.error).toBeGreaterThan(1e-3);
  expect(small.checks.some(({ check }) => check === "gradients")).toBe(false);
  const held = await nla(directory, "--quantize", "q8_0");
  expect(held).toMatchObject({ code: 0 });
  expect(held.out).toMatch(/hidden states, padded right .* 1\.0e-1 +rel L2 +pass/);
  // Another model's file is no such rounding.
  const [qwen2, other] = [path.join(FIXTURES, "qwen2"), path.join(folder, "other.gguf")];
  await convertToGguf(qwen2, other, { holding: "q8_0" });
  expect((await nla(directory, "--model", other)).code).toBe(1);
});

const golden = sharedPath("golden/models/gguf-llama");
test.skipIf(golden === null)("a golden folder of GGUF files: each unpacked, and as stored", async () => {
  const { code, out } = await nla(golden as string);
  expect(out).toMatch(/f16 as f32: unpacked matrices +0 +0 +rel L2 +pass/);
  expect(out).toMatch(/q8_0 as f32: greedy tokens +0 +0 +tokens +pass/);
  expect(out).toMatch(/q8_0 as stored: logits, padded left +\S+ +5\.0e-2 +rel L2 +pass/);
  expect(out).toContain("All 22 checks pass.");
  expect(code).toBe(0);
});

test("a folder without golden values, or with broken ones, is named", async () => {
  const missing = await nla(path.join(folder, "nowhere"));
  expect(missing.code).toBe(1);
  expect(missing.err).toContain("nowhere");
  const gguf = path.join(folder, "gguf");
  await cp(path.join(FIXTURES, "qwen2", "golden.json"), path.join(gguf, "golden.json"));
  await writeFile(path.join(gguf, "model-f16.gguf"), "GGUF");
  expect((await nla(gguf)).err).toContain("no rounding of f16");
  const directory = path.join(folder, "broken");
  await cp(path.join(FIXTURES, "qwen2"), directory, { recursive: true });
  await appendFile(path.join(directory, "golden.json"), "}");
  expect((await nla(directory)).err).toMatch(/golden\.json/);
});
