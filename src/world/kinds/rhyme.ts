// A rhyme of three couplets. The second line is planned: its verb belongs to the rhyme word that will end it, so from the verb on a
// reader can know the word that is still to come.
//
// What comes back late: the animals of the first couplets, in the last line.
import { beat, fact, said } from "../kind.js";
import type { Beat, DocumentKind, Slot } from "../kind.js";
import { adjectiveBefore, ANIMALS, FAMILIES, verbBefore } from "../lexicon/rhymes.js";

const COUPLETS = [1, 2, 3] as const;

export const rhyme: DocumentKind = {
  name: "rhyme",
  weight: 6,
  subject: null,
  draw(choose) {
    const families = choose.sample(FAMILIES, COUPLETS.length);
    const animals = choose.sample(ANIMALS, COUPLETS.length);
    const slots: Record<string, Slot> = {};
    for (const [i, number] of COUPLETS.entries()) {
      const family = families[i] as readonly string[];
      const [first, second] = choose.sample(family, 2) as [string, string];
      slots[`animal${number}`] = animals[i] as string;
      slots[`first${number}`] = first;
      slots[`verb${number}`] = said(verbBefore(family, second), fact("rhyme", second));
      slots[`adjective${number}`] = adjectiveBefore(second);
      slots[`second${number}`] = { words: second, ends: "rhyme" };
    }
    return { slots };
  },
  beats: [
    ...COUPLETS.flatMap(couplet),
    beat("last line", "a last line", [
      "and so the {animal1} and the {animal2} and the {animal3} slept .",
      "then {animal1} and {animal2} and {animal3} went home .",
    ]),
  ],
};

function couplet(number: number): Beat[] {
  return [
    beat("first line", "a first line", [
      `the {animal${number}} went out to see the {first${number}} ,`,
      `one day the {animal${number}} saw the {first${number}} ,`,
    ]),
    beat("second line", "a second line", [
      `and {verb${number}} about the {adjective${number}} {second${number}} .`,
      `it {verb${number}} all day of the {adjective${number}} {second${number}} .`,
    ]),
  ];
}
