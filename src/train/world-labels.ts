// The labeller of the world: what a warm start is told about a token is written from the truth, made imperfect by dials. Which
// facts are kept or garbled follows from the seed, the document and the position alone.
import { createHash } from "node:crypto";
import type { Labeller } from "../pipeline/labels.js";
import { Chooser } from "../world/chooser.js";
import type { Odds } from "../world/chooser.js";
import { worldDocumentOf } from "../world/corpus.js";
import { labelAt } from "../world/labels.js";
import type { TrainConfig } from "./config-schema.js";

/** The dials of a config's labels. */
export type WorldLabelSettings = Pick<
  TrainConfig["labels"],
  "keep" | "garble" | "generic" | "most" | "rich" | "rich_keep" | "seldom" | "seldom_keep"
>;

const DENOMINATOR = 1000;
const odds = (fraction: number): Odds => [Math.round(fraction * DENOMINATOR), DENOMINATOR];

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
