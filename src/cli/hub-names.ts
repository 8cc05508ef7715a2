// Names of the hub on the command line: what is no path here and looks like `org/name[@revision]` is brought into the cache first.
import { downloadSnapshot } from "../data/hub-download.js";
import { parseHubName } from "../data/hub-cache.js";
import type { CommandContext } from "./program.js";

const REPORT_BYTES = 32 * 2 ** 20;

/** The folder of a hub name, downloaded if it has to be; anything else as it is. @throws NlaError `hub.*` */
export async function localFolder(
  name: string,
  { env, stderr, json, signal }: Pick<CommandContext, "env" | "stderr" | "json" | "signal">,
): Promise<string> {
  const hub = parseHubName(name);
  if (hub === null) return name;
  let told = -REPORT_BYTES;
  let file = "";
  return downloadSnapshot(hub, {
    env,
    signal,
    onProgress: (progress) => {
      if (json || (progress.file === file && progress.bytes - told < REPORT_BYTES)) return;
      ({ file, bytes: told } = progress);
      const of = progress.total === null ? "" : ` of ${(progress.total / 1e6).toFixed(1)}`;
      stderr.write(`${hub.repo}: ${file}, ${(told / 1e6).toFixed(1)}${of} MB\n`);
    },
  });
}
