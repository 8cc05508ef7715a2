// Line charts as SVG text, for a report that is one file and asks for nothing: numbers in, markup out. Colours are CSS
// variables of the page, so that a chart follows the page's light and dark.

/** A point; null leaves a gap in the line. */
export interface Point {
  readonly x: number;
  readonly y: number | null;
  /** Where it is, for people. Defaults to `step` and x. */
  readonly where?: string;
}

/** A line of a chart. */
export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
  /** CSS colour. */
  readonly colour: string;
  /** Defaults to a plain line. `dots` marks each point, with its numbers where a mouse rests on it. */
  readonly look?: "line" | "dots" | "dashed" | "thin";
  /** Half the height of a band around the line, point by point. */
  readonly band?: readonly number[];
}

/** A chart. */
export interface Chart {
  /** What it shows, for those who cannot see it. */
  readonly label: string;
  readonly series: readonly Series[];
  readonly xLabel: string;
  /** Defaults to round values of x. */
  readonly xTicks?: readonly { readonly x: number; readonly text: string }[];
  /** Vertical lines, such as where a stage begins. */
  readonly marks?: readonly { readonly x: number; readonly text: string }[];
  /** A value with its interval, drawn at the right end. */
  readonly final?: {
    readonly low: number;
    readonly value: number;
    readonly high: number;
    readonly text: string;
  };
  /** Values that the axis must show. Defaults to none but those of the series. */
  readonly include?: readonly number[];
  /** Defaults to 720 by 300. */
  readonly size?: { readonly width: number; readonly height: number };
}

// More points than a chart has room for are averaged: a file of a hundred thousand circles opens in no browser.
const MAX_POINTS = 300;

/** The sign that is as wide as a plus. */
export const MINUS = "\u2212";

const MARGIN = { left: 56, right: 16, top: 20, bottom: 40 };

/** Text for HTML and SVG, attribute values included. */
export function escapeHtml(text: string): string {
  const entities: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replaceAll(/[&<>"']/g, (character) => entities[character] as string);
}

/** Round values from at or below `low` to at or above `high`, about `count` steps of 1, 2 or 5 times a power of ten. */
export function niceTicks(low: number, high: number, count = 5): number[] {
  const spread = high - low || Math.abs(high) || 1;
  const rough = spread / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough * (1 - 1e-9)) as number) * power;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  const ticks = Array.from({ length: Math.max(last, first + 1) - first + 1 }, (_, i) => (first + i) * step);
  return ticks.map((tick) => Number(tick.toPrecision(12)));
}

/** A number in few characters: `0.4`, `12`, `3.2e-5`. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  const text =
    size !== 0 && (size < 1e-3 || size >= 1e6)
      ? value.toExponential(1)
      : String(Number(value.toPrecision(3)));
  return text.replace(/^-/, MINUS);
}

/** At most `limit` points: means of neighbours where there are more. Gaps stay out of the means. */
export function thinned(points: readonly Point[], limit = MAX_POINTS): Point[] {
  if (points.length <= limit) return [...points];
  const size = Math.ceil(points.length / limit);
  return Array.from({ length: Math.ceil(points.length / size) }, (_, i) => {
    const part = points.slice(i * size, (i + 1) * size);
    const values = part.flatMap(({ y }) => (y === null ? [] : [y]));
    return { x: mean(part.map(({ x }) => x)), y: values.length === 0 ? null : mean(values) };
  });
}

