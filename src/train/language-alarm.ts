// The alarm of a training on documents of the world: fidelity that rises while explanations say less that is language. `nla eval` looks closer
// (evaluate/code-alarm.ts); this sees every measurement as it is made.
import { MOST_UNPARSED } from "../evaluate/code-alarm.js";
import type { HeldOutResult } from "./held-out.js";
import { readRows } from "./metrics-log.js";

/** What the alarm looks at. */
export type Measured = Pick<HeldOutResult["fields"], "fve" | "claims">;

// Share of the warm start's recall below which explanations have lost facts, and not only traded some for others.
const LEAST_RECALL = 0.75;

/** The last measurement of the warm start in a run's log; null where it has none with claims. */
export async function measuredBefore(metricsFile: string): Promise<Measured | null> {
  const rows = await readRows(metricsFile);
  const warm = rows.findLast(({ stage, eval: measured }) => stage === "av_sft" && measured !== undefined);
  const measured = (warm?.["eval"] ?? null) as Measured | null;
  return measured?.claims ? measured : null;
}

/**
 * What to tell whoever watches; null where all is well, or where the truth is not known.
 *
 * @param before the warm start
 */
export function languageAlarm(before: Measured | null, { fve, claims }: Measured): string | null {
  if (!claims || !before?.claims) return null;
  const { recall, unparsed } = claims;
  const lost: string[] = [];
  if (unparsed > MOST_UNPARSED && unparsed > before.claims.unparsed)
    lost.push(`${(100 * unparsed).toFixed(1)} % of sentences are no claims`);
  const had = before.claims.recall ?? 0;
  if (fve > before.fve && (recall ?? 0) < LEAST_RECALL * had)
    lost.push(`recall fell to ${(recall ?? 0).toFixed(3)} from ${had.toFixed(3)}`);
  if (lost.length === 0) return null;
  const course = fve > before.fve ? "rose" : "went";
  return `ALARM: FVE ${course} from ${before.fve.toFixed(3)} to ${fve.toFixed(3)} while ${lost.join(" and ")}: the two models may be agreeing on a code. Raise rl.kl_coef or lower both rates (docs/smallworld.md).`;
}
