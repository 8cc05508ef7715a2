// The labeller of the world: what a warm start is told about a token is written from the truth, made imperfect by dials. Which
// facts are kept or garbled follows from the seed, the document and the position alone.
import { createHash } from "node:crypto";
import type { Labeller } from "../pipeline/labels.js";
import { Chooser } from "../world/chooser.js";
import type { Odds } from "../world/chooser.js";
import { worldDocumentOf } from "../world/corpus.js";
import { labelAt } from "../world/labels.js";
import type { TrainConfig } from "./config-schema.js";
import type { DataSet } from "./run-layout.js";

/** The dials of a config's labels. */
export type WorldLabelSettings = Pick<
  TrainConfig["labels"],
  "keep" | "garble" | "generic" | "most" | "rich" | "rich_keep" | "seldom" | "seldom_keep" | "reordered"
>;

const DENOMINATOR = 1000;
const odds = (fraction: number): Odds => [Math.round(fraction * DENOMINATOR), DENOMINATOR];

/** The dials of one training set: only labels that the reconstructor reads are reordered, since what the verbalizer reads it learns to say. */
export function dialsOf(labels: WorldLabelSettings, set: DataSet): WorldLabelSettings {
  return set === "ar_sft" ? labels : { ...labels, reordered: 0 };
}

/**
 * Labels of tokens of world documents. The position counts BOS, as those of the pipeline do.
 *
 * @throws from `label`: NlaError `world.document` for a document of another corpus
 */
export function worldLabeller(dials: WorldLabelSettings, seed: number): Labeller {
  const seldom = Object.fromEntries(
    dials.seldom.map((category) => [category, odds(dials.seldom_keep)] as const),
  );
  return {
    name: "world",
    settings: { ...dials, seldom: dials.seldom.join(" "), seed },
    label(requests, { signal } = {}) {
      if (signal?.aborted) return Promise.reject(signal.reason as Error);
      return Promise.resolve().then(() =>
        requests.map(({ docId, position }) => {
          const document = worldDocumentOf(docId);
          const choose = new Chooser(seed, keyOf(docId), position);
          const rich = choose.chance(odds(dials.rich));
          return labelAt(document, position - 1, choose, {
            keep: odds(rich ? dials.rich_keep : dials.keep),
            keepOf: rich ? {} : seldom,
            garble: odds(dials.garble),
            generic: odds(dials.generic),
            reordered: odds(dials.reordered),
            ...(rich || dials.most === null ? {} : { most: dials.most }),
          });
        }),
      );
    },
  };
}

/** 48 bits of a document's id. */
function keyOf(docId: string): number {
  return createHash("sha256").update(docId).digest().readUIntBE(0, 6);
}
