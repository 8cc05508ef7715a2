// What `nla quickstart` says to a damaged bundle, an NLA of another target, a narrow terminal and a pipe: real files, cut and flipped, and never
// a stack trace or a wrong number.
import { cp, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { Device } from "../tensor/index.js";
import { checksumsOf } from "../train/bundle-checksums.js";
import { runNla } from "./testing/run-nla.js";

const bundle = path.resolve(import.meta.dirname, "../../assets/smallworld");

let copy: string;
beforeEach(async () => {
  copy = await mkdtemp(path.join(os.tmpdir(), "nla-bundle-"));
  await cp(bundle, copy, { recursive: true });
});
afterEach(() => rm(copy, { recursive: true }));

const quickstart = (...more: string[]) =>
  runNla(["quickstart", "--seed", "3", "--threads", "1", "--nla", copy, ...more]);

/** Flips a bit in the middle of a file. */
async function flip(file: string): Promise<void> {
  const bytes = await readFile(file);
  bytes[bytes.length >> 1]! ^= 0x40;
  await writeFile(file, bytes);
}

/** Writes checksums onto the copy's card, as `nla world bundle` does. */
async function seal(): Promise<void> {
  const file = path.join(copy, "card.json");
  const card = JSON.parse(await readFile(file, "utf8")) as object;
  await writeFile(file, JSON.stringify({ ...card, files: await checksumsOf(copy) }));
}

/** An error on four labelled lines, and nothing of a stack. */
function expectNamed({ code, err, out }: { code: number; err: string; out: string }, about: RegExp): void {
  expect(code).toBe(1);
  expect(err.replaceAll(/\s+/g, " ")).toMatch(about);
  expect(err).toMatch(/^found /m);
  expect(err).toMatch(/^next /m);
  expect(`${err}${out}`).not.toMatch(/\n\s+at |unexpected|NaN/);
}

describe.skipIf(!existsSync(path.join(bundle, "verbalizer")))("nla quickstart with another bundle", () => {
  it("reads with a whole copy, and names a file that was cut or is missing", async () => {
    const { code, out } = await quickstart();
    expect(code).toBe(0);
    expect(out).toMatch(/Of \d+ claims about this document/);
    for (const file of [
      "verbalizer/model.safetensors",
      "reconstructor/model.safetensors",
      "reconstructor/value_head.safetensors",
      "target/model.safetensors",
    ]) {
      const whole = await readFile(path.join(copy, file));
      await truncate(path.join(copy, file), whole.length >> 1);
      expectNamed(await quickstart(), new RegExp(path.basename(file)));
      await truncate(path.join(copy, file), 0);
      expectNamed(await quickstart(), new RegExp(path.basename(file)));
      await writeFile(path.join(copy, file), whole);
    }
    for (const file of ["verbalizer/tokenizer.json", "verbalizer/nla_meta.yaml", "target/config.json"]) {
      const whole = await readFile(path.join(copy, file));
      await truncate(path.join(copy, file), whole.length >> 1);
      expectNamed(await quickstart(), new RegExp(path.basename(file)));
      await rm(path.join(copy, file));
      expectNamed(await quickstart(), new RegExp(path.basename(file)));
      await writeFile(path.join(copy, file), whole);
    }
    await rm(path.join(copy, "verbalizer"), { recursive: true });
    expectNamed(await quickstart(), /verbalizer\/config\.json found no such file/);
  }, 120_000);

  it("finds a flipped bit by the card's checksums, which no reader of weights could", async () => {
    await seal();
    expect((await quickstart()).code).toBe(0);
    for (const file of ["verbalizer/model.safetensors", "reconstructor/value_head.safetensors"]) {
      await flip(path.join(copy, file));
      expectNamed(await quickstart(), new RegExp(`${path.basename(file)}.*sha256`));
      await flip(path.join(copy, file));
    }
    await rm(path.join(copy, "target/tokenizer_config.json"));
    expectNamed(await quickstart(), /tokenizer_config\.json found no such file/);
    await truncate(path.join(copy, "card.json"), 900);
    expectNamed(await quickstart(), /card\.json/);
  }, 120_000);

  it("refuses an NLA of another target, by name", async () => {
    for (const name of ["verbalizer", "reconstructor", "target", "card.json"])
      await rm(path.join(copy, name), { recursive: true });
    {
      using device = Device.open({ threads: 1 });
      await writeUntrainedPair(copy, device);
    }
    expectNamed(await quickstart(), /an NLA of aidreams260K, which does not have the words of Smallworld/);
    const both = await quickstart("--train");
    expect(both.code).toBe(2);
    expect(both.err).toMatch(/--nla/);
  }, 60_000);

  it("keeps to 40 columns, and writes no colours into a pipe, a dumb terminal or where they are not wanted", async () => {
    const args = ["quickstart", "--seed", "3", "--threads", "1"];
    const narrow = await runNla(args, { terminal: 40, env: { NO_COLOR: "1" } });
    const lines = narrow.out.split("\n");
    const commands = lines.findIndex((line) => line.startsWith("What to type next"));
    expect(commands).toBeGreaterThan(0);
    for (const line of lines.slice(0, commands)) expect(line.length, line).toBeLessThanOrEqual(40);
    for (const { out } of [
      narrow,
      await runNla(args),
      await runNla(args, { terminal: 80, env: { TERM: "dumb" } }),
    ])
      expect(out).not.toContain("\u001B");
    expect((await runNla(args, { terminal: 80 })).out).toContain("\u001B[");
  }, 60_000);

  it("reads a text of one word and of the whole context, and says how long a longer one is", async () => {
    for (const count of [1, 127]) {
      const { code, out } = await quickstart("--text", "hello ".repeat(count));
      expect(code).toBe(0);
      expect(out).toMatch(/hello/);
    }
    expectNamed(await quickstart("--text", "hello ".repeat(128)), /129 tokens wanted at most 128/);
    for (const text of ["", "   ", "\u0000\u001B[31m", "日本語"]) {
      const { code, err } = await quickstart("--text", text);
      expect(code).toBe(2);
      expect(err).not.toContain("\u001B[31m");
    }
  }, 60_000);
});
