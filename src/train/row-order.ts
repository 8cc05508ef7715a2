// The order in which a training set's rows are read over epochs: by file, or shuffled anew each epoch from the seed and
// the epoch alone. A cursor of two numbers is the whole state, so a killed run goes on with the very next row.
import { PythonRandom } from "../data/python-random.js";
import { NlaError } from "../error.js";

/** Where reading stands: the next row is number `offset` of epoch `epoch`'s order. */
export interface RowCursor {
  readonly epoch: number;
  readonly offset: number;
}

/** Options of the order. */
export interface RowOrder {
  readonly rowCount: number;
  /** Defaults to false: file order in every epoch. */
  readonly shuffle?: boolean;
  /** Epoch e is shuffled by CPython's `Random(seed + e)`. Defaults to 0. */
  readonly seed?: number;
}

/** Where every run starts. */
export const FIRST_ROW: RowCursor = { epoch: 0, offset: 0 };

/** The row numbers of one epoch in reading order, [rowCount]. Every epoch permutes the file order, not the last one's. */
export function epochOrder(epoch: number, { rowCount, shuffle = false, seed = 0 }: RowOrder): number[] {
  const order = Array.from({ length: rowCount }, (_, row) => row);
  if (shuffle) new PythonRandom(seed + epoch).shuffle(order);
  return order;
}

/**
 * The next `count` rows, over the ends of epochs as often as needed, and the cursor after them. An epoch that was read
 * to its end leaves the cursor there ({ epoch, offset: rowCount }); the next call opens the next epoch.
 *
 * @throws NlaError `rows.empty` for an empty set, `rows.cursor` for a cursor outside it, `rows.count` for a bad count
 */
export function takeRows(
  cursor: RowCursor,
  count: number,
  order: RowOrder,
): { rows: number[]; next: RowCursor } {
  const { rowCount } = order;
  check(
    Number.isSafeInteger(rowCount) && rowCount > 0,
    "rows.empty",
    "training set",
    `${rowCount} rows`,
    "at least 1",
  );
  check(
    Number.isSafeInteger(count) && count >= 0,
    "rows.count",
    "rows to take",
    String(count),
    "a whole number",
  );
  const { epoch, offset } = cursor;
  check(
    Number.isSafeInteger(epoch) &&
      epoch >= 0 &&
      Number.isSafeInteger(offset) &&
      offset >= 0 &&
      offset <= rowCount,
    "rows.cursor",
    "position in the training set",
    `epoch ${epoch}, offset ${offset}`,
    `an epoch of 0 or more and an offset of 0 to ${rowCount}`,
  );
  const rows: number[] = [];
  let next = cursor;
  while (rows.length < count) {
    if (next.offset === rowCount) next = { epoch: next.epoch + 1, offset: 0 };
    const part = epochOrder(next.epoch, order).slice(next.offset, next.offset + count - rows.length);
    rows.push(...part);
    next = { epoch: next.epoch, offset: next.offset + part.length };
  }
  return { rows, next };
}

function check(holds: boolean, code: string, subject: string, found: string, wanted: string): void {
  if (holds) return;
  throw new NlaError({
    code,
    subject,
    found,
    wanted,
    next: "Check that the run folder and its training set belong together.",
  });
}
