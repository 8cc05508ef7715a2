// A part of a model that was split over several GGUF files is refused as one. Damaged files are fuzz.test.ts and test/model/gguf-fuzz.test.ts.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, it } from "vitest";
import { openGguf } from "./gguf.js";
import { writeGguf } from "./gguf-write.js";
import type { GgufField } from "./gguf-write.js";

const folder = mkdtempSync(path.join(tmpdir(), "nlakit-gguf-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it.each([
  [1, null],
  [3, "gguf.split"],
])("split.count %s", async (count, code) => {
  const file = path.join(folder, `m-${count}.gguf`);
  const metadata = new Map<string, GgufField>([
    ["general.architecture", { type: "string", value: "llama" }],
    ["split.count", { type: "u32", value: count }],
  ]);
  const data = new Uint8Array(16);
  await writeGguf(file, metadata, [{ name: "token_embd.weight", dtype: "F32", shape: [1, 4], data }]);
  if (code === null) await (await openGguf(file)).close();
  else await expect(openGguf(file)).rejects.toMatchObject({ code, found: "one of 3 parts of a model" });
});
