// Names of the hub on the command line: what is no path here and looks like `org/name[@revision]` is brought into the cache first.
import { existsSync } from "node:fs";
import path from "node:path";
import { downloadSnapshot } from "../data/hub-download.js";
import { parseHubName } from "../data/hub-name.js";
import type { HubName } from "../data/hub-name.js";
import { adapterBaseName, hasAdapter } from "../model/index.js";
import type { CommandContext } from "./program.js";

const REPORT_BYTES = 32 * 2 ** 20;

/**
 * The folder or GGUF file of a hub name, downloaded if it has to be; anything else as it is. The model that an adapter is for is brought as
 * well, if it is one of the hub.
 *
 * @throws NlaError `hub.*`
 */
export async function localFolder(
  name: string,
  context: Pick<CommandContext, "env" | "stderr" | "json" | "signal">,
): Promise<string> {
  const hub = parseHubName(name);
  const place = hub === null ? name : await bring(hub, context);
  if (existsSync(path.join(place, "config.json")) || !(await hasAdapter(place))) return place;
  const base = parseHubName(await adapterBaseName(place));
  if (base !== null) await bring(base, context);
  return place;
}

async function bring(
  hub: HubName,
  { env, stderr, json, signal }: Pick<CommandContext, "env" | "stderr" | "json" | "signal">,
): Promise<string> {
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
