// `nla data run` on the reference's own configs: the files that it writes are the reference's, it goes on where it stopped, and it
// takes the reference's files as if it had made them.
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { openParquet } from "../data/parquet.js";
import { readDatasetSidecar } from "../data/sidecar.js";
import { runNla } from "./testing/run-nla.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-data-run-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const GOLDEN = ["pipeline", "pipeline-llama", "pipeline-gemma3"];

async function rowsOf(file: string): Promise<{ rows: object[]; vectors: number[][] }> {
  const parquet = await openParquet(file);
  const rows: object[] = [];
  const vectors: number[][] = [];
  for await (const chunk of parquet.chunks()) {
    const width = chunk.vectors().length / chunk.rowCount;
    for (let row = 0; row < chunk.rowCount; row++) {
      const others = Object.entries(chunk.values).filter(([name]) => name !== "activation_vector");
      rows.push(Object.fromEntries(others.map(([name, values]) => [name, values[row]])));
      vectors.push([...chunk.vectors().subarray(row * width, (row + 1) * width)]);
    }
  }
  parquet.close();
  return { rows, vectors };
}

const configOf = (text: string) => {
  const file = path.join(scratch, "config.yaml");
  writeFileSync(file, text);
  return file;
};

interface Result {
  readonly files: readonly { readonly stage: string; readonly file: string; readonly made: boolean }[];
  readonly notes: readonly string[];
  readonly error?: { readonly code: string };
}

describe.each(GOLDEN)("%s", (name) => {
  const folder = sharedPath(`golden/nla/${name}`);
  const out = path.join(scratch, name);
  const run = async (...more: string[]): Promise<{ code: number; result: Result }> => {
    const golden = folder as string;
    const args = ["data", "run", path.join(golden, "config.yaml"), "--threads", "1", "--json"];
    args.push("--override", `output_dir=${out}`);
    args.push("--labels", path.join(golden, "provider_calls.jsonl"));
    args.push("--templates", path.join(golden, "out/ar_sft.parquet"), ...more);
    const { code, out: text } = await runNla(args);
    return { code, result: JSON.parse(text) as Result };
  };

  it.skipIf(folder === null)("writes the reference's files, and runs only what is missing", async () => {
    const { code, result } = await run();
    expect(code, JSON.stringify(result)).toBe(0);
    expect(result.notes.some((note) => note.startsWith("stage2.provider_cls"))).toBe(true);
    expect(result.files).toHaveLength(12);
    for (const { file, made } of result.files) {
      expect(made).toBe(true);
      const golden = path.join(folder as string, "out", path.relative(out, file));
      const [ours, theirs] = [await rowsOf(file), await rowsOf(golden)];
      expect(ours.rows, file).toEqual(theirs.rows);
      ours.vectors.forEach((vector, row) => {
        const wanted = theirs.vectors[row] as number[];
        const error = Math.hypot(...vector.map((value, i) => value - (wanted[i] as number)));
        expect(error / Math.hypot(...wanted)).toBeLessThan(1e-4);
      });
      const [a, b] = [await readDatasetSidecar(file), await readDatasetSidecar(golden)];
      for (const key of [
        "datasetId",
        "stage",
        "rowCount",
        "extraction",
        "tokens",
        "templates",
        "apiSummaries",
        "parentDatasets",
      ] as const)
        expect(a[key], `${file} ${key}`).toEqual(b[key]);
    }

    unlinkSync(path.join(out, "ar_sft.parquet.nla_meta.yaml")); // as a kill between the two writes leaves it
    const again = await run();
    const made = again.result.files.filter((each) => each.made).map(({ file }) => path.basename(file));
    expect(made.sort()).toEqual(["ar_sft.parquet", "ar_sft_shuf.parquet"]);

    const changed = await run("--override", "stage0.seed=43");
    expect(changed.result.error?.code).toBe("pipeline.other-run");
  });

  it.skipIf(folder === null)("goes on from the reference's own files", async () => {
    const copy = path.join(scratch, `${name}-copy`);
    cpSync(path.join(folder as string, "out"), copy, { recursive: true });
    unlinkSync(path.join(copy, "rl_shuf.parquet"));
    const before = statSync(path.join(copy, "base.parquet")).mtimeMs;
    const { code, result } = await run("--override", `output_dir=${copy}`);
    expect(code, JSON.stringify(result)).toBe(0);
    expect(result.files.filter(({ made }) => made)).toHaveLength(1);
    expect(statSync(path.join(copy, "base.parquet")).mtimeMs).toBe(before);
  });
});

describeWith(sharedPath("golden/nla/pipeline"), "mistakes", () => {
  const folder = sharedPath("golden/nla/pipeline") as string;
  const original = readFileSync(path.join(folder, "config.yaml"), "utf8").replaceAll(
    /(base_model: |name: )(tiny|wiki)/g,
    `$1${folder}/$2`,
  );
  const cases: [string, string, string][] = [
    ["a model named twice", original.replace("device_map: cpu", "model_name: other"), "pipeline.two-models"],
    ["a layer out of range", original.replace("layer_index: 2", "layer_index: 9"), "model.layer"],
    ["fractions that sum to 0.9", original.replace("rl_frac: 0.4", "rl_frac: 0.3"), "split.fractions"],
    ["a negative fraction", original.replace("rl_frac: 0.4", "rl_frac: -0.4"), "pipeline.config"],
    ["no corpus", original.replace(/ {2}name: .*/, "  name: nowhere"), "pipeline.corpus"],
    ["no length", original.replace("  length: 48\n", ""), "pipeline.config"],
    ["an unknown preset", original.replace(/base_model: .*/, "model: qwen9b"), "pipeline.config"],
    ["no labels", original, "pipeline.labels"],
  ];
  it.each(cases)("%s is refused", async (_, text, code) => {
    const out = path.join(scratch, `mistake-${code}`);
    const args = [
      "data",
      "run",
      configOf(text),
      "--threads",
      "1",
      "--override",
      `output_dir=${out}`,
      "--json",
    ];
    const result = await runNla(args);
    expect(result.code).toBe(1);
    expect((JSON.parse(result.out) as Result).error?.code, result.out).toBe(code);
  });

  it("labels that are not on record are named", async () => {
    const out = path.join(scratch, "unrecorded");
    const calls = path.join(scratch, "calls.jsonl");
    writeFileSync(calls, '{"prompt": "x", "completion": null}\n');
    const args = [
      "data",
      "run",
      configOf(original),
      "--threads",
      "1",
      "--override",
      `output_dir=${out}`,
      "--json",
    ];
    args.push("--labels", calls, "--templates", path.join(folder, "out/ar_sft.parquet"));
    const result = JSON.parse((await runNla(args)).out) as Result;
    expect(result.error?.code).toBe("labels.unrecorded");
    expect(existsSync(path.join(out, "splits/av_sft_raw.parquet"))).toBe(true);
  });
});
