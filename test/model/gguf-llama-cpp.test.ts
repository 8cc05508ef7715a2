// What we write as GGUF, llama.cpp's own library loads, and its logits are ours.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { generate, loadDecoder, run, saveGguf } from "../../src/model/index.js";
import { Device } from "../../src/tensor/index.js";

const MODELS = path.resolve(import.meta.dirname, "../fixtures/golden/models");
const CHILD = path.resolve(import.meta.dirname, "llama/llama-cpp.mjs");
const runnable = existsSync(MODELS) && process.platform === "linux" && process.arch === "x64";
if (!runnable) console.log("skipped: no libllama for this platform");

const folder = await mkdtemp(path.join(tmpdir(), "gguf-"));
afterAll(() => rm(folder, { recursive: true }));

describe.skipIf(!runnable)("GGUF for llama.cpp", () => {
  test.each(["llama-mha-tied", "llama3-gqa", "mistral", "qwen2", "qwen2-yarn", "qwen3", "gemma2", "gemma3"])(
    "%s: logits in F32",
    async (name) => {
      using device = Device.open({ threads: 1 });
      using loaded = await loadDecoder(path.join(MODELS, name), device);
      // llama.cpp knows one attention scale and one order of windows for each Gemma; the golden models have others.
      const period = name === "gemma2" ? 2 : 6;
      const { config: given } = loaded;
      const windowed = given.windows.find((each) => each !== null) ?? null;
      const windows = given.windows.map((_, k) => (windowed && k % period !== period - 1 ? windowed : null));
      const local = given.rope[given.windows.findIndex((each) => each !== null)];
      // Not 10,000, which llama.cpp assumes of Gemma 3 where the file says nothing; Gemma 2 has one rope.
      const other = { ...local!, theta: 30_000 };
      const full = given.rope[given.windows.indexOf(null)];
      const config = name.startsWith("gemma")
        ? {
            ...given,
            windows,
            attentionScale: given.headDim ** -0.5,
            rope: windows.map((each) => (each === null || name === "gemma2" ? full! : other)),
          }
        : given;
      using model = loaded.copy(config);
      const file = path.join(folder, `${name}.gguf`);
      await saveGguf(file, model);
      const ids = [3, 17, 40, 9, 77, 120, 64, 5, 33, 81, 2, 19];
      const { logits } = await run(model, [ids], { logits: "last" });
      const output = execFileSync(process.execPath, [CHILD, "logits", file, JSON.stringify(ids)], {
        encoding: "utf8",
      });
      const theirs = Float32Array.from(JSON.parse(output) as number[]);
      expect(theirs.length).toBe(logits!.length);
      const worst = theirs.reduce(
        (most, value, i) => Math.max(most, Math.abs(value - (logits![i] as number))),
        0,
      );
      console.log(`${name}: largest difference ${worst.toExponential(1)}`);
      expect(worst).toBeLessThan(1e-3);

      const [mine] = await generate(model, [ids], { maxNewTokens: 24, temperature: 0, stopTokens: [] });
      const greedy = [CHILD, "greedy", file, JSON.stringify(ids), "24", "1", "plain"];
      const made = JSON.parse(execFileSync(process.execPath, greedy, { encoding: "utf8" })) as {
        tokens: number[];
      };
      if (!name.startsWith("gemma")) expect(mine?.tokens).toEqual(made.tokens);

      if (name.startsWith("gemma")) return; // its scale is no longer the config.json's
      using again = await loadDecoder(file, device, {}, "f32");
      const read = await run(again, [ids], { logits: "last" });
      const apart = read.logits!.reduce(
        (most, value, i) => Math.max(most, Math.abs(value - (logits![i] as number))),
        0,
      );
      expect(apart).toBeLessThan(1e-5);
    },
    60_000,
  );
});
