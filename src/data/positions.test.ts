// Drawn positions against the reference's, by (seed, document id) and at the edges.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { drawPositions } from "./positions.js";

const file = sharedPath("golden/nla/rng/positions.json");
const none: ReadonlySet<number> = new Set();

describeWith(file, "drawPositions equals the reference", () => {
  it("for every golden document, with and without special ids", () => {
    type Row = [number, string, number, number, number[], number[]];
    const { documents } = JSON.parse(readFileSync(file as string, "utf8")) as { documents: { rows: Row[] } };
    const { rows } = documents;
    expect(rows.length).toBe(312);
    for (const [seed, documentId, length, count, plain, withSpecials] of rows) {
      const ids = Array.from({ length }, (_, i) => (i % 3 === 0 ? 1 : 7));
      const name = `${seed} ${documentId} ${length} ${count}`;
      expect(drawPositions({ ids, specialIds: none, seed, documentId, count }), name).toEqual(plain);
      expect(drawPositions({ ids, specialIds: new Set([1]), seed, documentId, count }), name).toEqual(
        withSpecials,
      );
    }
  });
});

describe("drawPositions", () => {
  const documentId = "openbmb/Ultra-FineWeb:en:0";
  const ids = new Int32Array(600).fill(7);

  it("gives the published positions of the first document", () => {
    expect(drawPositions({ ids, specialIds: none, seed: 42, documentId, count: 10 })).toEqual([
      454, 518, 458, 112, 286, 426, 103, 275, 495, 255,
    ]);
    const short = { ids: ids.slice(0, 54), specialIds: none, seed: 42, documentId, count: 10 };
    expect(drawPositions(short)).toEqual([53, 51, 52, 50]);
  });

  it("has nothing to draw from a document of one token, and starts lower if asked", () => {
    const one = { ids: [7], specialIds: none, seed: 42, documentId, count: 10 };
    expect(drawPositions(one)).toEqual([]);
    expect(drawPositions({ ...one, minPosition: 0 })).toEqual([0]);
  });

  it("refuses counts and first positions that are not whole numbers", () => {
    const draw = { ids, specialIds: none, seed: 42, documentId, count: 10 };
    for (const bad of [{ count: -1 }, { count: 0.5 }, { minPosition: -1 }, { minPosition: Number.NaN }]) {
      expect(() => drawPositions({ ...draw, ...bad })).toThrow(/whole number of at least 0/);
    }
  });
});
