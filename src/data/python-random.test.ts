// The generator against values that CPython 3.11 gave: seeding, every kind of draw, sampling and shuffling.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import { keyedRandom, PythonRandom, type PythonSeed } from "./python-random.js";

const folder = sharedPath("golden/nla/rng");

interface SeedRow {
  kind: "int" | "bytes" | "str";
  seed?: string;
  seed_hex?: string;
  state_sha256: string;
  getrandbits32: number[];
  random: number[];
}
interface Draws {
  seeds: { getrandbits: number; randbelow: number; random: number; twists: number };
  getrandbits: { k: number; values: string[] }[];
  randbelow: { n: string; values: string[] }[];
  random: number[];
  twists: { skipped: number; after: number[] }[];
}
interface Shuffles {
  by_int: { seed: number; n: number; order: number[] }[];
  by_key: { key: string; n: number; order: number[] }[];
  hundred_thousand: { key: string; first: number[]; last: number[]; sha256_of_joined_by_comma: string };
}

function golden<T>(name: string): T {
  return JSON.parse(readFileSync(path.join(folder as string, name), "utf8")) as T;
}

function seedOf(row: SeedRow): PythonSeed {
  if (row.kind === "bytes") return Uint8Array.from(Buffer.from(row.seed_hex as string, "hex"));
  if (row.kind === "str") return row.seed as string;
  return row.seed === "2**19937 - 1" ? 2n ** 19937n - 1n : BigInt(row.seed as string);
}

function range(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}

function sha256(text: string): Uint8Array {
  return createHash("sha256").update(text, "utf8").digest();
}

describeWith(folder, "PythonRandom equals CPython", () => {
  it("seeds from integers, bytes and text", () => {
    const { rows } = golden<{ rows: SeedRow[] }>("seeds.json");
    expect(rows.length).toBe(34);
    for (const row of rows) {
      const name = `${row.kind} ${row.seed ?? row.seed_hex}`;
      const random = new PythonRandom(seedOf(row));
      const { words, index } = random.getstate();
      const state = createHash("sha256").update(Uint8Array.from(new Uint8Array(words.buffer)));
      expect(
        state.update(Uint8Array.from(new Uint8Array(Uint32Array.of(index).buffer))).digest("hex"),
        name,
      ).toBe(row.state_sha256);
      expect(
        row.getrandbits32.map(() => random.getrandbits(32)),
        name,
      ).toEqual(row.getrandbits32);
      // The floats were drawn after the four integers, from the same generator.
      expect(
        row.random.map(() => random.random()),
        name,
      ).toEqual(row.random);
    }
  });

  it("takes a number and a bigint for the same seed", () => {
    expect(new PythonRandom(-42).random()).toBe(new PythonRandom(42n).random());
  });

  it("draws bits of every width, the least significant word first", () => {
    const draws = golden<Draws>("draws.json");
    const random = new PythonRandom(draws.seeds.getrandbits);
    for (const { k, values } of draws.getrandbits) {
      expect(
        values.map(() => String(random.getrandbits(k))),
        `k = ${k}`,
      ).toEqual(values);
    }
  });

  it("draws below n by rejection, for numbers and bigints", () => {
    const draws = golden<Draws>("draws.json");
    const random = new PythonRandom(draws.seeds.randbelow);
    for (const { n, values } of draws.randbelow) {
      const below = BigInt(n);
      const drawn = values.map(() =>
        below <= BigInt(Number.MAX_SAFE_INTEGER) ? random.randbelow(Number(below)) : random.randbelow(below),
      );
      expect(drawn.map(String), `n = ${n}`).toEqual(values);
    }
  });

  it("draws floats, and goes on past a refill of the state", () => {
    const draws = golden<Draws>("draws.json");
    const random = new PythonRandom(draws.seeds.random);
    expect(draws.random.map(() => random.random())).toEqual(draws.random);
    const long = new PythonRandom(draws.seeds.twists);
    for (const { skipped, after } of draws.twists) {
      // The first value listed is the last of the skipped ones.
      for (let i = 1; i < skipped; i++) long.getrandbits(32);
      expect(after.map(() => long.getrandbits(32))).toEqual(after);
    }
  });

  it("samples from a pool and by rejection, and leaves the generator where CPython leaves it", () => {
    const { sample } = golden<{ sample: { rows: [number, number, number[], number][] } }>("positions.json");
    expect(sample.rows.length).toBe(403);
    for (const [n, k, drawn, next] of sample.rows) {
      const random = new PythonRandom(`${n}/${k}`);
      expect(random.sample(range(n), k), `${k} of ${n}`).toEqual(drawn);
      expect(random.getrandbits(32), `after ${k} of ${n}`).toBe(next);
    }
  });

  it("shuffles by integer and by key", () => {
    const { by_int, by_key, hundred_thousand } = golden<Shuffles>("shuffles.json");
    for (const { seed, n, order } of by_int) {
      expect(new PythonRandom(seed).shuffle(range(n)), `${seed}, ${n}`).toEqual(order);
    }
    for (const { key, n, order } of by_key) {
      expect(new PythonRandom(sha256(key)).shuffle(range(n)), `${key}, ${n}`).toEqual(order);
    }
    const [seed, ...rest] = hundred_thousand.key.split("|");
    const order = keyedRandom(Number(seed), rest.join("|")).shuffle(
      Uint32Array.from({ length: 100_000 }, (_, i) => i),
    );
    expect(Array.from(order.subarray(0, 10))).toEqual(hundred_thousand.first);
    expect(Array.from(order.subarray(-10))).toEqual(hundred_thousand.last);
    expect(createHash("sha256").update(order.join(",")).digest("hex")).toBe(
      hundred_thousand.sha256_of_joined_by_comma,
    );
  });
});

const codeOf = (call: () => unknown): string => {
  try {
    call();
  } catch (error) {
    if (error instanceof NlaError) return error.code;
    throw error;
  }
  return "nothing thrown";
};

describe("PythonRandom with bad arguments", () => {
  it("refuses seeds that are not whole", () => {
    for (const seed of [0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      expect(codeOf(() => new PythonRandom(seed))).toBe("random.seed");
      expect(codeOf(() => keyedRandom(seed, "x"))).toBe("random.seed");
    }
  });

  it("refuses impossible draws", () => {
    const random = new PythonRandom(1);
    for (const n of [0, -1, 1.5, Number.NaN, 2 ** 53]) {
      expect(codeOf(() => random.randbelow(n))).toBe("random.below");
    }
    expect(codeOf(() => random.randbelow(0n))).toBe("random.below");
    for (const k of [-1, 1.5, Number.NaN, 1e12])
      expect(codeOf(() => random.getrandbits(k))).toBe("random.bits");
    for (const k of [4, -1, Number.NaN])
      expect(codeOf(() => random.sample([1, 2, 3], k))).toBe("random.sample");
  });

  it("leaves the sampled population as it was", () => {
    const population = [1, 2, 3, 4];
    new PythonRandom(1).sample(population, 3);
    expect(population).toEqual([1, 2, 3, 4]);
  });
});
