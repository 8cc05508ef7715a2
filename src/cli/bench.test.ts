// `nla bench` on a model small enough for a test: every field there and possible, flags that reach the model, errors.
import { describe, expect, test } from "vitest";
import { benchCommand } from "./bench.js";
import type { BenchPage } from "./bench.js";
import { runCli } from "./program.js";

async function nla(...args: string[]) {
  let out = "";
  let err = "";
  const code = await runCli(["bench", ...args], [benchCommand()], {
    version: "0",
    streams: {
      stdout: { write: (text) => void (out += text) },
      stderr: { write: (text) => void (err += text) },
      env: {},
    },
  });
  return { code, out, err };
}

const SMALL =
  "--dim 16 --layers 2 --heads 4 --kv-heads 2 --ffn 24 --vocab 40 --batch 3 --length 8 --steps 2 --threads 1";
const PARAMETERS = 40 * 16 + 2 * (16 * 16 * 2 + 2 * 8 * 16 + 3 * 24 * 16 + 2 * 16) + 16;

describe.each(["train", "decode", "extract"])("%s", (what) => {
  test.each(["f32", "bf16"])("%s, as JSON", async (compute) => {
    const extra = what === "decode" ? ["--new", "5"] : [];
    const { code, out } = await nla(what, ...SMALL.split(" "), ...extra, "--compute", compute, "--json");
    expect(code).toBe(0);
    const report = JSON.parse(out) as Record<string, number>;
    expect(report).toMatchObject({ what, params: PARAMETERS, threads: 1, compute });
    expect(report["device"]).toMatch(/^CPU/);
    const tokens = 3 * (what === "decode" ? 5 : 8);
    expect(report["tokens_per_second"]! * report["seconds"]!).toBeCloseTo(tokens, 6);
    expect(report["longest_event_loop_gap_ms"]).toBeGreaterThanOrEqual(0);
    expect(report["peak_rss_bytes"]).toBeGreaterThan(10_000_000);
    expect(report["graph_build_share"]).toBeGreaterThan(0);
    expect(report["graph_build_share"]).toBeLessThan(1);
    expect(Object.keys(report)).toHaveLength(16);
    if (what === "decode") expect(report["gflops_per_second"]).toBeNull();
    else {
      expect(report["share_of_peak"]).toBeGreaterThan(0);
      expect(report["share_of_peak"]! * report["peak_gflops_per_second"]!).toBeCloseTo(
        report["gflops_per_second"]!,
        6,
      );
    }
    expect(report["profile"]).toBeNull();
  });

  test("quantized, but not for training", async () => {
    // Rows of 32 for blocks of 32.
    const wide = SMALL.replace("--dim 16", "--dim 32").replace("--ffn 24", "--ffn 64").split(" ");
    const { code, out } = await nla(what, ...wide, "--quantize", "q8_0", "--json");
    if (what === "train") return expect(code).toBe(2);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ holding: "q8_0" });
    expect((await nla(what, ...wide, "--quantize", "q4_k_m")).out).toMatch(/matrices +q4_k_m/);
  });

  test.each(["on", "off"])("profiled, kernels %s", async (kernels) => {
    const extra = ["--new", "3", "--profile", "--kernels", kernels, "--json"];
    const { code, out, err } = await nla(what, ...SMALL.split(" "), ...extra);
    expect(err).toBe("");
    expect(code).toBe(0);
    const report = JSON.parse(out) as BenchPage;
    const { profile } = report;
    const lines = [...profile!.ops, ...profile!.not_compute];
    expect(lines.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 6);
    expect(lines.reduce((sum, { seconds }) => sum + seconds, 0)).toBeCloseTo(profile!.seconds, 9);
    expect(profile!.ops).toEqual(profile!.ops.toSorted((a, b) => b.seconds - a.seconds));
    expect(profile!.not_compute.map(({ op }) => op)).toEqual(
      expect.arrayContaining(["reading results", "writing inputs", "building graphs"]),
    );
    const own = profile!.ops.filter(({ op }) => !op.startsWith("ggml"));
    expect(own.length > 0).toBe(report.kernels !== null);
    if (kernels === "off") expect(report.kernels).toBeNull();
  });

  test("for people", async () => {
    const { code, out } = await nla(what, ...SMALL.split(" "), "--new", "2");
    expect(code).toBe(0);
    expect(out).toMatch(/tokens per second +[\d,]+/);
    expect(out).toMatch(/longest event loop gap +[\d.]+ ms/);
  });
});

test("training an adapter says how much is trained", async () => {
  const { code, out } = await nla("train", ...SMALL.split(" "), "--lora", "2", "--json");
  expect(code).toBe(0);
  const block = 2 * ((16 + 16) * 2 + (16 + 8) * 2 + (16 + 24) * 3); // of rank 2, in + out of each map
  expect(JSON.parse(out)).toMatchObject({ params: PARAMETERS, trained_params: 2 * block });
  const other = await nla("decode", "--lora", "2");
  expect(other.code).toBe(2);
});

test.each([
  [["train", "--batch", "0"], 2, /--batch.*"0"|"0".*at least 1/s],
  [["train", "--compute", "f64"], 2, /f64/],
  [["decode", "--kernels", "maybe"], 2, /maybe/],
  [["train", "--heads", "5", "--dim", "16"], 1, /head_dim/],
  [["train", "--heads", "4", "--kv-heads", "3", "--dim", "16"], 1, /num_key_value_heads/],
  [["sleep"], 2, /sleep/],
])("nla bench %j ends in an error", async (args, code, message) => {
  const result = await nla(...args);
  expect(result.code).toBe(code);
  expect(result.err).toMatch(message);
});
