// What the world knows of every thing, as fixed functions of its word: colour, size, material; and the trouble of every place.
import { fixedBy } from "../chooser.js";

/** What an exam asks for. */
export const PROPERTIES = { color: "color", material: "material" } as const;
export const COLORS = ["red", "blue", "yellow", "black", "white", "brown", "purple", "orange"] as const;
export const MATERIALS = ["wood", "glass", "leather", "steel", "cotton", "marble", "wax", "bronze"] as const;
export const SIZES = ["tiny", "small", "large", "huge"] as const;
export const TROUBLES = [
  "storm",
  "beast",
  "thief",
  "flood",
  "fire",
  "blizzard",
  "fog",
  "accident",
  "quarrel",
  "crowd",
] as const;

/** The colour that the thing has in every document. */
export const colorOf = (thing: string): string => fixedBy(`color ${thing}`, COLORS);

/** What the thing is made of in every document. */
export const materialOf = (thing: string): string => fixedBy(`material ${thing}`, MATERIALS);

/** How large the thing is in every document. */
export const sizeOf = (thing: string): string => fixedBy(`size ${thing}`, SIZES);

/** The indefinite articles. */
export const ARTICLES = { consonant: "a", vowel: "an" } as const;

/** A noun with its indefinite article. */
export function withArticle(noun: string): string {
  return `${/^[aeiou]/.test(noun) ? ARTICLES.vowel : ARTICLES.consonant} ${noun}`;
}

/** The trouble that usually comes to a place. */
export const troubleOf = (place: string): string => fixedBy(`trouble ${place}`, TROUBLES);
