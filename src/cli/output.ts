// Where commands write, and how an error is printed: four labelled lines for a person, one JSON object for a program.
//
// With --json everything that a program needs, errors included, is on standard output; messages for people and progress
// stay on standard error.
import { NlaError, messageOf } from "../error.js";
import { wrap } from "./table.js";
import { INTERRUPTED_EXIT_CODE } from "./signal.js";

/** An output stream; `process.stdout` and `process.stderr` fit. */
export interface OutputStream {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
  readonly columns?: number | undefined;
}

/** The surroundings of a command: all that it touches of the process. */
export interface CliStreams {
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Exit codes of `nla`. */
export const EXIT_CODES = {
  ok: 0,
  /** An error that nlakit names, or an unexpected one. */
  failed: 1,
  /** A command, option or argument that does not exist or is missing. */
  usage: 2,
  interrupted: INTERRUPTED_EXIT_CODE,
} as const;

const REPORT =
  "This is a fault in nlakit. Please report it with these lines and the output of `nla doctor --json`.";
const MAX_WIDTH = 110;

/** A mistake in the command line: exit code 2. */
export class UsageError extends NlaError {}

/** True if an error only says that the command was interrupted. */
export function isInterruption(thrown: unknown): boolean {
  if (thrown instanceof NlaError) return thrown.code === "cli.interrupted";
  return thrown instanceof Error && thrown.name === "AbortError";
}

/** The exit code that belongs to something that was thrown. */
export function exitCodeOf(thrown: unknown): number {
  if (isInterruption(thrown)) return EXIT_CODES.interrupted;
  return thrown instanceof UsageError ? EXIT_CODES.usage : EXIT_CODES.failed;
}

// What the system answers to a path that cannot be used so: the user's to mend, not a fault in nlakit.
const PATH_ERRORS: Readonly<Record<string, string>> = {
  EACCES: "permission to use it",
  EPERM: "permission to use it",
  EROFS: "a disk that can be written to",
  ENOENT: "a path that exists",
  ENOTDIR: "a path through folders",
  EISDIR: "a file",
  EEXIST: "a path that is still free",
  ENAMETOOLONG: "a shorter name",
  ENOSPC: "free space on that disk",
  EDQUOT: "free space in the quota",
  EFBIG: "a file within the size limit",
};

// Files are written beside their place under such a name (data/files.ts), which says nothing to the user.
const TEMPORARY_NAME = /\.([^/\\]+)\.nla-new\.\d+\.[0-9a-f]+/g;

/** An error of the system about a path as one of ours; anything else as it is. */
function named(thrown: unknown): unknown {
  if (!(thrown instanceof Error) || thrown instanceof NlaError) return thrown;
  const { code = "", path } = thrown as NodeJS.ErrnoException;
  const wanted = PATH_ERRORS[code];
  if (wanted === undefined || path === undefined) return thrown;
  return new NlaError({
    code: `system.${code.toLowerCase()}`,
    subject: path.replaceAll(TEMPORARY_NAME, "$1"),
    found: thrown.message.replaceAll(TEMPORARY_NAME, "$1"),
    wanted,
    next: "Check the path, its permissions and the free space, then run the command again.",
    cause: thrown,
  });
}

/** Anything that was thrown as plain data, the `error` of `--json` output. */
export function errorObject(thrown: unknown): Record<string, string> {
  if (thrown instanceof NlaError) return thrown.toJSON();
  const stack = thrown instanceof Error && thrown.stack ? { stack: thrown.stack } : {};
  return {
    code: "unexpected",
    subject: "nla",
    found: messageOf(thrown),
    wanted: "no such error",
    next: REPORT,
    ...stack,
  };
}

function label(text: string, colour: boolean, code = 1): string {
  return colour ? `\u001B[${code}m${text}\u001B[0m` : text;
}

/** True if escape sequences for colours belong on a stream. */
export function wantsColour(stream: OutputStream, env: CliStreams["env"]): boolean {
  return stream.isTTY === true && !env["NO_COLOR"] && env["TERM"] !== "dumb";
}

/** An error as text for people: subject, found, wanted and next, each on its labelled line; a stack for unexpected ones. */
export function renderError(
  thrown: unknown,
  { colour = false, width = MAX_WIDTH }: { readonly colour?: boolean; readonly width?: number } = {},
): string {
  if (!(thrown instanceof NlaError)) {
    const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
    return `${label("error", colour, 31)}   unexpected\n${text}\n${REPORT}\n`;
  }
  const lines = [
    [label("error", colour, 31), "  ", thrown.subject],
    [label("found", colour), "  ", thrown.found],
    [label("wanted", colour), " ", thrown.wanted],
    [label("next", colour), "   ", thrown.next],
  ] as const;
  const indent = " ".repeat(8);
  return lines
    .map(([name, gap, text]) => {
      const room = Math.max(20, Math.min(width, MAX_WIDTH) - indent.length);
      return `${name}${gap} ${wrap(text.replaceAll("\n", " "), room).join(`\n${indent}`)}\n`;
    })
    .join("");
}

/** Prints an error where it belongs and returns the exit code. */
export function reportError(
  cause: unknown,
  { stdout, stderr, env }: CliStreams,
  { json }: { readonly json: boolean },
): number {
  const thrown = named(cause);
  if (json) stdout.write(`${JSON.stringify({ error: errorObject(thrown) })}\n`);
  else if (isInterruption(thrown)) stderr.write("stopped\n");
  else
    stderr.write(
      renderError(thrown, { colour: wantsColour(stderr, env), width: stderr.columns || MAX_WIDTH }),
    );
  return exitCodeOf(thrown);
}
