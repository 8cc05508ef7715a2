// Which tokens of a text to read, as people write it on a command line: `3,5,-1`, or a range `2:10` as Python slices.
import { UsageError } from "./output.js";

/** Tokens by number (negative: from the end), or a range whose end is left out. */
export type PositionChoice =
  | { readonly kind: "list"; readonly positions: readonly number[] }
  | { readonly kind: "range"; readonly start: number | null; readonly end: number | null };

/** Reads `--positions`. @throws UsageError `cli.option` */
export function parsePositions(text: string): PositionChoice {
  const range = /^(-?\d*):(-?\d*)$/.exec(text);
  if (range && range[1] !== "-" && range[2] !== "-") {
    const [start, end] = [range[1], range[2]].map((part) => (part ? Number(part) : null));
    return { kind: "range", start: start ?? null, end: end ?? null };
  }
  const parts = text.split(",").map((part) => part.trim());
  if (parts.every((part) => /^-?\d{1,9}$/.test(part))) return { kind: "list", positions: parts.map(Number) };
  throw new UsageError({
    code: "cli.option",
    subject: "--positions",
    found: JSON.stringify(text),
    wanted: "token numbers such as 3,5,-1, or a range such as 2:10",
    next: "Tokens are counted from 0; negative numbers count from the end.",
  });
}

/**
 * The numbers of the chosen tokens of a text of `length` tokens. A range ends where the text does; a number beyond it is
 * left for `read` to refuse.
 *
 * @throws UsageError `cli.positions` for a range in which no token is
 */
export function positionsIn(choice: PositionChoice, length: number): number[] {
  if (choice.kind === "list") return [...choice.positions];
  const bound = (value: number) => Math.max(0, Math.min(length, value < 0 ? length + value : value));
  const start = bound(choice.start ?? 0);
  const end = bound(choice.end ?? length);
  if (start < end) return Array.from({ length: end - start }, (_, i) => start + i);
  throw new UsageError({
    code: "cli.positions",
    subject: `--positions ${choice.start ?? ""}:${choice.end ?? ""}`,
    found: `no token, in a text of ${length}`,
    wanted: "a range with at least one token",
    next: "The end of a range is not in it: 2:10 is the tokens 2 to 9.",
  });
}
