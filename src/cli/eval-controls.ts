// What `nla eval --controls` runs beside a pair on documents of the world: two models that see only text, and linear probes of the target. They
// take minutes, so they are asked for. Thin: the models are evaluate/'s.
import { readingsByText, TEXT_ONLY } from "../evaluate/text-only-control.js";
import type { ControlRows } from "../evaluate/text-only-control.js";
import { probeWorld } from "../evaluate/world-probes.js";
import type { ProbeResult } from "../evaluate/world-probes.js";
import type { ExplainedRow } from "../evaluate/explained-rows.js";
import type { Nla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import { openProgress } from "../train/progress.js";
import type { CommandContext } from "./program.js";
import { bringTarget } from "./target-of.js";

const PROBE_DOCUMENTS = 700;
/** Explanations by text alone for the same tokens as a pair's greedy ones, and probes of the NLA's layer. */
export async function controlsOf(
  nla: Nla,
  greedy: readonly ExplainedRow[],
  {
    model: named,
    documents,
    probeDocuments = PROBE_DOCUMENTS,
  }: {
    readonly model?: string;
    /** Documents that the text-only models are fitted to. Defaults to their own. */
    readonly documents?: number;
    /** Defaults to 700. */
    readonly probeDocuments?: number;
  },
  context: CommandContext,
): Promise<{ readonly lines: readonly ControlRows[]; readonly probes: readonly ProbeResult[] }> {
  const { stderr, env, json, signal } = context;
  const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
  const lines: ControlRows[] = [];
  for (const { window, name } of TEXT_ONLY) {
    const live = progress.stage(name, { total: null });
    const readings = await readingsByText(nla, greedy, {
      window,
      name,
      ...(documents === undefined ? {} : { documents }),
      signal,
      onProgress: (step) => live.report({ step }),
    });
    lines.push(...readings);
    live.end("done");
  }
  using target = await loadTarget(await bringTarget(named, nla.target, context), nla.verbalizer.model.device);
  const live = progress.stage("probes", { total: null });
  const probes = await probeWorld(target, { layers: [nla.layer], documents: probeDocuments, signal });
  live.end("done");
  return { lines, probes };
}
