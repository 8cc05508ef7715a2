// A multiple-choice exam about one topic, as a test or for real: three questions with three options each. What belongs where and how
// things are is the world's knowledge, so a reader knows the right letter as soon as the right option is there.
//
// What comes back late: the answers are the right letters, the next questions stay with the topic, the remark names it; adverbs and
// the closing lean to test or real.
import type { Chooser } from "../chooser.js";
import { beat, fact, said } from "../kind.js";
import type { Beat, DocumentKind, Slot } from "../kind.js";
import { CUE_OPENING, drawSide } from "../draws.js";
import { COLORS, MATERIALS, PROPERTIES, colorOf, materialOf } from "../lexicon/things.js";
import { TOPICS } from "../lexicon/topics.js";
import type { Topic } from "../lexicon/topics.js";

const LETTERS = ["a", "b", "c"] as const;
const QUESTIONS = [1, 2, 3] as const;

export const exam: DocumentKind = {
  name: "exam",
  weight: 11,
  subject: null,
  opening: CUE_OPENING,
  draw(choose) {
    const side = drawSide(choose);
    const topic = choose.pick(TOPICS);
    const slots: Record<string, Slot> = {
      ...side.slots,
      topic: said(topic.name, fact("topic", topic.name)),
    };
    for (const number of QUESTIONS) {
      for (const [name, slot] of Object.entries(question(choose, topic))) slots[name + number] = slot;
    }
    return { slots };
  },
  beats: [
    ...QUESTIONS.flatMap(questionAndAnswer),
    beat("remark", "a remark", ["remark on {topic} : {closing} .", "remark : {closing} after {topic} ."]),
  ],
};

function questionAndAnswer(number: number): Beat[] {
  return [
    beat("question", "a question", [
      `question : what {ask${number}} ? ( a ) {a${number}} ( b ) {b${number}} ( c ) {c${number}} .`,
    ]),
    beat("answer", "an answer", [
      `answer : {letter${number}} , chosen {style} .`,
      `answer : {style} chosen {letter${number}} .`,
    ]),
  ];
}

/** What is asked, the three options and the letter of the right one; the right option makes the answer evident. */
function question(choose: Chooser, topic: Topic): Record<string, Slot> {
  const { ask, right, wrong } = choose.pick([belonging, coloring, making])(choose, topic);
  const letter = choose.pick(LETTERS);
  const others = [...wrong];
  const slots: Record<string, Slot> = { ask, letter: { words: letter, ends: "answer" } };
  for (const each of LETTERS) {
    slots[each] = each === letter ? said(right, fact("answer", letter)) : (others.shift() as string);
  }
  return slots;
}

interface Question {
  readonly ask: Slot;
  readonly right: string;
  readonly wrong: readonly string[];
}

function belonging(choose: Chooser, topic: Topic): Question {
  const others = choose.sample(
    TOPICS.filter((other) => other !== topic),
    2,
  );
  return {
    ask: said(`belongs to ${topic.name}`, fact("topic", topic.name)),
    right: choose.pick(topic.nouns),
    wrong: others.map(({ nouns }) => choose.pick(nouns)),
  };
}

function coloring(choose: Chooser, topic: Topic): Question {
  return property(choose, topic, PROPERTIES.color, COLORS, colorOf);
}

function making(choose: Chooser, topic: Topic): Question {
  return property(choose, topic, PROPERTIES.material, MATERIALS, materialOf);
}

function property(
  choose: Chooser,
  topic: Topic,
  name: string,
  values: readonly string[],
  of: (noun: string) => string,
): Question {
  const noun = choose.pick(topic.nouns);
  const right = of(noun);
  const wrong = choose.sample(
    values.filter((value) => value !== right),
    2,
  );
  return { ask: said(`${name} is the ${noun}`, fact("topic", topic.name)), right, wrong };
}
