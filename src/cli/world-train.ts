// `nla world train CONFIG`: trains the world's target from scratch, or goes on with a run that was stopped. Thin: the recipe is
// train/train-target.ts. It stands under `world` because it knows one corpus; `nla train` trains NLAs.
import { performance } from "node:perf_hooks";
import { openProgress } from "../train/progress.js";
import { loadTargetConfig } from "../train/target-config.js";
import { trainTarget } from "../train/train-target.js";
import { isInterruption } from "./output.js";
import type { CommandEntry } from "./program.js";
import { runDirectory, shellWord } from "./train.js";

/** The `world train` command. */
export const worldTrainCommand: CommandEntry = {
  name: "train",
  summary: "train a target from scratch on the world; goes on by itself where it stopped",
  arguments: [{ name: "<config>", description: "a YAML file; docs/target.md lists every key" }],
  options: [
    { flags: "--run <dir>", description: "the run folder; by default runs/ and the config's name" },
    {
      flags: "--set <key=value...>",
      description: "change single keys, the value read as YAML: --set steps=400",
    },
  ],
  examples: [
    { command: "nla world train configs/smallworld-target.yaml", does: "the target of Smallworld" },
    {
      command: "nla world train configs/smallworld-target.yaml --run runs/short --set steps=200",
      does: "a few minutes of it",
    },
  ],
  jsonHelp: "progress as JSON lines on standard error, the run and target folders on standard output",
  action: async ([file], options, { stdout, stderr, env, json, signal }) => {
    const config = file as string;
    const set = (options.set as readonly string[] | undefined) ?? [];
    const loaded = await loadTargetConfig(config, set);
    const directory = runDirectory(config, options.run);
    const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
    try {
      const target = await trainTarget(loaded, { directory, progress, signal });
      stdout.write(json ? `${JSON.stringify({ run: directory, target })}\n` : `${target}\n`);
    } catch (thrown) {
      if (signal.aborted && isInterruption(thrown)) {
        const run = typeof options.run === "string" ? ["--run", options.run] : [];
        const words = ["nla", "world", "train", config, ...run, ...set.flatMap((each) => ["--set", each])];
        progress.note(
          `Stopped, and saved in ${directory}. The same command goes on from there: ${words.map(shellWord).join(" ")}`,
        );
      }
      throw thrown;
    }
  },
};
