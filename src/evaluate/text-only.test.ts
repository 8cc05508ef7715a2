// The text-only control: what its window shows it, what it does not, and what it says in the place of a pair.
import path from "node:path";
import { describe, expect, it } from "vitest";
import { loadNla } from "../nla/read.js";
import { Device } from "../tensor/index.js";
import { worldDocument } from "../world/documents.js";
import { truthAt } from "../world/facts.js";
import type { Category } from "../world/facts.js";
import type { ExplainedRow } from "./explained-rows.js";
import { textFeatures } from "./text-features.js";
import { explainByText } from "./text-only-control.js";
import { fitTextOnly } from "./text-only.js";

const FAR = 36;
const documents = Array.from({ length: 150 }, (_, i) => worldDocument(1, 45_000_000 + i));

describe("features of a text", () => {
  const texts = Array.from({ length: 6 }, () => "a b c d".split(" "));

  it("are those of the window alone, pairs and triples within it", () => {
    const features = textFeatures(texts, 2);
    expect(features.of(["a", "b", "c", "d"])).toEqual(features.of(["x", "x", "c", "d"]));
    expect(features.of(["c", "d"]).length).toBe(5); // two words, a pair, two places
    expect(new Set(features.of(["c", "d"]))).not.toEqual(new Set(features.of(["d", "c"])));
    expect(textFeatures(texts, null).of(["a", "b", "c", "d"]).length).toBe(4 + 3 + 2 + 3);
    expect(features.of(["x", "y"]).length).toBe(0);
  });
});

describe("a text-only model", () => {
  it("names a cue that it sees, is at chance where it stands outside its window, and copies the last words", async () => {
    const options = { categories: ["kind", "test"] as Category[], documents: 400, positions: 8, epochs: 2 };
    const short = await fitTextOnly({ ...options, window: 12 });
    const whole = await fitTextOnly({ ...options, window: null });
    const rightOf = (model: typeof short) => {
      const right: boolean[] = [];
      for (const document of documents) {
        for (let position = 20; position < document.words.length; position += 9) {
          const fact = truthAt(document, position).find(({ category }) => category === "test");
          if (!fact || position - fact.from < FAR) continue;
          right.push(model.guesses(document, position, "test")[0]?.value === fact.value);
        }
      }
      return right.filter(Boolean).length / right.length;
    };
    expect(rightOf(whole)).toBeGreaterThan(0.75);
    expect(rightOf(short)).toBeGreaterThan(0.35);
    expect(rightOf(short)).toBeLessThan(0.65);
    const document = documents[0]!;
    const [word] = short.guesses(document, 20, "word");
    expect(word).toEqual({ value: document.words[20], probability: 1 });
    const guesses = short.guesses(document, 20, "kind");
    const total = guesses.reduce((sum, { probability }) => sum + probability, 0);
    expect(total).toBeLessThanOrEqual(1 + 1e-9);
    expect(guesses[0]!.value).toBe(document.kind);

    // In the place of a pair: as many claims, or its categories.
    const rows: ExplainedRow[] = [
      {
        docId: "world-1:train:45000000",
        position: 21,
        text: null,
        vector: new Float32Array(4),
        explanation: "this is a log . this seems to be a test . the topic is war .",
        reconstruction: null,
        tokens: 12,
      },
    ];
    using device = Device.open({ threads: 1 });
    using nla = await loadNla(path.resolve(import.meta.dirname, "../../assets/smallworld"), device);
    const explain = async (choice: "surest" | "pair's categories") => {
      const [row] = await explainByText(short, nla, rows, choice);
      expect(row!.reconstruction).toHaveLength(nla.reconstructor.contract.dim);
      return row!.explanation!;
    };
    const surest = await explain("surest");
    expect(surest.split(" .").length - 1).toBe(3);
    expect(surest).toMatch(/the last word is/);
    const same = await explain("pair's categories");
    expect(same).toMatch(/^this is an? \w+ \. this seems to be (a test|real) \.$/); // no model of topics was fitted
  }, 120_000);

  it("refuses what cannot be fitted", async () => {
    await expect(fitTextOnly({ window: 0 })).rejects.toMatchObject({ code: "text-only.documents" });
    await expect(fitTextOnly({ window: 12, documents: 3 })).rejects.toMatchObject({
      code: "text-only.documents",
    });
  });
});
