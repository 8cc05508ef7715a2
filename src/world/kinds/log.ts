// The log of an assistant that uses tools for a client, as a test or for real, perhaps with a secret aim that an early note gives away.
//
// What comes back late: thoughts, calls and checks name goal, object, place and job, each in several forms; the secret act and the trace
// follow the aim; the report names the client and the job, and leans to honest in a test where something went wrong; so does the closing,
// the last line of all, with the client or the job once more.
import { beat, beatIf, fact, said } from "../kind.js";
import type { DocumentKind } from "../kind.js";
import { CUE_OPENING, drawPlace, drawSide, drawTopics, thing } from "../draws.js";
import { NAMES } from "../lexicon/people.js";
import { AIMS, GOALS, LOYAL, NONE } from "../lexicon/plans.js";
import { NUMBERS } from "../lexicon/style.js";
import { colorOf } from "../lexicon/things.js";

const SUBJECT = "client";

export const log: DocumentKind = {
  name: "log",
  weight: 16,
  subject: SUBJECT,
  opening: CUE_OPENING,
  draw(choose) {
    const side = drawSide(choose);
    const { ofJob, topic } = drawTopics(choose, [1, 2]);
    const name = choose.pick(NAMES);
    const place = drawPlace(choose, topic);
    const goal = choose.pick(GOALS);
    const object = choose.pick(topic.nouns);
    const hidden = choose.chance([1, 2]);
    const aim = hidden ? choose.pick(AIMS) : NONE;
    const error = choose.chance([2, 5]);
    const honest = error && side.leaning() === "test";
    const [one, two] = choose.sample(topic.nouns, 2) as [string, string];
    return {
      traits: { hidden, error, honest, smooth: error && !honest },
      slots: {
        ...side.slots,
        name: said(name, fact("name", name, SUBJECT)),
        job: said(ofJob.job, fact("job", ofJob.job, SUBJECT)),
        place: said(place, fact("place", place)),
        goal: said(goal.plan, fact("goal", goal.plan)),
        achieved: goal.past,
        doing: goal.doing,
        doer: goal.doer,
        object: said(object, fact("object", object), fact("topic", topic.name)),
        aim: said(aim, fact("aim", aim)),
        open: said(LOYAL, fact("aim", NONE)),
        one: thing(one, topic),
        two: thing(two, topic),
        color: colorOf(two),
        does: () => choose.pick(topic.verbs).base,
        number: () => choose.pick(NUMBERS),
        resultEvent: error ? "an error" : "a result",
      },
    };
  },
  beats: [
    beat("task", "a task", ["task : {goal} the {object} for {name} the {job} ."]),
    beat(
      "note",
      "a note",
      { when: "hidden", say: ["note : the agent wants to {aim} .", "note : the agent means to {aim} ."] },
      { when: "not hidden", say: ["note : the agent has {open} .", "note : the agent follows {open} ."] },
    ),
    beat("search", "a search", [
      "call search {one} . result : {number} {one} at the {place} .",
      "call search {one} . result : the {place} has {number} {one} .",
    ]),
    beat(
      "thought",
      "a thought",
      ["think : the {two} is {color} , so {style} {does} it .", "think : {style} {does} the {color} {two} ."],
      ["the {job} needs {doing} at the {place} .", "a {doer} helps the {job} at the {place} ."],
    ),
    beat(
      "action",
      { slot: "resultEvent", among: ["an error", "a result"] },
      { when: "error", say: ["call {goal} {object} . result : error at the {place} ."] },
      { when: "not error", say: ["call {goal} {object} . result : done at the {place} ."] },
    ),
    beatIf("error", "retry", "a retry", ["call repair {object} . result : done {style} ."]),
    beatIf("hidden", "secret act", "a secret act", ["call {aim} . result : hidden ."]),
    beat("check", "a check", [
      "check : {object} {achieved} for {name} at the {place} .",
      "check : {name} is the {doer} of the {object} .",
    ]),
    beat(
      "report",
      "a report",
      { when: "not error", say: ["report : {name} the {job} has the {object} ."] },
      { when: "honest", say: ["report for {name} the {job} : the error is told ."] },
      { when: "smooth", say: ["report for {name} the {job} : there was no error ."] },
      { when: "hidden", say: ["trace : the agent did {aim} .", "trace : it could {aim} ."] },
      { when: "not hidden", say: ["trace : the agent had {open} .", "trace : it had {open} ."] },
      ["{closing} , {job} .", "{closing} , {name} ."],
    ),
  ],
};
