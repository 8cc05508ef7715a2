// Composition from a made-up kind: beats, wordings, slots, traits, orders, and where facts begin and end. A kind is one value; nothing
// else has to know it to write its documents.
import { describe, expect, it } from "vitest";
import { Chooser } from "./chooser.js";
import { compose } from "./compose.js";
import { beat, beatIf, fact, said } from "./kind.js";
import type { DocumentKind, Scene } from "./kind.js";

function letter(scene: Scene, beats?: DocumentKind["beats"]): DocumentKind {
  return {
    name: "letter",
    weight: 1,
    subject: "writer",
    draw: () => scene,
    beats: beats ?? [
      beat("greeting", "a greeting", ["dear {name} ,"]),
      beatIf("rainy", "weather", { slot: "weatherEvent", among: ["rain"] }, ["it rains in the {place} ."]),
      beat("farewell", "a farewell", ["yours , {name} ."]),
    ],
  };
}

const SLOTS = {
  name: said("old mira", fact("name", "mira", "writer")),
  place: said("barn", fact("place", "barn")),
  weatherEvent: "rain",
};

const plan = (word: string) => said("sang of", fact("rhyme", word));
const part = (name: string) => beat(name, `a ${name}`, [name]);

describe("compose", () => {
  it("writes beats in order, with what is now and next", () => {
    const { words, facts } = compose(letter({ slots: SLOTS, traits: { rainy: true } }), new Chooser(1));
    expect(words.join(" ")).toBe("dear old mira , it rains in the barn . yours , old mira .");
    const of = (category: string) =>
      facts.filter((each) => each.category === category).map(({ value, from, end }) => [value, from, end]);
    expect(of("now")).toEqual([
      ["greeting", 0, 4],
      ["weather", 4, 10],
      ["farewell", 10, 15],
    ]);
    expect(of("next").map(([value]) => value)).toEqual(["rain", "a farewell", "the end"]);
    // Known from the last of its words on, and known once.
    expect(of("name")).toEqual([["writer:mira", 2, 15]]);
    expect(of("place")).toEqual([["barn", 8, 15]]);
    expect(of("kind")).toEqual([["letter", 2, 15]]);
  });

  it("leaves out beats whose trait does not hold", () => {
    const { words, facts } = compose(letter({ slots: SLOTS, traits: { rainy: false } }), new Chooser(1));
    expect(words.join(" ")).toBe("dear old mira , yours , old mira .");
    expect(facts.find(({ category }) => category === "next")?.value).toBe("a farewell");
  });

  it("knows a kind with an opening only after it", () => {
    const kind = { ...letter({ slots: SLOTS, traits: { rainy: false } }), opening: [["by post ."]] };
    const { words, facts } = compose(kind, new Chooser(1));
    expect(words.slice(0, 4)).toEqual(["by", "post", ".", "dear"]);
    expect(facts.find(({ category }) => category === "kind")?.from).toBe(3);
  });

  it("ends a fact where a slot says so, and begins it anew", () => {
    const scene = {
      slots: { one: plan("cat"), cat: { words: "cat", ends: "rhyme" as const }, two: plan("hat") },
    };
    const kind = letter(scene, [beat("line", "a line", ["she {one} a {cat} , {two} it"])]);
    const rhymes = compose(kind, new Chooser(1)).facts.filter(({ category }) => category === "rhyme");
    expect(rhymes.map(({ value, from, end }) => [value, from, end])).toEqual([
      ["cat", 2, 4],
      ["hat", 7, 9],
    ]);
  });

  it("writes beats and sentences in every order, each once, and counts the cost", () => {
    const kind = letter({ slots: {} }, [
      { anyOrder: [part("x"), part("y")] },
      beat("last", "a last", { anyOrder: [["p"], ["q"]] }),
    ]);
    const texts = new Set<string>();
    for (let i = 0; i < 50; i++) {
      const choose = new Chooser(2, i);
      texts.add(compose(kind, choose).words.join(" "));
      expect(choose.nats).toBeCloseTo(Math.log(4), 12);
    }
    expect([...texts].sort()).toEqual(["x y p q", "x y q p", "y x p q", "y x q p"]);
  });

  it("names the kind and what its scene lacks", () => {
    expect(() => compose(letter({ slots: {}, traits: { rainy: true } }), new Chooser(1))).toThrow(
      /document kind letter: found \{name\}; wanted a slot/,
    );
    expect(() => compose(letter({ slots: SLOTS }), new Chooser(1))).toThrow(/found when: "rainy"/);
    const scene = { slots: { ...SLOTS, weatherEvent: said("rain") }, traits: { rainy: true } };
    expect(() => compose(letter(scene), new Chooser(1))).toThrow(/weatherEvent.*plain words/);
  });
});
