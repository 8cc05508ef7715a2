// Errors, cosines, baselines and FVE against the reference, and what must be refused.
import { readFileSync } from "node:fs";
import path from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import {
  BaselineAccumulator,
  FidelityAccumulator,
  fve,
  normalised,
  reconstructionScores,
  varianceAround,
} from "./fidelity.js";

const baselinesPath = sharedPath("golden/nla/train/baselines.json");
const criticFolder = sharedPath("golden/nla/critic");

interface BaselineCase {
  set: string;
  vectors: number[][];
  mse_scale: string;
  meannorm: number;
  rawvar: number;
}

describeWith(baselinesPath, "baselines equal the reference's", () => {
  const { rows } = JSON.parse(readFileSync(baselinesPath as string, "utf8")) as { rows: BaselineCase[] };

  it("covers all sets", () => expect(rows.length).toBe(18));

  it.each(rows.map((row) => [`${row.set}, ${row.mse_scale}`, row] as const))("%s", (_, row) => {
    const mseScale =
      row.mse_scale === "raw" ? null : row.mse_scale === "sqrt_d_model" ? undefined : Number(row.mse_scale);
    const accumulator = new BaselineAccumulator(
      row.vectors[0]!.length,
      mseScale === undefined ? {} : { mseScale },
    );
    for (const vector of row.vectors) accumulator.add(Float32Array.from(vector));
    const { variance, varianceMeannorm } = accumulator.baselines();
    near(variance, row.rawvar, 1e-5);
    near(varianceMeannorm, row.meannorm, 1e-5);
  });
});

interface CriticRow {
  prediction: number[];
  original: number[];
  mse_nrm: number;
  client_mse: number;
  client_cos: number | string;
}
interface CriticGolden {
  d_model: number;
  mse_scale: number;
  rows: CriticRow[];
  baselines: Record<
    string,
    { mse_scale: number | null; meannorm: number; rawvar: number; first_30_rows: [number, number] }
  >;
  fve: { rows: number[]; mean_mse_nrm: number; fve_nrm: number; fve_nrm_meannorm: number };
}

describe.skipIf(criticFolder === null).each(["qwen2", "gemma3", "llama"])(
  "fidelity of %s equals the reference's",
  (family) => {
    const load = () =>
      JSON.parse(
        readFileSync(path.join(criticFolder as string, family, "expect.json"), "utf8"),
      ) as CriticGolden;

    it("row by row", () => {
      const golden = load();
      for (const row of golden.rows) {
        const scores = reconstructionScores(
          Float32Array.from(row.prediction),
          Float32Array.from(row.original),
          {
            mseScale: golden.mse_scale,
          },
        );
        near(scores.mse, row.mse_nrm, 1e-5);
        near(scores.mse, row.client_mse, 1e-5);
        // The client's torch cosine of a zero vector is 0 or NaN; ours is NaN: there is no direction.
        if (row.original.every((value) => value === 0)) expect(scores.cosine).toBeNaN();
        else near(scores.cosine, row.client_cos as number, 1e-5);
      }
    });

    it("over the parquet file, both baselines and every scale", async () => {
      const golden = load();
      const vectors = await readVectors(path.join(criticFolder as string, family, "vectors.parquet"));
      for (const { mse_scale, rawvar, meannorm, first_30_rows } of Object.values(golden.baselines)) {
        const all = new BaselineAccumulator(golden.d_model, { mseScale: mse_scale });
        for (const [i, vector] of vectors.entries()) {
          all.add(vector);
          if (i !== 29) continue;
          near(all.baselines().varianceMeannorm, first_30_rows[0], 1e-5);
          near(all.baselines().variance, first_30_rows[1], 1e-5);
        }
        near(all.baselines().variance, rawvar, 1e-5);
        near(all.baselines().varianceMeannorm, meannorm, 1e-5);
      }
    });

    it("as FVE with baselines from elsewhere", async () => {
      const golden = load();
      const baseline = new BaselineAccumulator(golden.d_model);
      for (const vector of await readVectors(path.join(criticFolder as string, family, "vectors.parquet")))
        baseline.add(vector);
      const fidelity = new FidelityAccumulator(golden.d_model);
      for (const index of golden.fve.rows) {
        const { prediction, original } = golden.rows[index]!;
        fidelity.add(Float32Array.from(prediction), Float32Array.from(original));
      }
      const result = fidelity.result(baseline.baselines());
      near(result.mse, golden.fve.mean_mse_nrm, 1e-5);
      near(result.fve, golden.fve.fve_nrm, 1e-5);
      near(result.fveMeannorm, golden.fve.fve_nrm_meannorm, 1e-5);
      expect(result.rows).toBe(golden.fve.rows.length);
    });
  },
);

