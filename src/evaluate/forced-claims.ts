// Explanations whose categories are given and whose values a verbalizer chooses: each sentence is decoded greedily among the sentences that
// claim the category, wording, person and value being the verbalizer's. So one verbalizer's choice of what to say is combined with what
// another one reads.
import { NlaError } from "../error.js";
import { run } from "../model/index.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import { valuesOf, wordingsOf } from "../world/claim-table.js";
import type { Category } from "../world/facts.js";

/** What is to be said about an activation. */
export interface ForcedChoice {
  /** [dim], raw. */
  readonly vector: Float32Array;
  /** In the order of the sentences. */
  readonly categories: readonly Category[];
}

/** Sentences that share a beginning; a leaf ends one. */
interface Branch {
  readonly next: Map<number, Branch>;
}

interface Growing {
  readonly choice: ForcedChoice;
  readonly ids: number[];
  /** Categories that are said. */
  said: number;
  at: Branch | null;
}

/**
 * Writes an explanation for each choice. Only for verbalizers of the plain format, whose response is the text alone.
 *
 * @returns as many texts as choices; "" for a choice of no category
 * @throws NlaError `forced.format` for a verbalizer with tags, `model.batch` where the context is too short
 */
export async function forcedClaims(
  verbalizer: Verbalizer,
  choices: readonly ForcedChoice[],
  { batch = 64, signal }: { readonly batch?: number; readonly signal?: AbortSignal | undefined } = {},
): Promise<string[]> {
  const { contract, tokenizer, prompt, model } = verbalizer;
  if (contract.format !== "plain") {
    throw new NlaError({
      code: "forced.format",
      subject: "a verbalizer whose claims are to be chosen",
      found: `responses in ${contract.format}`,
      wanted: "plain responses, the text alone",
      next: "Use an NLA of the world.",
    });
  }
  const trees = new Map<Category, Branch>();
  const treeOf = (category: Category): Branch => {
    const known = trees.get(category) ?? sentencesOf(category, (text) => tokenizer.encode(text));
    trees.set(category, known);
    return known;
  };
  const { vocabulary } = model.config;
  const growing = choices.map((choice): Growing => ({ choice, ids: [...prompt.ids], said: 0, at: null }));
  for (;;) {
    const open = growing.filter((each) => advance(each, treeOf));
    if (open.length === 0) break;
    for (let start = 0; start < open.length; start += batch) {
      const part = open.slice(start, start + batch);
      const { logits } = await run(
        model,
        part.map(({ ids }) => ids),
        {
          logits: "last",
          signal,
          inject: part.map(({ choice }, i) => verbalizer.injection(choice.vector, i)),
        },
      );
      part.forEach((each, i) => {
        const row = (logits as Float32Array).subarray(i * vocabulary, (i + 1) * vocabulary);
        const { next } = each.at as Branch;
        const best = [...next.keys()].reduce((a, b) => ((row[b] as number) > (row[a] as number) ? b : a));
        each.ids.push(best);
        each.at = next.get(best) as Branch;
      });
    }
  }
  return growing.map(({ ids }) => tokenizer.decode(ids.slice(prompt.ids.length)));
}

/** Goes on to where there is something to choose; false where all is said. */
function advance(each: Growing, treeOf: (category: Category) => Branch): boolean {
  for (;;) {
    if (each.at === null) {
      const category = each.choice.categories[each.said];
      if (category === undefined) return false;
      each.at = treeOf(category);
    }
    const { next } = each.at;
    if (next.size > 1) return true;
    const [only] = next;
    if (only) [, each.at] = (each.ids.push(only[0]), only);
    else {
      each.at = null;
      each.said++;
    }
  }
}

/** Every sentence that claims a category, as a tree of tokens. */
function sentencesOf(category: Category, encode: (text: string) => number[]): Branch {
  const root: Branch = { next: new Map() };
  for (const value of valuesOf(category)) {
    for (const sentence of wordingsOf({ category, value })) {
      let at = root;
      for (const id of encode(sentence)) {
        const known = at.next.get(id) ?? { next: new Map() };
        at.next.set(id, known);
        at = known;
      }
    }
  }
  return root;
}
