// The examples, compiled as the build compiles them, on an NLA that a few steps of training made.
import { cp } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadTokenizer } from "../src/text/tokenizer.js";
import { buildCommand, compile, REPOSITORY, writeTinyConfig } from "./e2e/built-command.js";
import type { BuiltCommand } from "./e2e/built-command.js";

const TEXT = "The king is dead, long live the king.";

let nla: BuiltCommand;
let run: string;

beforeAll(async () => {
  nla = await buildCommand();
  for (const name of ["examples", "tsconfig.json", "tsconfig.examples.json"]) {
    await cp(path.join(REPOSITORY, name), path.join(nla.packageFolder, name), { recursive: true });
  }
  await compile(path.join(nla.packageFolder, "tsconfig.examples.json"));
  run = path.join(nla.folder, "run");
  const steps = ["--set", "reconstructor.steps=2", "--set", "rl.steps=1"];
  const args = ["train", await writeTinyConfig(nla.folder), "--run", run, ...steps];
  expect(await nla.run(args)).toMatchObject({ code: 0 });
}, 240_000);
afterAll(() => nla?.[Symbol.asyncDispose]());

describe("examples/01-read-a-sentence", () => {
  it("prints one line for each token: the token, what the NLA read, how faithful it is", async () => {
    const script = path.join(nla.packageFolder, "dist/examples/01-read-a-sentence.js");
    const { code, stdout, stderr } = await nla.script(script, [run, TEXT]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const lines = stdout.trimEnd().split("\n");
    const tokenizer = await loadTokenizer(path.join(REPOSITORY, "assets/aidreams260K"));
    const pieces = tokenizer.pieces(tokenizer.encode(TEXT, { addSpecialTokens: true }));
    const form = /^(".*") -> (".*"|null) cosine (-?[01]\.\d\d|NaN|none)$/;
    expect(lines.map((line) => form.exec(line)?.[1])).toEqual(pieces.map((piece) => JSON.stringify(piece)));
    expect(lines.length).toBeGreaterThan(10);
    // Something is read at most of them, even after so little training.
    expect(lines.filter((line) => / cosine -?[01]\./.test(line)).length).toBeGreaterThan(lines.length / 2);
  });
});
