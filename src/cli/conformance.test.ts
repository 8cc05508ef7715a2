// `nla conformance` as it is called: table, JSON, exit codes, and a folder made by --write.
import { appendFile, cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
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

test("a folder without golden values, or with broken ones, is named", async () => {
  const missing = await nla(path.join(folder, "nowhere"));
  expect(missing.code).toBe(1);
  expect(missing.err).toContain("nowhere");
  const gguf = path.join(folder, "gguf");
  await cp(path.join(FIXTURES, "qwen2", "golden.json"), path.join(gguf, "golden.json"));
  await writeFile(path.join(gguf, "model-f16.gguf"), "GGUF");
  expect((await nla(gguf)).err).toContain("values of model-f16.gguf");
  const directory = path.join(folder, "broken");
  await cp(path.join(FIXTURES, "qwen2"), directory, { recursive: true });
  await appendFile(path.join(directory, "golden.json"), "}");
  expect((await nla(directory)).err).toMatch(/golden\.json/);
});
