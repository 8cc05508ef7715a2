// The one kind of error that nlakit throws on purpose. A leaf: every layer may import it, it imports nothing.
//
// An error is data (code, subject, found, wanted, next) and its message is a rendering of them, so that a terminal, a
// log file and a program each read the part they need. It is thrown where the fault is seen, never turned into 0 or null.

/** The parts of an error; see {@link NlaError}. */
export interface ErrorParts {
  /** Stable, dotted, for programs: `safetensors.truncated`. */
  readonly code: string;
  /** What the error is about: a file, a tensor, a config key. */
  readonly subject: string;
  /** What was there. Values, not adjectives. */
  readonly found: string;
  /** What had to be there. */
  readonly wanted: string;
  /** What the reader can do now. */
  readonly next: string;
  /** The error that caused this one, if any. */
  readonly cause?: unknown;
}

/** An error with a code and the four facts a reader needs: subject, found, wanted, next step. */
export class NlaError extends Error {
  readonly code: string;
  readonly subject: string;
  readonly found: string;
  readonly wanted: string;
  readonly next: string;

  constructor({ code, subject, found, wanted, next, cause }: ErrorParts) {
    super(
      `${subject}: found ${found}; wanted ${wanted}. ${next}`,
      cause === undefined ? undefined : { cause },
    );
    this.name = "NlaError";
    this.code = code;
    this.subject = subject;
    this.found = found;
    this.wanted = wanted;
    this.next = next;
  }

  /** The error as plain data, for `--json` output and logs. */
  toJSON(): Record<string, string> {
    const { code, subject, found, wanted, next } = this;
    return { code, subject, found, wanted, next };
  }
}

/** The text of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
