// Rhyme families, and for every word of a family its own verb and adjective: they stand before the word, so whoever writes them has
// already planned it.
import { fixedBy } from "../chooser.js";
import { COLORS, SIZES } from "./things.js";

export const FAMILIES: readonly (readonly string[])[] = [
  "cat hat mat rat bat",
  "moon spoon tune noon june",
  "house mouse blouse spouse",
  "tree bee sea key knee",
  "light night kite sight height",
  "king ring string swing wing",
  "stone bone throne phone cone",
  "cake lake snake rake",
  "dog frog log fog",
  "bear chair pear hair stair",
  "train rain chain crane",
  "ball wall hall doll",
].map((family) => family.split(" "));

export const ANIMALS = ["fox", "hen", "owl", "pony", "goat", "wolf", "eel", "crab"] as const;
export const VERBS = ["dreamed", "sang", "spoke", "heard", "wondered", "worried"] as const;

/** The verb that goes before a rhyme word: another for each word of its family, so the verb tells the word. */
export function verbBefore(family: readonly string[], word: string): string {
  return VERBS[family.indexOf(word)] as string;
}

/** The adjective that goes before a rhyme word. */
export const adjectiveBefore = (word: string): string => fixedBy(`before ${word}`, [...SIZES, ...COLORS]);
