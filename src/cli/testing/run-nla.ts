// The command line in a test: `nla` with all its commands, its output as text.
import { COMMANDS, VERSION } from "../commands.js";
import { runCli } from "../program.js";

/** What a call of `nla` gave. */
export interface NlaResult {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs `nla` with these arguments; `terminal` is its width in columns, without one output goes to a pipe. */
export async function runNla(
  args: readonly string[],
  { terminal, env = {} }: { readonly terminal?: number; readonly env?: Record<string, string> } = {},
): Promise<NlaResult> {
  const text = { out: "", err: "" };
  const stream = (name: "out" | "err") => ({
    write: (part: string) => void (text[name] += part),
    ...(terminal === undefined ? {} : { isTTY: true, columns: terminal }),
  });
  const silent = { on: () => undefined, off: () => undefined, exit: () => undefined };
  const streams = { stdout: stream("out"), stderr: stream("err"), env };
  const code = await runCli(args, COMMANDS, { version: VERSION, streams, signals: silent });
  return { code, ...text };
}
