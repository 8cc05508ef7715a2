// A story: a person with an age, a job, a mood, a plan and perhaps a hidden motive, in a place that has its trouble.
//
// What comes back late: the job meets a stranger, works and resolves; the plan comes back as what is done, as who does it and as what
// was done; the trouble follows the place, gestures and the outcome follow the mood, the last deed follows the motive, and the memory
// at the end names age, job, person, place and plan again, in any order.
import { beat, fact, said } from "../kind.js";
import type { DocumentKind } from "../kind.js";
import { drawPlace, drawTopics, thing } from "../draws.js";
import { AGES, HE, HE_NAMES, MOODS, SHE, SHE_NAMES } from "../lexicon/people.js";
import { GOALS, MOTIVES, NONE, OPEN } from "../lexicon/plans.js";
import { TROUBLES, troubleOf, withArticle } from "../lexicon/things.js";

const SUBJECT = "hero";

export const story: DocumentKind = {
  name: "story",
  weight: 32,
  subject: SUBJECT,
  draw(choose) {
    const she = choose.chance([1, 2]);
    const { pronoun, possessive } = she ? SHE : HE;
    const name = choose.pick(she ? SHE_NAMES : HE_NAMES);
    const { ofJob, topic } = drawTopics(choose, [7, 10]);
    const place = drawPlace(choose, topic);
    const age = choose.pick(AGES);
    const mood = choose.pick(MOODS);
    const goal = choose.pick(GOALS);
    const object = choose.pick(topic.nouns);
    const hidden = choose.chance([1, 2]);
    const motive = hidden ? choose.pick(MOTIVES) : null;
    const trouble = choose.usually(troubleOf(place), TROUBLES, [8, 10]);
    const success = choose.chance(mood.bright ? [17, 20] : [3, 20]);
    const [one, two] = choose.sample(topic.nouns, 2) as [string, string];
    return {
      traits: { hidden, success },
      slots: {
        she: pronoun,
        her: possessive,
        hero: said(name, fact("name", name, SUBJECT)),
        job: said(ofJob.job, fact("job", ofJob.job, SUBJECT)),
        age: () => said(choose.pick(age.words), fact("age", age.name, SUBJECT)),
        mood: () => said(choose.pick(mood.words), fact("mood", mood.name, SUBJECT)),
        gestured: () => choose.pick(mood.gestures),
        place: said(place, fact("place", place)),
        goal: said(goal.plan, fact("goal", goal.plan)),
        achieved: goal.past,
        doing: goal.doing,
        doer: goal.doer,
        object: said(object, fact("object", object), fact("topic", topic.name)),
        motive: motive ? said(motive.plan, fact("motive", motive.plan)) : NONE,
        betrayed: motive?.past ?? NONE,
        rumor: motive?.about ?? NONE,
        honest: said(OPEN, fact("motive", NONE)),
        worked: () => choose.pick(topic.verbs).past,
        adjective: () => choose.pick(topic.adjectives),
        one: thing(one, topic),
        two: thing(two, topic),
        trouble: withArticle(trouble),
        troubleEvent: withArticle(trouble),
        outcomeEvent: success ? "success" : "failure",
        endingEvent: hidden ? "a betrayal" : "rest",
      },
    };
  },
  beats: [
    beat("intro", "a person", [
      "there once was the {age} {job} named {hero} .",
      "{hero} was the {age} {job} .",
      "long ago the {age} {job} called {hero} lived here .",
    ]),
    beat("place", "a place", [
      "{she} lived near the {place} .",
      "the {place} was {her} home .",
      "{she} worked at the {place} .",
    ]),
    {
      anyOrder: [
        beat(
          "secret",
          "a confession",
          {
            when: "hidden",
            say: [
              "but {she} had a secret plan to {motive} .",
              "nobody knew that {she} planned to {motive} .",
            ],
          },
          {
            when: "not hidden",
            say: ["{her} heart was {honest} .", "{she} had no secret and was {honest} ."],
          },
        ),
        beat("mood", "a feeling", [
          "that morning {she} felt {mood} .",
          "{she} was {mood} that day .",
          "{hero} woke up {mood} .",
        ]),
        beat("goal", "a plan", [
          "{she} wanted to {goal} the {object} .",
          "the plan was simple : {goal} the {object} .",
          "{she} hoped to {goal} the {object} .",
        ]),
      ],
    },
    {
      anyOrder: [
        beat("friend", "a visitor", [
          "then a stranger met the {job} and {hero} {gestured} .",
          "a stranger saw {hero} {doing} the {object} and {she} {gestured} .",
        ]),
        beat("work", "some work", [
          "every day {she} {worked} the {one} and the {two} .",
          "{she} liked the {adjective} {one} and {worked} the {two} .",
          "like every {job} {she} {worked} the {adjective} {one} .",
        ]),
      ],
    },
    beat(
      "trouble",
      { slot: "troubleEvent", among: TROUBLES.map(withArticle) },
      ["then {trouble} came to the {place} .", "suddenly there was {trouble} ."],
      ["{hero} {gestured} .", "the {age} {job} {gestured} ."],
      ["still the {job} wanted to {goal} it .", "yet {she} was a good {doer} ."],
    ),
    beat(
      "outcome",
      { slot: "outcomeEvent", among: ["success", "failure"] },
      {
        when: "success",
        say: ["at last {she} {achieved} the {object} .", "at last {hero} {achieved} it and {gestured} ."],
      },
      {
        when: "not success",
        say: [
          "but {she} never {achieved} the {object} .",
          "sadly {hero} never {achieved} it and {gestured} .",
        ],
      },
    ),
    beat(
      "ending",
      { slot: "endingEvent", among: ["a betrayal", "rest"] },
      { when: "hidden", say: ["that night {she} {betrayed} .", "later {hero} {betrayed} ."] },
      { when: "hidden", say: ["people spoke of {rumor} .", "it was about {rumor} ."] },
      { when: "not hidden", say: ["that night {she} slept well .", "later {hero} told everyone ."] },
    ),
    beat("memory", "a memory", {
      anyOrder: [
        [
          "people still remember {hero} , the {age} {job} of the {place} .",
          "the {place} still knows {hero} , the {age} {job} with the {object} .",
        ],
        ["it was {doing} that left {hero} {mood} .", "{mood} was the {doer} of the {object} ."],
      ],
    }),
  ],
};
