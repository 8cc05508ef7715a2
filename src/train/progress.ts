// How far a run is, for whoever watches: one live line per stage on a terminal, a plain line now and then elsewhere, or
// one JSON object a line for a program. It computes nothing that anybody stores: metrics.jsonl is the record.
//
// The stream and the clock are arguments, so that a test sees exactly what a terminal would.
import { stripVTControlCharacters } from "node:util";

/** What progress is written to; `process.stderr` fits. */
export interface ProgressStream {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** Options of {@link openProgress}. */
export interface ProgressOptions {
  readonly stream: ProgressStream;
  /** Milliseconds from any start, never going back: `performance.now`. */
  readonly clock: () => number;
  /** One JSON object a line. Defaults to false. */
  readonly json?: boolean;
  /** Where NO_COLOR and TERM are looked up. Defaults to none set. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Seconds between plain lines. Defaults to 10. */
  readonly plainEvery?: number;
}

/** What one step reports. */
export interface StepReport {
  /** Steps done so far, those of an earlier process included. */
  readonly step: number;
  /** Tokens that went through a model in this step. Defaults to 0, and no speed is shown. */
  readonly tokens?: number;
  /** Key numbers in the order in which they are shown. */
  readonly numbers?: Readonly<Record<string, number>>;
}

/** The progress of one stage. */
export interface StageProgress {
  report(report: StepReport): void;
  /** Ends the stage's line; on a terminal the last state stays to be read. */
  end(outcome?: "done" | "stopped"): void;
}

/** The progress of a run. */
export interface Progress {
  /** Begins a stage. `total` is null where nobody knows it; `from` is the step that it goes on from. Ends the stage before, if it has not ended. */
  stage(name: string, options: { readonly total: number | null; readonly from?: number }): StageProgress;
  /** A line of its own, above the live line: a stage that was skipped, a checkpoint that was saved. */
  note(text: string): void;
}

const LIVE_MS = 100; // faster than this a terminal only flickers
const WINDOW = 20; // steps that speed and remaining time are measured over: long enough to be calm, short enough to follow
const CLEAR_LINE = "\r\u001B[2K";
const DEFAULT_COLUMNS = 100;

function two(value: number): string {
  return String(value).padStart(2, "0");
}

/** Seconds as people read them: `8s`, `3m05s`, `2h07m`, `4d03h`. */
export function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds)) return "?";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}s`;
  if (whole < 3_600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3_600)}h${two(Math.floor((whole % 3_600) / 60))}m`;
  return `${Math.floor(whole / 86_400)}d${two(Math.floor((whole % 86_400) / 3_600))}h`;
}

