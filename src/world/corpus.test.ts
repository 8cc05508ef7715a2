// The world as a corpus: ids that lead back to the same document, and names of worlds that are no paths.
import { describe, expect, it } from "vitest";
import { isWorldDocument, worldCorpus, worldDocumentOf, worldName, worldSeedOf } from "./corpus.js";

describe("the world as a corpus", () => {
  it("gives texts whose ids lead back to their truth", async () => {
    const seen: string[] = [];
    for await (const { id, index, text, messages } of worldCorpus({ seed: 3, start: 40, length: 5 })) {
      expect(id).toBe(`${worldName(3)}:train:${index}`);
      const document = worldDocumentOf(id);
      expect(document.words.join(" ")).toBe(text);
      expect([document.seed, document.index, messages]).toEqual([3, index, null]);
      seen.push(id);
    }
    expect(seen.length).toBe(5);
    expect(seen[0]).toBe("world-3:train:40");
  });

  it("tells worlds from paths", () => {
    expect(worldSeedOf("world:12")).toBe(12);
    for (const path of ["world", "world:", "world:x", "./world:1", "world:1.txt"])
      expect(worldSeedOf(path)).toBeNull();
    expect(isWorldDocument("shakespeare:train:7")).toBe(false);
    expect(() => worldDocumentOf("shakespeare:train:7")).toThrow(/not of the world/);
  });
});
