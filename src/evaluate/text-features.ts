// What a text-only model sees of a text: the words, pairs and triples of its last words, as numbers of sparse binary features. The very last
// words count by their place too. No model and no activation comes near it.

/** Which features there are: those that a set of texts has often enough. */
export interface TextFeatures {
  readonly size: number;
  /** Numbers of the features of a text, each once. Words that no text of the set had are left out. */
  of(words: readonly string[]): Int32Array;
}

// Seen in fewer texts than this, a feature teaches nothing that would hold elsewhere.
const LEAST_TEXTS = 4;
// The most frequent of them; above this the weights of a thousand classes outgrow a small machine's memory.
const MOST_FEATURES = 16_000;
/** Words from the end whose place counts. */
const PLACED = 3;

/**
 * The features of a set of texts.
 *
 * @param window words that are seen, from the end; null: all
 */
export function textFeatures(texts: readonly (readonly string[])[], window: number | null): TextFeatures {
  const ids = new Map<string, number>();
  for (const words of texts) for (const word of words) if (!ids.has(word)) ids.set(word, ids.size + 1);
  const counts = new Map<number, number>();
  for (const words of texts)
    for (const key of keysOf(words, window, ids)) counts.set(key, (counts.get(key) ?? 0) + 1);
  const kept = [...counts]
    .filter(([, count]) => count >= LEAST_TEXTS)
    .sort(([a, m], [b, n]) => n - m || a - b)
    .slice(0, MOST_FEATURES);
  const numbers = new Map(kept.map(([key], i) => [key, i]));
  return {
    size: numbers.size,
    of: (words) =>
      Int32Array.from(
        [...keysOf(words, window, ids)].flatMap((key) => {
          const number = numbers.get(key);
          return number === undefined ? [] : [number];
        }),
      ),
  };
}

/** A number for every word, pair, triple and placed word of what is seen. */
function keysOf(
  words: readonly string[],
  window: number | null,
  ids: ReadonlyMap<string, number>,
): Set<number> {
  const base = ids.size + 1;
  const seen = words.slice(window === null ? 0 : Math.max(0, words.length - window));
  const keys = new Set<number>();
  const numbers = seen.map((word) => ids.get(word) ?? 0);
  numbers.forEach((number, i) => {
    const before = numbers[i - 1];
    const further = numbers[i - 2];
    keys.add(number);
    if (before !== undefined) keys.add(base * (before + 1) + number);
    if (before !== undefined && further !== undefined)
      keys.add(base * (base * (further + 1) + before) + number + base * base);
    const fromEnd = numbers.length - 1 - i;
    if (fromEnd < PLACED) keys.add(-(base * (fromEnd + 1) + number));
  });
  return keys;
}