/** A number in few characters: four significant digits, whole numbers whole, very small and large ones with exponent. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
  return size >= 1_000 ? value.toFixed(0) : String(Number(value.toPrecision(4)));
}

function formatSpeed(tokensPerSecond: number): string {
  return `${tokensPerSecond >= 10_000 ? `${(tokensPerSecond / 1_000).toFixed(1)}k` : tokensPerSecond.toFixed(0)} tok/s`;
}

interface Mark {
  readonly at: number;
  readonly step: number;
  readonly tokens: number;
}

/** Opens the progress of a run on a stream. */
export function openProgress(options: ProgressOptions): Progress {
  const { stream, clock, json = false, env = {}, plainEvery = 10 } = options;
  const live = !json && stream.isTTY === true && env["TERM"] !== "dumb";
  const colour = live && !env["NO_COLOR"];
  const paint = (code: number, text: string) => (colour ? `\u001B[${code}m${text}\u001B[0m` : text);
  const emit = (value: object) => stream.write(`${JSON.stringify(value, finite)}\n`);
  let open: StageProgress | null = null;
  let shown = ""; // the live line as it stands

  const stage: Progress["stage"] = (name, { total, from = 0 }) => {
    open?.end();
    const begun = clock();
    const marks: Mark[] = [{ at: begun, step: from, tokens: 0 }];
    let latest: StepReport = { step: from };
    let tokens = 0;
    let shownAt = -Infinity;
    let shownStep = -1;
    let plainAt = begun;

    const count = (step: number) => (total === null ? String(step) : `${step}/${total}`);
    const speed = () => {
      const first = marks[0] as Mark;
      const last = marks.at(-1) as Mark;
      const seconds = (last.at - first.at) / 1_000;
      if (seconds <= 0) return { tokensPerSecond: null, remaining: null };
      const steps = last.step - first.step;
      return {
        tokensPerSecond: last.tokens > first.tokens ? (last.tokens - first.tokens) / seconds : null,
        remaining: steps > 0 && total !== null ? (seconds / steps) * Math.max(0, total - last.step) : null,
      };
    };
    const line = (ended: boolean) => {
      const { tokensPerSecond, remaining } = speed();
      const time = ended
        ? `in ${formatSeconds((clock() - begun) / 1_000)}`
        : total === null
          ? `${formatSeconds((clock() - begun) / 1_000)} so far`
          : `${formatSeconds(remaining ?? NaN)} left`;
      return [
        paint(1, name),
        count(latest.step),
        ...Object.entries(latest.numbers ?? {}).map(
          ([key, value]) => `${paint(2, key)} ${formatNumber(value)}`,
        ),
        ...(tokensPerSecond === null ? [] : [paint(2, formatSpeed(tokensPerSecond))]),
        paint(2, time),
      ];
    };
    const draw = (ended: boolean) => {
      shown = fit(line(ended), stream.columns || DEFAULT_COLUMNS);
      stream.write(CLEAR_LINE + shown);
      shownAt = clock();
      shownStep = latest.step;
    };
    const object = (event: string) => {
      const { tokensPerSecond, remaining } = speed();
      return {
        event,
        stage: name,
        step: latest.step,
        total,
        ...latest.numbers,
        timing: {
          seconds: (clock() - begun) / 1_000,
          ...(tokensPerSecond === null ? {} : { tokens_per_second: tokensPerSecond }),
          ...(remaining === null ? {} : { seconds_left: remaining }),
        },
      };
    };
    const plain = (ended: boolean) => {
      stream.write(`${line(ended).join("  ")}\n`);
      plainAt = clock();
      shownStep = latest.step;
    };

    if (json) emit({ event: "stage", stage: name, step: from, total });
    else if (live) draw(false);
    else stream.write(`${name}  ${count(from)}\n`);
    let over = false;
    const own: StageProgress = {
      report: (report) => {
        if (over) return;
        latest = report;
        tokens += report.tokens ?? 0;
        marks.push({ at: clock(), step: report.step, tokens });
        if (marks.length > WINDOW + 1) marks.shift();
        if (json) emit(object("step"));
        else if (live && clock() - shownAt >= LIVE_MS) draw(false);
        else if (!live && report.step < (total ?? Infinity) && clock() - plainAt >= plainEvery * 1_000)
          plain(false);
      },
      end: (outcome = "done") => {
        if (over) return;
        over = true;
        open = null;
        if (json) emit({ ...object("end"), outcome });
        else if (live) {
          draw(true);
          stream.write("\n");
          shown = "";
        } else if (shownStep !== latest.step || outcome === "done") plain(true);
      },
    };
    open = own;
    return own;
  };
  const note = (text: string) => {
    if (json) emit({ event: "note", text });
    else if (live && shown !== "") stream.write(`${CLEAR_LINE}${text}\n${shown}`);
    else stream.write(`${text}\n`);
  };
  return { stage, note };
}

// JSON has no NaN, and a diverged loss must not read as null.
function finite(_: string, value: unknown): unknown {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

/** Joins parts while they fit into one row: a longer line would wrap, and the next redraw would leave half of it. */
function fit(parts: readonly string[], columns: number): string {
  let text = "";
  for (const part of parts) {
    const longer = text === "" ? part : `${text}  ${part}`;
    if (stripVTControlCharacters(longer).length >= columns) break;
    text = longer;
  }
  return text;
}
