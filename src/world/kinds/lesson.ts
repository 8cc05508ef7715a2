// A lesson about three things of one topic: each belongs to it, and has two of colour and size, material, and use, as the world knows.
//
// What comes back late: the topic, in every definition and use and in the summary.
import { beat, fact, said } from "../kind.js";
import type { DocumentKind, Slot } from "../kind.js";
import { thing } from "../draws.js";
import { colorOf, materialOf, sizeOf } from "../lexicon/things.js";
import { TOPICS } from "../lexicon/topics.js";

const THINGS = [1, 2, 3] as const;
const PROPERTIES = ["look", "material", "use"] as const;

export const lesson: DocumentKind = {
  name: "lesson",
  weight: 9,
  subject: null,
  draw(choose) {
    const topic = choose.pick(TOPICS);
    const nouns = choose.sample(topic.nouns, THINGS.length);
    const slots: Record<string, Slot> = {
      topic: said(topic.name, fact("topic", topic.name)),
      job: topic.job,
      does: () => choose.pick(topic.verbs).base,
      means: () => thing(choose.pick(topic.nouns), topic),
    };
    const traits: Record<string, boolean> = {};
    for (const [i, number] of THINGS.entries()) {
      const noun = nouns[i] as string;
      const untold = choose.pick(PROPERTIES);
      slots[`thing${number}`] = thing(noun, topic);
      slots[`material${number}`] = materialOf(noun);
      slots[`look${number}`] = `${sizeOf(noun)} and ${colorOf(noun)}`;
      for (const property of PROPERTIES) traits[property + number] = property !== untold;
    }
    return { slots, traits };
  },
  beats: [
    ...THINGS.flatMap(aboutThing),
    beat("summary", "a summary", [
      "so much for {topic} and the {job} .",
      "this was {topic} , as the {job} knows .",
    ]),
  ],
};

function aboutThing(number: number): DocumentKind["beats"] {
  return [
    beat("definition", "a definition", [`the {thing${number}} belongs to {topic} .`]),
    {
      anyOrder: [
        { ...beat("look", "a look", [`it is {look${number}} .`]), when: `look${number}` },
        {
          ...beat("material", "a material", [`it is made of {material${number}} .`]),
          when: `material${number}`,
        },
        { ...beat("use", "a use", ["the {job} can {does} it with the {means} ."]), when: `use${number}` },
      ],
    },
  ];
}
