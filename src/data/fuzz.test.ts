// Damaged files by the thousand: a reader refuses with an error of ours, or gives what the bytes say; it never hangs, crashes or gives
// one tensor's numbers under another's name. The HTTP reader's are in serve/serve.test.ts.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import { openSafetensors, openWeights, writeSafetensors } from "./safetensors.js";
import { formatSidecar, parseSidecar } from "./sidecar.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-fuzz-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const INPUTS = 2000;
const PIECES = [
  "[",
  "]",
  "{",
  "}",
  "-1",
  "1e99",
  '"',
  ",",
  ":",
  "null",
  "\u0000",
  "99999999999",
  "F32",
  "shape",
  "&a",
  "*a",
  "<<",
  "|",
];

/** A stream of numbers that is the same in every run. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** The bytes with one to four changes in the first `until`: bits, pieces of text, moves, cuts, insertions. */
function mutated(bytes: Uint8Array, until: number, random: (below: number) => number): Buffer {
  let out = Buffer.from(bytes);
  for (let k = 0; k <= random(4); k++) {
    const at = random(Math.min(until, out.length));
    switch (random(6)) {
      case 0:
        out[at] = (out[at] as number) ^ (1 << random(8));
        break;
      case 1:
        out.write(PIECES[random(PIECES.length)] as string, at);
        break;
      case 2:
        out.copyWithin(at, random(Math.min(until, out.length)), at + random(40));
        break;
      case 3:
        if (random(8) === 0) out = out.subarray(0, at) as Buffer<ArrayBuffer>;
        break;
      case 4:
        out = Buffer.concat([
          out.subarray(0, at),
          Buffer.from(PIECES[random(PIECES.length)] as string),
          out.subarray(at),
        ]);
        break;
      default:
        out[at] = random(256);
    }
    if (out.length === 0) break;
  }
  return out;
}

describe("safetensors", () => {
  it(`${INPUTS} damaged headers: refused, or every tensor has its own bytes`, async () => {
    const file = path.join(scratch, "whole.safetensors");
    const tensors = ["a", "b.weight", "c"].map((name, t) => {
      const values = Float32Array.from({ length: 6 + 2 * t }, (_, i) => 100 * t + i);
      return { name, dtype: "F32" as const, shape: [2, 3 + t], data: new Uint8Array(values.buffer) };
    });
    await writeSafetensors(file, tensors, { metadata: { format: "pt" } });
    const whole = readFileSync(file);
    const header = 8 + Number(whole.readBigUInt64LE(0));
    const random = randomFrom(1);
    const broken = path.join(scratch, "broken.safetensors");
    let refused = 0;
    for (let i = 0; i < INPUTS; i++) {
      writeFileSync(broken, mutated(whole, header, random));
      try {
        const weights = await openSafetensors(broken);
        try {
          for (const [name, { shape, dtype }] of weights.entries) {
            const bytes = await weights.read(name);
            const original = tensors.find((each) => each.name === name);
            if (original && dtype === "F32" && shape.join() === original.shape.join())
              expect(Buffer.compare(bytes, original.data), `input ${i}, tensor ${name}`).toBe(0);
          }
        } finally {
          await weights.close();
        }
      } catch (thrown) {
        if (!(thrown instanceof NlaError)) throw thrown;
        expect(thrown.code).toMatch(/^safetensors\./);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(INPUTS / 2);
    expect(refused).toBeLessThan(INPUTS);
  }, 60_000);
});

describe("the index of a sharded model", () => {
  it(`${INPUTS} damaged ones: refused, or every tensor has its own bytes`, async () => {
    const here = path.join(scratch, "sharded");
    mkdirSync(here);
    const tensors = ["a", "b.weight", "c", "d"].map((name, t) => {
      const values = Float32Array.from({ length: 4 }, (_, i) => 100 * t + i);
      return { name, dtype: "F32" as const, shape: [4], data: new Uint8Array(values.buffer) };
    });
    const files = [tensors.slice(0, 2), tensors.slice(2)];
    const map: Record<string, string> = {};
    for (const [i, part] of files.entries()) {
      const name = `model-0000${i + 1}-of-00002.safetensors`;
      await writeSafetensors(path.join(here, name), part);
      for (const tensor of part) map[tensor.name] = name;
    }
    const whole = Buffer.from(JSON.stringify({ metadata: { total_size: 64 }, weight_map: map }, null, 2));
    const index = path.join(here, "model.safetensors.index.json");
    const random = randomFrom(3);
    let refused = 0;
    for (let i = 0; i < INPUTS; i++) {
      writeFileSync(index, mutated(whole, whole.length, random));
      try {
        const weights = await openWeights(here);
        try {
          for (const name of weights.entries.keys()) {
            const original = tensors.find((each) => each.name === name);
            expect(original, `input ${i}, tensor ${name}`).toBeDefined();
            expect(Buffer.compare(await weights.read(name), original!.data)).toBe(0);
          }
        } finally {
          await weights.close();
        }
      } catch (thrown) {
        if (!(thrown instanceof NlaError)) throw thrown;
        expect(thrown.code).toMatch(/^safetensors\./);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(INPUTS / 2);
    expect(refused).toBeLessThan(INPUTS);
  }, 60_000);
});

describeWith(sharedPath("golden/nla/sidecars"), "sidecars", () => {
  const folder = sharedPath("golden/nla/sidecars") as string;

  it.each(["released-av.yaml", "released-ar.yaml", "dataset-v1-ar_sft.yaml", "model-v2-critic-sl.yaml"])(
    `%s, damaged ${INPUTS / 2} times: refused, or read so that it is written and read again the same`,
    (name) => {
      const whole = readFileSync(path.join(folder, name));
      const random = randomFrom(name.length);
      let refused = 0;
      for (let i = 0; i < INPUTS / 2; i++) {
        const bytes = mutated(whole, whole.length, random);
        try {
          const sidecar = parseSidecar(bytes, "damaged.yaml");
          const again = parseSidecar(Buffer.from(formatSidecar(sidecar)), "damaged.yaml");
          expect(formatSidecar(again), `input ${i}`).toBe(formatSidecar(sidecar));
        } catch (thrown) {
          if (!(thrown instanceof NlaError)) throw thrown;
          expect(thrown.code).toMatch(/^(sidecar|yaml)\./);
          refused++;
        }
      }
      expect(refused).toBeGreaterThan(INPUTS / 20);
    },
    60_000,
  );
});
