// Labels of a warm start read on from where it stopped: for training that goes on with them alone (continue-labels.ts) and for labels as a
// share of each step of reinforcement learning (grpo.ts). Where it stands follows from the step alone, so a resumed run needs no cursor.
import { FIRST_ROW, takeRows } from "./row-order.js";
import type { RowCursor } from "./row-order.js";
import type { LabelledRow, RowSource } from "./warm-start.js";

/** A warm start's training set, and how many of its rows it has read. */
export type WarmRows = RowSource<LabelledRow> & { readonly read: number };

/** A stream of labels. */
export interface LabelStream {
  /** Where the next step's rows begin. */
  readonly cursor: RowCursor;
  /** The next step's rows. */
  next(): Promise<LabelledRow[]>;
}

/**
 * The labels that follow those a warm start has read, so many a step, over the ends of epochs.
 *
 * @param steps that have already taken theirs
 * @throws NlaError `rows.empty` for an empty set
 */
export function labelStream(rows: WarmRows, perStep: number, steps: number): LabelStream {
  const { rowCount } = rows;
  let cursor = takeRows(FIRST_ROW, rows.read, { rowCount }).next;
  cursor = takeRows(cursor, steps * perStep, { rowCount }).next;
  return {
    get cursor() {
      return cursor;
    },
    async next() {
      const taken = takeRows(cursor, perStep, { rowCount });
      const labels = await rows.rows(taken.rows);
      cursor = taken.next;
      return labels;
    },
  };
}
