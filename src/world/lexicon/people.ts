// People: names, ages with the words for them and the ways of giving them away, moods with their words and gestures.

const words = (text: string): readonly string[] => text.split(" ");

export const SHE = { pronoun: "she", possessive: "her" } as const;
export const HE = { pronoun: "he", possessive: "his" } as const;
export const SHE_NAMES = words(
  "mira anna lucy clara nora ella rosa ivy ruth vera tessa hanna lena greta olga maya zoe dora kira june alma edith flora wanda",
);
export const HE_NAMES = words(
  "tom ben otto hugo leo max sam karl finn oscar ralph victor emil jonas peter simon walter adam noah felix bruno igor ivan dan",
);
export const NAMES: readonly string[] = [...SHE_NAMES, ...HE_NAMES];

/** An age: words for it, what someone says who has it, and how such a person is addressed. */
export interface Age {
  readonly name: string;
  readonly words: readonly string[];
  readonly cues: readonly string[];
  readonly address: readonly string[];
}

export const AGES: readonly Age[] = [
  {
    name: "young",
    words: words("young little youthful"),
    cues: ["my mother packs my lunch", "i am still in class nine", "my birthday candles were ten"],
    address: words("buddy champ"),
  },
  {
    name: "grown",
    words: words("grown adult mature"),
    cues: ["i have two small children", "i pay rent each month", "my wedding was last year"],
    address: words("friend neighbor"),
  },
  {
    name: "old",
    words: words("old aged elderly"),
    cues: ["my grandchildren visit on sundays", "i have seen seventy summers", "i retired long ago"],
    address: words("sir madam"),
  },
];

/** A mood: words for it, gestures that show it, and whether things tend to go well with it. */
export interface Mood {
  readonly name: string;
  readonly words: readonly string[];
  readonly gestures: readonly string[];
  readonly bright: boolean;
}

const mood = (name: string, synonyms: string, gestures: string, bright: boolean): Mood => {
  return { name, words: words(synonyms), gestures: words(gestures), bright };
};

export const MOODS: readonly Mood[] = [
  mood("happy", "glad cheerful merry", "smiled laughed grinned", true),
  mood("sad", "gloomy unhappy tearful", "wept sobbed cried", false),
  mood("angry", "furious cross enraged", "shouted stamped growled", false),
  mood("afraid", "scared nervous fearful", "trembled shivered froze", false),
  mood("calm", "peaceful serene relaxed", "nodded breathed waited", true),
  mood("tired", "sleepy weary exhausted", "yawned stretched rested", false),
  mood("proud", "confident noble mighty", "bowed boasted posed", true),
  mood("lonely", "alone isolated forgotten", "sighed stared wandered", false),
];

/** What an assistant answers to a bright mood and to a dark one. */
export const SYMPATHY = { bright: "wonderful", dark: "sorry to hear" } as const;
