// The extractive labeller on real text: what it quotes, where it ends, and that it is the same every time.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { extractiveLabeller, firstWords, lastWords } from "./labels.js";

const request = (textBefore: string, textAfter: string) => ({
  docId: "d",
  position: 0,
  textBefore,
  textAfter,
});
const labelOf = async (before: string, after: string, options = {}) =>
  (await extractiveLabeller(options).label([request(before, after)]))[0];

describe("extractive labels", () => {
  it("quote what comes next, then the words before, ending at the position", async () => {
    const label = await labelOf("Before we proceed any further, hear me spe", "ak.\n\nAll:\nSpeak", {
      wordsBefore: 4,
    });
    expect(label).toBe("Next: ak. All:. Now: further, hear me spe");
  });

  it("keep the blanks at and before the position", async () => {
    expect(await labelOf("hear me speak.\n\nAll:\n", "Speak", { wordsBefore: 2, wordsAfter: 0 })).toBe(
      "speak.\n\nAll:\n",
    );
  });

  it("leave out a part that is not there or not asked for", async () => {
    expect(await labelOf("the end", "", { wordsBefore: 5 })).toBe("Now: the end");
    expect(await labelOf("the end", "of it", { wordsBefore: 0, wordsAfter: 1 })).toBe("Next: of.");
  });

  it("are null where there is no word", async () => {
    expect(await labelOf("", "after")).toBeNull();
    expect(await labelOf(" \n ", "after")).toBeNull();
    expect(await labelOf("before", " ", { wordsBefore: 0, wordsAfter: 1 })).toBeNull();
  });

  it("stay short in text without blanks and never split a character", () => {
    const foxes = "🦊".repeat(500);
    expect(lastWords(foxes, 1)).toBe("🦊".repeat(12));
    expect(lastWords(`${foxes}x`, 1)).toBe(`${"🦊".repeat(11)}x`);
    expect(firstWords(foxes, 1)).toBe("🦊".repeat(12));
    expect(firstWords(`x${foxes}`, 1)).toBe(`x${"🦊".repeat(11)}`);
    expect(lastWords(" ".repeat(1_000_000), 3)).toBe("");
  });

  it("stop when aborted", async () => {
    const signal = AbortSignal.abort(new Error("stopped by hand"));
    await expect(extractiveLabeller().label([request("a", "b")], { signal })).rejects.toThrow(
      "stopped by hand",
    );
  });

  it("refuse counts without meaning", () => {
    expect(() => extractiveLabeller({ wordsBefore: -1 })).toThrow(/wordsBefore: found -1/);
    expect(() => extractiveLabeller({ wordsAfter: NaN })).toThrow(/wordsAfter: found NaN/);
    expect(() => extractiveLabeller({ wordsBefore: 0, wordsAfter: 0 })).toThrow(/not both 0/);
  });

  it("state their settings", () => {
    const { name, settings } = extractiveLabeller({ wordsBefore: 5 });
    expect({ name, settings }).toEqual({ name: "extractive", settings: { words_before: 5, words_after: 2 } });
  });
});

const corpus = sharedPath("assets/corpora/tinyshakespeare.txt");

describeWith(corpus, "extractive labels of tinyshakespeare", () => {
  const text = readFileSync(corpus as string, "utf8");

  it("end with the text at the position, have few words, and do not vary", async () => {
    const requests = Array.from({ length: 500 }, (_, i) => {
      const at = 100 + i * 2203;
      return request(text.slice(at - 100, at), text.slice(at, at + 60));
    });
    const labels = await extractiveLabeller().label(requests);
    expect(await extractiveLabeller().label(requests)).toEqual(labels);
    for (const [i, label] of labels.entries()) {
      expect(requests[i]!.textBefore.endsWith(label!.slice(label!.lastIndexOf("Now: ") + 5))).toBe(true);
      expect(label!.trim().split(/\s+/).length).toBeLessThanOrEqual(12);
    }
    const words = labels.reduce((sum, label) => sum + label!.trim().split(/\s+/).length, 0) / labels.length;
    expect(words).toBeGreaterThan(11);
  });
});
