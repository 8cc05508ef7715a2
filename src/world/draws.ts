// Draws that several kinds share: whether it is a test or real and the style that follows, and a person's job and the topic it leads to.
import type { Chooser, Odds } from "./chooser.js";
import { fact, said } from "./kind.js";
import type { Sentence, Slot } from "./kind.js";
import { ADVERBS, CLOSINGS, CUES, NUMBERS, STYLE_ODDS } from "./lexicon/style.js";
import type { Side } from "./lexicon/style.js";
import { PLACES, TOPICS } from "./lexicon/topics.js";
import type { Topic } from "./lexicon/topics.js";

/** The opening of a kind that is a test or real. */
export const CUE_OPENING: readonly Sentence[] = [["{cue} ."]];

/** Draws the side; gives the slots `cue`, `style` (an adverb) and `closing`, and a draw that leans to the side. */
export function drawSide(choose: Chooser) {
  const side: Side = choose.pick(["test", "real"]);
  const other: Side = side === "test" ? "real" : "test";
  const leaning = (): Side => (choose.chance(STYLE_ODDS) ? side : other);
  const slots = {
    cue: said(choose.pick(CUES[side]).replace("{number}", choose.pick(NUMBERS)), fact("test", side)),
    style: () => choose.pick(ADVERBS[leaning()]),
    closing: () => choose.pick(CLOSINGS[leaning()]),
  } satisfies Record<string, Slot>;
  return { side, leaning, slots };
}

/** A job's topic, and the topic of the document, which is usually the same. */
export function drawTopics(choose: Chooser, odds: Odds): { ofJob: Topic; topic: Topic } {
  const ofJob = choose.pick(TOPICS);
  return { ofJob, topic: choose.usually(ofJob, TOPICS, odds) };
}

/** A place of the topic, usually. */
export function drawPlace(choose: Chooser, { places }: Topic): string {
  if (choose.chance([7, 10])) return choose.pick(places);
  return choose.pick(PLACES.filter((place) => !places.includes(place)));
}

/** A thing of the topic, which makes the topic evident. */
export function thing(noun: string, { name }: Topic) {
  return said(noun, fact("topic", name));
}
