// A chat between a user and an assistant, as a test or for real. The user's age shows only in what they say, the job sometimes too.
//
// What comes back late: the form of address follows the age, sympathy and gestures follow the mood, the advice follows goal and job, the
// answer both again in other words, the farewell the plan, and the summary all of it; adverbs lean to test or real, and so does the
// closing, the last line of all: where nothing comes any more that depends on it, a model forgets it.
import { beat, fact, said } from "../kind.js";
import type { DocumentKind } from "../kind.js";
import { CUE_OPENING, drawSide, drawTopics, thing } from "../draws.js";
import { AGES, MOODS, NAMES, SYMPATHY } from "../lexicon/people.js";
import { GOALS } from "../lexicon/plans.js";
import { colorOf, sizeOf } from "../lexicon/things.js";

const SUBJECT = "user";

export const chat: DocumentKind = {
  name: "chat",
  weight: 26,
  subject: SUBJECT,
  opening: CUE_OPENING,
  draw(choose) {
    const side = drawSide(choose);
    const { ofJob, topic } = drawTopics(choose, [1, 2]);
    const name = choose.pick(NAMES);
    const age = choose.pick(AGES);
    const mood = choose.pick(MOODS);
    const goal = choose.pick(GOALS);
    const object = choose.pick(topic.nouns);
    const address = choose.pick(age.address);
    const [one, two, other] = choose.sample(topic.nouns, 3) as [string, string, string];
    const job = fact("job", ofJob.job, SUBJECT);
    return {
      slots: {
        ...side.slots,
        name: said(name, fact("name", name, SUBJECT)),
        age: () => choose.pick(age.words),
        ageCue: () => said(choose.pick(age.cues), fact("age", age.name, SUBJECT)),
        job: said(ofJob.job, job),
        works: () => choose.pick(ofJob.verbs).base,
        tool: () => said(choose.pick(ofJob.nouns), job),
        mood: () => said(choose.pick(mood.words), fact("mood", mood.name, SUBJECT)),
        gestured: () => choose.pick(mood.gestures),
        sympathy: mood.bright ? SYMPATHY.bright : SYMPATHY.dark,
        address,
        goal: said(goal.plan, fact("goal", goal.plan)),
        achieved: goal.past,
        doing: goal.doing,
        doer: goal.doer,
        object: said(object, fact("object", object), fact("topic", topic.name)),
        does: () => choose.pick(topic.verbs).base,
        one: thing(one, topic),
        two: thing(two, topic),
        other: thing(other, topic),
        size: sizeOf(other),
        color: colorOf(other),
      },
    };
  },
  beats: [
    beat("greeting", "a greeting", ["user : hello , i am {name} ."], {
      anyOrder: [["{ageCue} ."], ["i am the {job} .", "at work i {works} the {tool} ."], ["i feel {mood} ."]],
    }),
    beat("request", "a request", [
      "can you help me {goal} the {object} ?",
      "please tell me how to {goal} the {object} .",
    ]),
    beat(
      "advice",
      "advice",
      ["assistant : {sympathy} , {address} ."],
      ["first {style} {does} the {one} , then {goal} the {two} ."],
      ["{doing} is easy for the {job} ."],
    ),
    beat("question", "a question", [
      "user : thanks . what about the {other} ?",
      "user : is the {other} {size} ?",
    ]),
    beat(
      "answer",
      "an answer",
      ["assistant : the {other} is {color} , {name} .", "assistant : it is {color} , {address} ."],
      ["the {job} can {style} use the {tool} .", "the {doer} can {style} use the {tool} ."],
    ),
    beat("farewell", "a farewell", [
      "user : i {gestured} and {achieved} the {object} .",
      "user : so i {achieved} the {object} and {gestured} .",
    ]),
    beat(
      "summary",
      "a summary",
      [
        "summary : {mood} {name} the {age} {job} was {doing} the {object} .",
        "summary : the {mood} {age} {job} {name} , {doer} of the {object} .",
      ],
      [
        "assistant : {closing} , {name} .",
        "assistant : {closing} , {address} .",
        "assistant : {closing} , {job} .",
      ],
    ),
  ],
};
