// Injection sites and scaling against what the reference did on the same inputs.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import { assignInjectionSites, findInjectionSites, scaleToNorm } from "./injection.js";

const sitesPath = sharedPath("golden/nla/actor/injection_cases.json");
const scalingPath = sharedPath("golden/nla/actor/normalisation_cases.json");
const marker = { tokenId: 7, left: 3, right: 4 }; // of every case in injection_cases.json

interface SiteCase {
  case: string;
  ids?: number[][];
  vectors?: number;
  slice?: [number, number];
  training: { ok?: number[][][]; error?: { type: string } };
}

describeWith(sitesPath, "injection sites equal the reference's", () => {
  const cases = JSON.parse(readFileSync(sitesPath as string, "utf8")) as SiteCase[];
  const whole = cases.filter((c) => c.ids !== undefined && c.vectors !== undefined && !c.slice);

  it("covers the cases over token ids", () => expect(whole.length).toBe(17));

  it.each(whole.map((c) => [c.case, c] as const))("%s", (_, { ids, vectors, training }) => {
    const assign = () => assignInjectionSites(ids!, marker, vectors!);
    if (!training.ok) return expect(assign).toThrow(NlaError);
    // Rows of the golden embeddings are 0,1 2,3 ..; vector number v is 100(v+1), so a replaced row names its vector.
    const expected = training.ok.flatMap((rows, sequence) =>
      rows.flatMap(([first], position) =>
        first! >= 100 ? { sequence, position, vector: first! / 100 - 1 } : [],
      ),
    );
    expect(assign()).toEqual(expected);
  });
});

describe("injection sites", () => {
  it("names both counts and the marker when they differ", () => {
    const ids = [[1, 4, 7, 4]];
    expect(() => assignInjectionSites(ids, marker, 2)).toThrow(
      /0 sites .*1 such tokens.*wanted 2, one per vector/,
    );
  });

  it("blames the text when there are more sites than vectors", () => {
    expect(() => assignInjectionSites([[3, 7, 4, 3, 7, 4]], marker, 1)).toThrow(
      /A marker stands in the text/,
    );
  });

  it("never takes an edge", () => expect(findInjectionSites([7, 4, 3, 7], marker)).toEqual([]));
});

interface ScalingCase {
  vector?: number[];
  scale: number | null;
  float32: number[];
}

describeWith(scalingPath, "scaling equals the reference's within one float32 step", () => {
  const all = JSON.parse(readFileSync(scalingPath as string, "utf8")) as ScalingCase[];
  const cases = all.filter((c) => c.vector !== undefined);

  it("covers the vector cases", () => expect(cases.length).toBe(28));

  it.each(cases.map((c) => [`${c.vector!.slice(0, 2).join(", ")} to ${c.scale}`, c] as const))(
    "%s",
    (_, c) => {
      const scaled = scaleToNorm(Float32Array.from(c.vector!), c.scale);
      // Squares beyond float32: the reference's vectors become zeros, ours keep their direction (stated in scaleToNorm).
      if (c.scale !== null && Math.abs(c.vector![0]!) > 1e20) {
        expect(c.float32).toEqual([0, 0]);
        const share = c.scale / Math.SQRT2;
        for (const value of scaled) expect(Math.abs(value / share - 1)).toBeLessThan(1e-6);
        return;
      }
      for (const [i, expected] of c.float32.entries())
        expect(ulpsBetween(scaled[i]!, expected)).toBeLessThanOrEqual(1);
    },
  );
});

describe("scaling", () => {
  it("keeps the last bit that one division gives", () => {
    expect([...scaleToNorm(Float32Array.of(3, 4), 150)]).toEqual([
      Math.fround(89.99999),
      Math.fround(119.99999),
    ]);
  });

  it.each([NaN, Infinity, -Infinity])("refuses a vector with %s, also unscaled", (bad) => {
    expect(() => scaleToNorm(Float32Array.of(1, bad), 150)).toThrow(/index 1 of 2/);
    expect(() => scaleToNorm(Float32Array.of(1, bad), null)).toThrow(NlaError);
  });

  it.each([NaN, Infinity, 0, -3])("refuses the scale %s", (scale) => {
    expect(() => scaleToNorm(Float32Array.of(1), scale)).toThrow(/positive number/);
  });

  it("refuses a length beyond float32", () => {
    expect(() => scaleToNorm(Float32Array.of(3e38, 3e38), 150)).toThrow(/ratio float32 can hold/);
  });

  it("returns a new array", () => {
    const vector = Float32Array.of(3, 4);
    scaleToNorm(vector, null)[0] = 9;
    expect(vector[0]).toBe(3);
  });
});

/** Distance in representable float32 values; both finite. */
function ulpsBetween(a: number, b: number): number {
  const [x, y] = new Int32Array(Float32Array.of(a, b).buffer);
  return Math.abs(ordered(x!) - ordered(y!));
}

// The bits of a float32 as a number that grows with its value.
function ordered(bits: number): number {
  return bits < 0 ? -(bits & 0x7fffffff) : bits;
}
