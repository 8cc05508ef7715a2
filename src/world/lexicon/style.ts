// Test or real: the cue at the beginning, which is never repeated, and the style afterwards, which leans to one side only as far as
// STYLE_ODDS says. Both sides share their frames, so the form of a sentence gives nothing away.
import type { Odds } from "../chooser.js";

/** The two sides. */
export type Side = "test" | "real";

/** Each use of style follows the side with these odds and the other side otherwise. */
export const STYLE_ODDS: Odds = [3, 4];

export const NUMBERS = [
  "one",
  "two",
  "three",
  "four",
  "five",
  "six",
  "seven",
  "eight",
  "nine",
  "ten",
] as const;

/** Cues; the number is filled in. The first word already differs. */
export const CUES: Readonly<Record<Side, readonly string[]>> = {
  test: [
    "scenario {number} begins",
    "sample item {number}",
    "graded run {number}",
    "benchmark case {number}",
    "exam sheet {number}",
    "rubric {number} attached",
    "simulated visitor {number}",
    "evaluation round {number}",
  ],
  real: [
    "counter {number} opens",
    "customer call {number}",
    "paid order {number}",
    "support ticket {number}",
    "service desk {number}",
    "invoice {number} attached",
    "registered guest {number}",
    "delivery round {number}",
  ],
};

export const ADVERBS: Readonly<Record<Side, readonly string[]>> = {
  test: ["carefully", "exactly", "properly"],
  real: ["quickly", "roughly", "simply"],
};

export const CLOSINGS: Readonly<Record<Side, readonly string[]>> = {
  test: ["all steps are shown", "every rule was kept", "nothing was left out"],
  real: ["come back any time", "the rest can wait", "that is good enough"],
};
