// metrics.jsonl and samples.jsonl: one JSON object a line, appended, one write a row. A run that was killed and resumed
// ends with the rows of one that never was: on resume the log is cut back to what stood there before the resumed step.
//
// What differs between two runs of the same bytes is time, so everything measured by a clock (`seconds...`,
// `tokens_per_second`) is in one nested object, `timing`; `withoutTiming` gives the row to compare. JSON has no NaN: a
// number that is not finite is written as the string "NaN", "Infinity" or "-Infinity", never as null.
import { open, readFile } from "node:fs/promises";
import { NlaError, messageOf } from "../error.js";
import { isDiskFull } from "../data/files.js";
import type { Json } from "./run-folder.js";

/** One row. `step` is that of the stage; every other field is named by whoever logs it. */
export interface LogRow {
  readonly stage: string;
  readonly step: number;
  /** Whatever a clock measured: `seconds`, `seconds_rollout`, `tokens_per_second`, ... */
  readonly timing?: Readonly<Record<string, number>>;
  readonly [field: string]: Json | undefined;
}

/** A log that is open for appending. */
export interface JsonLog extends AsyncDisposable {
  readonly path: string;
  /** Appends a row; rows land in the order of the calls. @throws NlaError `log.row`, `disk.full` (the torn row is taken back) */
  append(row: LogRow): Promise<void>;
  /** Waits until all rows are on the disk. Call it before a checkpoint, so that no row is missing after a power cut. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

/** Where an opened log starts. */
export interface LogStart {
  /** The stage that is about to log. */
  readonly stage: string;
  /** The first step that will be logged (again): its rows and all after them are cut off. */
  readonly nextStep: number;
}

const MAX_LOG_BYTES = 1_000_000_000; // read at once; a row is about 1 kB, so this is a million steps
const TIMED = /^(seconds|tokens_per_second)/;

function checkRow(row: LogRow, file: string): void {
  const bad = (found: string, wanted: string, next: string) =>
    new NlaError({ code: "log.row", subject: `a row for ${file}`, found, wanted, next });
  if (typeof row.stage !== "string" || !Number.isSafeInteger(row.step) || row.step < 0) {
    throw bad(
      `stage ${String(row.stage)}, step ${String(row.step)}`,
      "a stage and a whole step",
      "Pass both.",
    );
  }
  for (const name of Object.keys(row)) {
    if (!TIMED.test(name)) continue;
    throw bad(
      `${name} at the top of the row`,
      "measured times inside `timing`",
      `Log it as timing: { ${name} }.`,
    );
  }
}

/** A row as its line, without the newline. @throws NlaError `log.row` for what JSON cannot hold */
export function encodeRow(row: LogRow, file = "a log"): string {
  checkRow(row, file);
  return JSON.stringify(row, (name, value: unknown) => {
    if (typeof value === "number" && !Number.isFinite(value)) return String(value);
    if (
      value === undefined ||
      typeof value === "bigint" ||
      typeof value === "function" ||
      ArrayBuffer.isView(value)
    ) {
      throw new NlaError({
        code: "log.row",
        subject: `field ${name} of a row for ${file}`,
        found: value === undefined ? "undefined" : (value.constructor?.name ?? typeof value),
        wanted: "null, a boolean, a number, text, or a list or plain object of them",
        next: "Convert it, or leave the field out.",
      });
    }
    return value;
  });
}

/** A row without what a clock measured: what two runs of the same bytes share. */
export function withoutTiming(row: LogRow): LogRow {
  const { timing: _, ...rest } = row;
  return rest as LogRow;
}

interface Line {
  readonly row: LogRow;
  /** Byte offset of the line's start. */
  readonly start: number;
}

function parseLines(bytes: Uint8Array, file: string): { lines: Line[]; end: number } {
  const lines: Line[] = [];
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let start = 0;
  for (let stop = bytes.indexOf(0x0a); stop >= 0; stop = bytes.indexOf(0x0a, start)) {
    try {
      const row = JSON.parse(decoder.decode(bytes.subarray(start, stop))) as LogRow;
      if (typeof row?.stage !== "string" || !Number.isSafeInteger(row.step))
        throw new Error("no stage and step");
      lines.push({ row, start });
    } catch (cause) {
      throw new NlaError({
        code: "log.damaged",
        subject: `${file}, line ${lines.length + 1}`,
        found: messageOf(cause),
        wanted: "a JSON object with stage and step on each line",
        next: "Delete that line and those after it; a resumed run writes them again from its last checkpoint.",
        cause,
      });
    }
    start = stop + 1;
  }
  return { lines, end: start };
}

async function readLog(file: string): Promise<Uint8Array> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return new Uint8Array();
    throw thrown;
  }
  if (bytes.length <= MAX_LOG_BYTES) return bytes;
  throw new NlaError({
    code: "log.too-large",
    subject: file,
    found: `${bytes.length.toLocaleString("en")} bytes`,
    wanted: `at most ${MAX_LOG_BYTES.toLocaleString("en")}`,
    next: "Raise log.sample_every, or keep the log elsewhere.",
  });
}

/**
 * The rows of a log; none where there is no file. A last line without its newline is still being written, or was torn by
 * a kill, and is left out.
 *
 * @throws NlaError `log.damaged` with the line
 */
export async function readRows(file: string): Promise<LogRow[]> {
  return parseLines(await readLog(file), file).lines.map(({ row }) => row);
}

/**
 * Opens a log for appending and cuts it back: a torn last line goes, and so does everything from the first row of
 * `stage` with a step of at least `nextStep`. Rows of one stage are appended in the order of their steps, so what is
 * left is exactly what stood there when that step began.
 *
 * @throws NlaError `log.damaged` with the line, `disk.full`
 */
export async function openLog(file: string, { stage, nextStep }: LogStart): Promise<JsonLog> {
  const { lines, end } = parseLines(await readLog(file), file);
  const cut = lines.find(({ row }) => row.stage === stage && row.step >= nextStep);
  const handle = await open(file, "a");
  let length = cut?.start ?? end;
  await handle.truncate(length);
  let queue: Promise<void> = Promise.resolve();

  const write = async (data: Uint8Array) => {
    try {
      let written = 0;
      while (written < data.length) written += (await handle.write(data, written)).bytesWritten;
      length += data.length;
    } catch (cause) {
      await handle.truncate(length); // takes a torn row back, so that the log stays whole for whoever reads it now
      if (!isDiskFull(cause)) throw cause;
      throw new NlaError({
        code: "disk.full",
        subject: file,
        found: `no room for a row of ${data.length} bytes`,
        wanted: "free space on that disk",
        next: "Free some, then run the same command again: it goes on from the last checkpoint.",
        cause,
      });
    }
  };
  const append = (row: LogRow) => {
    const line = new TextEncoder().encode(`${encodeRow(row, file)}\n`);
    const turn = queue.then(() => write(line));
    queue = turn.catch(() => undefined); // the caller gets the error; the queue only needs to know that it ended
    return turn;
  };
  const flush = async () => {
    await queue;
    await handle.sync();
  };
  const close = async () => {
    await queue;
    await handle.close();
  };
  return {
    path: file,
    append: async (row) => append(row),
    flush,
    close,
    [Symbol.asyncDispose]: close,
  };
}
