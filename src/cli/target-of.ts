// Which model a pair is read with: the one named on the command line, else the one that the pair's sidecar names.
import { existsSync } from "node:fs";
import { NlaError } from "../error.js";
import { BUNDLED, targetDirectory } from "../nla/target.js";
import { localFolder } from "./hub-names.js";
import type { CommandContext } from "./program.js";

/**
 * The target's name or path.
 *
 * @param named what `--model` says
 * @param stated what the pair's sidecar says (base_checkpoint)
 * @throws NlaError `cli.target` where there is none, or none is there
 */
export function targetOf(named: string | undefined, stated: string | null): string {
  const name = named ?? stated;
  if (name !== null && existsSync(targetDirectory(name))) return name;
  const subject = named === undefined ? "the target that the NLA's sidecar names" : `--model ${named}`;
  throw missing(subject, name === null ? "no name" : `${name}, and no such folder here`);
}

function missing(subject: string, found: string, cause?: unknown): NlaError {
  return new NlaError({
    code: "cli.target",
    subject,
    found,
    wanted: `a model folder, a name of the hub, or a bundled model (${BUNDLED.join(", ")})`,
    next: "Give --model the folder of the model that the NLA was trained for.",
    cause,
  });
}

/**
 * The same, where the sidecar may name a model of the hub: it is brought into the cache first. (`--model` was by then.)
 *
 * @throws NlaError `cli.target`, with what the hub said
 */
export async function bringTarget(
  named: string | undefined,
  stated: string | null,
  context: Pick<CommandContext, "env" | "stderr" | "json" | "signal">,
): Promise<string> {
  if (named !== undefined || stated === null) return targetOf(named, stated);
  try {
    await localFolder(stated, context);
  } catch (thrown) {
    // A path of the machine where the pair was trained looks like a name of the hub, too.
    if (!(thrown instanceof NlaError) || !thrown.code.startsWith("hub.")) throw thrown;
    throw missing(
      "the target that the NLA's sidecar names",
      `${stated}: ${thrown.found} (${thrown.code})`,
      thrown,
    );
  }
  return targetOf(named, stated);
}
