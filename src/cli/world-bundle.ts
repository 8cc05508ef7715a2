// `nla world bundle`, which `npm run smallworld` runs: makes the target and the NLA that ship with the package, with their card. Thin:
// the recipe is train/bundle.ts.
import path from "node:path";
import { performance } from "node:perf_hooks";
import { makeBundle } from "../train/bundle.js";
import { loadConfig } from "../train/config.js";
import { openProgress } from "../train/progress.js";
import { loadTargetConfig } from "../train/target-config.js";
import type { CommandEntry } from "./program.js";
import { wholeNumber } from "./program.js";
import { RUNS_FOLDER } from "./train.js";

// Two folders up from src/cli and from dist/cli alike.
const PACKAGE = path.resolve(import.meta.dirname, "../..");

/** The `world bundle` command. */
export const worldBundleCommand: CommandEntry = {
  name: "bundle",
  summary: "make the target and the NLA that ship with the package, and their card; goes on where it stopped",
  options: [
    {
      flags: "--runs <dir>",
      description: "where the two run folders go",
      default: RUNS_FOLDER,
    },
    { flags: "--threads <n>", description: "CPU threads", default: 2, parse: wholeNumber("--threads", 1) },
  ],
  examples: [{ command: "nla world bundle", does: "anew from nothing, or on from where it stopped" }],
  jsonHelp: "progress as JSON lines on standard error, the card's numbers on standard output",
  action: async (_, options, { stdout, stderr, env, json, signal }) => {
    const { runs, threads } = options as unknown as { readonly runs: string; readonly threads: number };
    const set = [`threads=${threads}`];
    const out = path.join(PACKAGE, "assets/smallworld");
    const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
    const card = await makeBundle({
      target: await loadTargetConfig(path.join(PACKAGE, "configs/smallworld-target.yaml"), set),
      nla: await loadConfig(path.join(PACKAGE, "configs/smallworld.yaml"), set),
      targetRun: path.join(runs, "smallworld-target"),
      nlaRun: path.join(runs, "smallworld"),
      out,
      progress,
      signal,
    });
    stdout.write(json ? `${JSON.stringify(card)}\n` : `${path.join(out, "README.md")}\n`);
  },
};
