// Ctrl-C. The first one asks: an AbortSignal that every long operation takes, so that training saves before it ends. The
// second one, for when that takes too long, ends the process at once; the run folder survives that as it survives a kill.
import { NlaError } from "../error.js";

/** What the shell expects of a process that Ctrl-C ended: 128 + the number of SIGINT. */
export const INTERRUPTED_EXIT_CODE = 130;

/** The part of `process` that is used here. */
export interface SignalSource {
  on(name: "SIGINT", listener: () => void): unknown;
  off(name: "SIGINT", listener: () => void): unknown;
  exit(code: number): unknown;
}

/** An AbortSignal that SIGINT aborts, and the way to stop listening. */
export interface Interruption extends Disposable {
  readonly signal: AbortSignal;
}

/** The reason of an abort by SIGINT. */
export function interruptedError(): NlaError {
  return new NlaError({
    code: "cli.interrupted",
    subject: "the command",
    found: "Ctrl-C",
    wanted: "to run to the end",
    next: "Run it again; training goes on from its last checkpoint.",
  });
}

/**
 * Listens for SIGINT: the first aborts `signal`, the second calls `source.exit(130)`.
 *
 * @param options.onFirst called at the first one, to say that a second one would not wait
 */
export function listenForInterrupt({
  source = process,
  onFirst = () => undefined,
}: { readonly source?: SignalSource; readonly onFirst?: () => void } = {}): Interruption {
  const controller = new AbortController();
  const listener = () => {
    if (controller.signal.aborted) {
      source.exit(INTERRUPTED_EXIT_CODE);
      return;
    }
    onFirst();
    controller.abort(interruptedError());
  };
  source.on("SIGINT", listener);
  return { signal: controller.signal, [Symbol.dispose]: () => void source.off("SIGINT", listener) };
}
