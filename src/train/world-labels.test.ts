// Labels of the world as the pipeline asks for them: true at the token that BOS shifts by one, imperfect as often as the dials say.
import { describe, expect, it } from "vitest";
import { scoreClaims } from "../evaluate/claims.js";
import { explainedTokens } from "../evaluate/world-claims.js";
import { worldDocument } from "../world/documents.js";
import { dialsOf, worldLabeller } from "./world-labels.js";
import type { WorldLabelSettings } from "./world-labels.js";

const DIALS: WorldLabelSettings = {
  keep: 1,
  garble: 0,
  generic: 0,
  most: null,
  rich: 0,
  rich_keep: 1,
  seldom: [],
  seldom_keep: 0,
  reordered: 0,
};
const requests = Array.from({ length: 200 }, (_, i) => {
  const position = 5 + (i % 40);
  return { docId: `world-1:train:${i}`, position, textBefore: "", textAfter: "" };
});

async function scored(dials: Partial<WorldLabelSettings>) {
  const labels = await worldLabeller({ ...DIALS, ...dials }, 9).label(requests);
  const rows = requests.map(({ docId, position }, i) => {
    return { docId, position, explanation: labels[i] as string };
  });
  return { labels, scores: scoreClaims(explainedTokens(rows), { seed: 0, resamples: 10 }) };
}

const sentences = (label: string | null) => (label ?? "").split(/(?<= \.) /);

/** How many of the labels name the last word, where it is a seldom category. */
async function withWord(dials: Partial<WorldLabelSettings>): Promise<number> {
  const { labels } = await scored({ seldom: ["word", "kind"], seldom_keep: 0.25, ...dials });
  const word = /(last word is|stops at) /;
  return labels.filter((label) => word.test(label ?? "")).length / labels.length;
}

describe("worldLabeller", () => {
  it("says all that is true at the token, which BOS puts one further", async () => {
    const { labels, scores } = await scored({});
    expect(scores.overall.precision?.value).toBe(1);
    expect(scores.overall.recall?.value).toBe(1);
    const word = worldDocument(1, 0).words[4] as string;
    expect(labels[0]).toMatch(
      new RegExp(`(stops at|last word is) ${/^[a-z]/.test(word) ? word : "\\w+"} \\.$`),
    );
  });

  it("garbles, limits and mixes as the dials say, the same each time", async () => {
    const { labels, scores } = await scored({ garble: 0.2 });
    expect(scores.overall.precision!.value).toBeGreaterThan(0.75);
    expect(scores.overall.precision!.value).toBeLessThan(0.85);
    expect((await scored({ garble: 0.2 })).labels).toEqual(labels);
    const short = await scored({ keep: 0.4, most: 5 });
    expect(short.scores.sentences.value).toBeLessThan(5.01);
    const mixed = await scored({ keep: 0.4, most: 5, rich: 0.5 });
    expect(mixed.scores.sentences.value).toBeGreaterThan(short.scores.sentences.value + 1);
  });

  it("keeps seldom categories as seldom as it is told, but in rich labels", async () => {
    expect(await withWord({})).toBeGreaterThan(0.15);
    expect(await withWord({})).toBeLessThan(0.35);
    expect(await withWord({ rich: 1 })).toBe(1);
  });

  it("reorders as many labels as it is told, which say the same claims, and leaves the others as they are", async () => {
    const { labels: ordered } = await scored({ keep: 0.7, garble: 0.1, most: 12 });
    const { labels } = await scored({ keep: 0.7, garble: 0.1, most: 12, reordered: 0.5 });
    const moved = labels.filter((label, i) => label !== ordered[i]);
    expect(moved.length / labels.length).toBeGreaterThan(0.4);
    expect(moved.length / labels.length).toBeLessThan(0.6);
    labels.forEach((label, i) => {
      expect(sentences(label).sort()).toEqual(sentences(ordered[i] ?? null).sort());
    });
    const { labels: all } = await scored({ keep: 0.7, garble: 0.1, most: 12, reordered: 1 });
    const first = all.map((label) => sentences(label)[0]?.split(" ").slice(0, 2).join(" "));
    expect(new Set(first).size).toBeGreaterThan(12); // any category begins such a label
  });

  it("reorders nothing that the verbalizer learns to say", () => {
    const dials = { ...DIALS, reordered: 0.5 };
    expect(dialsOf(dials, "ar_sft").reordered).toBe(0.5);
    expect(dialsOf(dials, "av_sft").reordered).toBe(0);
    expect(dialsOf(dials, "eval").reordered).toBe(0);
  });

  it("refuses documents whose truth is not known", async () => {
    const other = [{ docId: "shakespeare:train:1", position: 6, textBefore: "a", textAfter: "" }];
    await expect(worldLabeller(DIALS, 1).label(other)).rejects.toMatchObject({
      code: "world.document",
    });
  });
});
