// The layers: a file imports from its own folder or from folders below it, never upwards, and native calls stay in engine/.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";

const SOURCE = path.resolve(import.meta.dirname, "../src");

// What each folder may import, besides itself and error.ts.
const BELOW: Readonly<Record<string, readonly string[]>> = {
  engine: [],
  tensor: ["engine"],
  text: [],
  data: [],
  world: ["data"],
  model: ["tensor", "data"],
  nla: ["tensor", "model", "text", "data"],
  pipeline: ["tensor", "model", "text", "data", "nla"],
  evaluate: ["tensor", "model", "text", "data", "nla", "world"],
  train: ["tensor", "model", "text", "data", "nla", "pipeline", "evaluate", "world"],
  check: ["tensor", "model", "text", "data", "nla", "pipeline", "train"],
  serve: ["tensor", "model", "text", "data", "nla"],
  cli: [
    "check",
    "serve",
    "engine",
    "tensor",
    "model",
    "text",
    "data",
    "nla",
    "pipeline",
    "evaluate",
    "train",
    "world",
  ],
};
// These may load native libraries; koffi is the engine's alone.
const NATIVE: Readonly<Record<string, string>> = { koffi: "engine", "@duckdb/node-api": "data" };

interface Import {
  readonly file: string;
  readonly folder: string;
  readonly specifier: string;
}

function importsOf(folder: string): Import[] {
  return readdirSync(path.join(SOURCE, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts") && !name.includes("testing"))
    .flatMap((name) => {
      const file = path.join(SOURCE, folder, name);
      const text = readFileSync(file, "utf8");
      return [...text.matchAll(/^(?:import|export)\b[^;]*?from\s+"([^"]+)";/gm)].map(([, specifier]) => {
        return { file: path.relative(SOURCE, file), folder, specifier: specifier as string };
      });
    });
}

const folders = readdirSync(SOURCE, { withFileTypes: true }).flatMap((entry) =>
  entry.isDirectory() ? [entry.name] : [],
);
const all = folders.flatMap(importsOf);

describe("imports", () => {
  test("every folder of src is a known layer", () => {
    expect(folders.sort()).toEqual(Object.keys(BELOW).sort());
  });

  test("there are imports to check", () => {
    expect(all.length).toBeGreaterThan(200);
  });

  test("they go down the layers only", () => {
    const upwards = all.filter(({ file, folder, specifier }) => {
      if (!specifier.startsWith(".")) return false;
      const target = path.relative(SOURCE, path.resolve(SOURCE, path.dirname(file), specifier));
      const [layer] = target.split(path.sep);
      if (target === "error.js" || layer === folder) return false;
      return !BELOW[folder]?.includes(layer as string);
    });
    expect(upwards).toEqual([]);
  });

  test("native libraries are loaded where they belong", () => {
    const misplaced = all.filter(({ folder, specifier }) => {
      const owner = NATIVE[specifier];
      return owner !== undefined && owner !== folder;
    });
    expect(misplaced).toEqual([]);
  });

  test("no file is over 600 lines", () => {
    const long = readdirSync(path.resolve(SOURCE, ".."), { recursive: true, encoding: "utf8" })
      .filter((name) => /^(src|test|bench|examples)\/.*\.(ts|mjs)$/.test(name))
      .map((name) => ({
        name,
        lines: readFileSync(path.resolve(SOURCE, "..", name), "utf8").split("\n").length,
      }))
      .filter(({ lines }) => lines > 601);
    expect(long).toEqual([]);
  });
});
