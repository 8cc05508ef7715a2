// docs/config.md says what the schema says. Run with `-u` to write it anew after a change of the schema.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { format, resolveConfig } from "prettier";
import { describe, expect, it } from "vitest";
import { CONFIG_KEYS, configMarkdown } from "./config-keys.js";

const file = path.resolve(import.meta.dirname, "../../docs/config.md");

describe("docs/config.md", () => {
  it("is what the schema gives", async () => {
    const options = await resolveConfig(file);
    const text = await format(configMarkdown(), { ...options, filepath: file });
    await expect(text).toMatchFileSnapshot(file);
  });

  it("documents each key once, with its default", async () => {
    const text = await readFile(file, "utf8");
    const rows = text.split("\n").filter((line) => line.startsWith("| `"));
    const keys = CONFIG_KEYS.filter(({ type }) => type !== "section");
    expect(rows.map((row) => row.split("`")[1]).sort()).toEqual(keys.map((key) => key.path).sort());
    for (const key of CONFIG_KEYS) expect(key.description, key.path).not.toBe("");
  });
});
