// FVE by where in its document an activation stands: early positions have little context and often odd norms, and one
// mean over all of them hides that. Pure sums over scored rows.
import { NlaError } from "../error.js";

/** A scored row. */
export interface PositionRow {
  /** Index of the token in its document, from 0. */
  readonly position: number;
  readonly mse: number;
  /** The row's share of the baseline around the whole set's centre (nla/fidelity.ts, `varianceAround`). */
  readonly variance: number;
}

/** The rows with `from <= position < to`. */
export interface PositionBucket {
  readonly from: number;
  /** Infinity in the last bucket if the edges end below the largest position. */
  readonly to: number;
  readonly rows: number;
  readonly mse: number;
  readonly variance: number;
  /** 1 - mse / variance; null where the rows have no variance, e.g. where there is only the mean itself. */
  readonly fve: number | null;
}

/** Doubling widths: context matters most where there is least of it. */
export const DEFAULT_EDGES: readonly number[] = [0, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];

/**
 * FVE per bucket of positions, empty buckets left out.
 *
 * @param edges ascending whole numbers from 0 on; the last bucket is open. Defaults to {@link DEFAULT_EDGES}.
 * @throws NlaError `by-position.edges` for edges that do not ascend from 0, `by-position.row` for a bad row
 */
export function fveByPosition(
  rows: readonly PositionRow[],
  edges: readonly number[] = DEFAULT_EDGES,
): PositionBucket[] {
  if (
    edges[0] !== 0 ||
    edges.some((edge, i) => !Number.isSafeInteger(edge) || (i > 0 && edge <= edges[i - 1]!))
  ) {
    throw new NlaError({
      code: "by-position.edges",
      subject: "position buckets",
      found: `[${edges.join(", ")}]`,
      wanted: "whole numbers that start at 0 and ascend",
      next: `The default is [${DEFAULT_EDGES.slice(0, 4).join(", ")}, ...].`,
    });
  }
  const sums = edges.map(() => ({ rows: 0, mse: 0, variance: 0 }));
  for (const [i, { position, mse, variance }] of rows.entries()) {
    if (
      !Number.isSafeInteger(position) ||
      position < 0 ||
      !Number.isFinite(mse) ||
      !Number.isFinite(variance)
    ) {
      throw new NlaError({
        code: "by-position.row",
        subject: `scored row ${i}`,
        found: `position ${position}, mse ${mse}, variance ${variance}`,
        wanted: "a whole position of 0 or more and finite numbers",
        next: "Check how the row was scored.",
      });
    }
    const sum = sums[edges.findLastIndex((edge) => edge <= position)]!;
    sum.rows++;
    sum.mse += mse;
    sum.variance += variance;
  }
  return sums.flatMap(({ rows, mse, variance }, i) =>
    rows === 0
      ? []
      : {
          from: edges[i]!,
          to: edges[i + 1] ?? Infinity,
          rows,
          mse: mse / rows,
          variance: variance / rows,
          fve: variance > 0 ? 1 - mse / variance : null,
        },
  );
}