/** A chart as an `<svg>` element, or null where no series has a value. */
export function chartSvg({
  label,
  series,
  xLabel,
  xTicks,
  marks = [],
  final,
  include = [],
  size,
}: Chart): string | null {
  const { width, height } = size ?? { width: 720, height: 300 };
  const drawn = series.map((each) => ({
    ...each,
    points: each.band ? [...each.points] : thinned(each.points),
  }));
  const all = drawn.flatMap(({ points, band }) =>
    points.flatMap(({ x, y }, i) =>
      y === null ? [] : [{ x, low: y - (band?.[i] ?? 0), high: y + (band?.[i] ?? 0) }],
    ),
  );
  if (all.length === 0) return null;
  const ends = final ? [final.low, final.high] : [];
  const lows = [...all.map(({ low }) => low), ...include, ...ends];
  const highs = [...all.map(({ high }) => high), ...include, ...ends];
  const yTicks = niceTicks(least(lows), most(highs));
  const xs = all.map(({ x }) => x);
  const ticks =
    xTicks ??
    niceTicks(least(xs), most(xs), 6)
      .filter((tick) => tick >= least(xs) && tick <= most(xs))
      .map((tick) => ({ x: tick, text: shortNumber(tick) }));
  const edges = [...xs, ...ticks.map((tick) => tick.x)];
  const room = final ? 70 : 0;
  const x = scale([least(edges), most(edges)], [MARGIN.left, width - MARGIN.right - room]);
  const y = scale([yTicks[0] as number, yTicks.at(-1) as number], [height - MARGIN.bottom, MARGIN.top]);
  const right = width - MARGIN.right;

  const parts: string[] = [];
  for (const tick of yTicks) {
    parts.push(`<line class="grid" x1="${MARGIN.left}" x2="${right}" y1="${y(tick)}" y2="${y(tick)}"/>`);
    parts.push(
      `<text x="${MARGIN.left - 8}" y="${y(tick)}" dy="0.32em" text-anchor="end">${shortNumber(tick)}</text>`,
    );
  }
  if ((yTicks[0] as number) < 0 && (yTicks.at(-1) as number) > 0) {
    parts.push(`<line class="zero" x1="${MARGIN.left}" x2="${right}" y1="${y(0)}" y2="${y(0)}"/>`);
  }
  for (const tick of ticks) {
    parts.push(
      `<text x="${x(tick.x)}" y="${height - MARGIN.bottom + 18}" text-anchor="middle">${escapeHtml(tick.text)}</text>`,
    );
  }
  parts.push(
    `<text x="${(MARGIN.left + right - room) / 2}" y="${height - 4}" text-anchor="middle">${escapeHtml(xLabel)}</text>`,
  );
  for (const mark of marks) {
    const at = x(mark.x);
    parts.push(
      `<line class="mark" x1="${at}" x2="${at}" y1="${MARGIN.top - 8}" y2="${height - MARGIN.bottom}"/>`,
    );
    parts.push(`<text class="note" x="${at + 5}" y="${MARGIN.top}">${escapeHtml(mark.text)}</text>`);
  }
  for (const each of drawn) parts.push(...seriesSvg(each, x, y));
  if (final) {
    const at = right - room / 2;
    parts.push(
      `<g stroke="var(--ink)" stroke-width="1.5"><title>${escapeHtml(final.text)}</title>` +
        `<line x1="${at}" x2="${at}" y1="${y(final.low)}" y2="${y(final.high)}"/>` +
        `<line x1="${at - 5}" x2="${at + 5}" y1="${y(final.low)}" y2="${y(final.low)}"/>` +
        `<line x1="${at - 5}" x2="${at + 5}" y1="${y(final.high)}" y2="${y(final.high)}"/>` +
        `<circle cx="${at}" cy="${y(final.value)}" r="3.5" fill="var(--ink)"/></g>`,
      `<text x="${at}" y="${height - MARGIN.bottom + 18}" text-anchor="middle">final</text>`,
    );
  }
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(label)}">${parts.join("")}</svg>`;
}

type Scale = (value: number) => number;

function scale([from, to]: readonly [number, number], [start, end]: readonly [number, number]): Scale {
  const span = to - from;
  return (value) =>
    Number((span === 0 ? (start + end) / 2 : start + ((value - from) / span) * (end - start)).toFixed(1));
}

function seriesSvg({ name, points, colour, look = "line", band }: Series, x: Scale, y: Scale): string[] {
  const parts: string[] = [];
  if (band) {
    const whole = points.flatMap((point, i) =>
      point.y === null ? [] : [{ x: point.x, y: point.y, half: band[i] ?? 0 }],
    );
    const upper = whole.map((point) => `${x(point.x)},${y(point.y + point.half)}`);
    const lower = whole.map((point) => `${x(point.x)},${y(point.y - point.half)}`).reverse();
    parts.push(`<polygon points="${[...upper, ...lower].join(" ")}" fill="${colour}" opacity="0.15"/>`);
  }
  const style = `fill="none" stroke="${colour}" stroke-width="${look === "thin" ? 1 : 2}"${look === "dashed" ? ' stroke-dasharray="5 4"' : ""}`;
  let line = "";
  let pen = false;
  for (const point of points) {
    if (point.y === null) pen = false;
    else {
      line += `${pen ? "L" : "M"}${x(point.x)},${y(point.y)}`;
      pen = true;
    }
  }
  parts.push(`<path d="${line}" ${style} stroke-linejoin="round"/>`);
  if (look !== "dots") return parts;
  for (const point of points) {
    if (point.y === null) continue;
    const text = escapeHtml(
      `${name}, ${point.where ?? `step ${shortNumber(point.x)}`}: ${point.y.toFixed(3)}`,
    );
    parts.push(
      `<circle cx="${x(point.x)}" cy="${y(point.y)}" r="3" fill="${colour}"><title>${text}</title></circle>`,
    );
  }
  return parts;
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// Math.min(...values) overflows the stack on long logs.
function least(values: readonly number[]): number {
  return values.reduce((a, b) => Math.min(a, b), Infinity);
}

function most(values: readonly number[]): number {
  return values.reduce((a, b) => Math.max(a, b), -Infinity);
}