describe("fidelity", () => {
  const vectors = [Float32Array.of(3, 4, 0), Float32Array.of(-1, 2, 2), Float32Array.of(0.5, -6, 1)];

  it("is 0 for the mean vector as reconstruction, against the baseline it is defined by", () => {
    const accumulator = new BaselineAccumulator(3);
    for (const vector of vectors) accumulator.add(vector);
    const fidelity = new FidelityAccumulator(3);
    for (const vector of vectors) fidelity.add(accumulator.meanDirection(), vector);
    expect(fidelity.result().fveMeannorm).toBeCloseTo(0, 12);
    expect(fidelity.result().fve).toBeLessThan(0);
  });

  it("is 1 for exact reconstructions at any length", () => {
    const fidelity = new FidelityAccumulator(3);
    for (const vector of vectors)
      fidelity.add(
        vector.map((value) => value * 7),
        vector,
      );
    const result = fidelity.result();
    expect(result.fve).toBeCloseTo(1, 6);
    expect(result.cosine).toBeCloseTo(1, 6);
  });

  it("has an mse of 2(1 - cos) at the default scale", () => {
    const { mse, cosine } = reconstructionScores(vectors[0]!, vectors[1]!);
    expect(mse).toBeCloseTo(2 * (1 - cosine), 12);
  });

  it("counts a zero reconstruction as mse 1 without a direction", () => {
    const fidelity = new FidelityAccumulator(3);
    expect(fidelity.add(new Float32Array(3), vectors[0]!).mse).toBeCloseTo(1, 14);
    fidelity.add(vectors[1]!, vectors[1]!);
    expect(fidelity.result()).toMatchObject({ rows: 2, withoutDirection: 1 });
    expect(fidelity.result().cosine).toBeCloseTo(1, 12);
  });

  it("splits the variance into rows", () => {
    const accumulator = new BaselineAccumulator(3);
    for (const vector of vectors) accumulator.add(vector);
    const shares = vectors.map((vector) => varianceAround(vector, accumulator.mean()));
    expect(shares.reduce((a, b) => a + b) / 3).toBeCloseTo(accumulator.baselines().variance, 12);
    const aroundDirection = vectors.map((vector) => varianceAround(vector, accumulator.meanDirection()));
    expect(aroundDirection.reduce((a, b) => a + b) / 3).toBeCloseTo(
      accumulator.baselines().varianceMeannorm,
      12,
    );
  });

  it("normalises to the scale", () => {
    expect(Math.hypot(...normalised(vectors[0]!, { mseScale: 9 }))).toBeCloseTo(9, 12);
    expect([...normalised(new Float32Array(3))]).toEqual([0, 0, 0]);
  });

  it.each([NaN, Infinity])("refuses %s on either side", (bad) => {
    const broken = Float32Array.of(1, bad, 0);
    expect(() => reconstructionScores(broken, vectors[0]!)).toThrow(
      /reconstruction: found .* at index 1 of 3/,
    );
    expect(() => reconstructionScores(vectors[0]!, broken)).toThrow(/activation: found/);
    expect(() => new BaselineAccumulator(3).add(broken)).toThrow(NlaError);
  });

  it("refuses other widths, no rows, no variance and bad scales", () => {
    expect(() => reconstructionScores(Float32Array.of(1, 2), vectors[0]!)).toThrow(/width of 2; wanted 3/);
    expect(() => reconstructionScores(new Float32Array(0), new Float32Array(0))).toThrow(NlaError);
    expect(() => new BaselineAccumulator(4).add(vectors[0]!)).toThrow(/width of 3; wanted 4/);
    expect(() => new BaselineAccumulator(0)).toThrow(NlaError);
    expect(() => new FidelityAccumulator(3).result()).toThrow(/0 rows/);
    expect(() => fve(0.5, 0)).toThrow(/variance of 0/);
    expect(() => fve(NaN, 1)).toThrow(NlaError);
    for (const mseScale of [0, -1, NaN, Infinity]) {
      expect(() => reconstructionScores(vectors[0]!, vectors[1]!, { mseScale })).toThrow(/positive number/);
    }
  });
});

async function readVectors(file: string): Promise<Float32Array[]> {
  const connection = await (await DuckDBInstance.create(":memory:")).connect();
  const reader = await connection.runAndReadAll(
    `select activation_vector from '${file.replaceAll("'", "''")}'`,
  );
  const rows = reader.getRowsJS() as [number[]][];
  connection.closeSync();
  expect(rows.length).toBeGreaterThan(30);
  return rows.map(([vector]) => Float32Array.from(vector));
}

/** Relative, or absolute where the reference's own float32 noise is all there is. */
function near(found: number, wanted: number, bound: number): void {
  expect(Math.abs(found - wanted), `${found} against ${wanted}`).toBeLessThanOrEqual(
    bound * Math.max(Math.abs(wanted), 0.1),
  );
}
