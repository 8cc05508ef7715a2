// `nla train CONFIG`: trains a pair, or goes on with a run that was stopped. Thin: the recipe is train/run.ts.
import { performance } from "node:perf_hooks";
import path from "node:path";
import { loadConfig } from "../train/config.js";
import { openProgress } from "../train/progress.js";
import { train } from "../train/run.js";
import { localFolder } from "./hub-names.js";
import { isInterruption } from "./output.js";
import type { CommandContext, CommandEntry } from "./program.js";

/** Where runs go that are not told where. */
export const RUNS_FOLDER = "runs";

/** The folder of a config's run: what `--run` says, else `runs/{name of the config file}`. */
export function runDirectory(config: string, run: unknown): string {
  return typeof run === "string" ? run : path.join(RUNS_FOLDER, path.basename(config, path.extname(config)));
}

/** A word as a shell takes it back: quoted where it has more than letters, digits and the usual marks of paths. */
export function shellWord(word: string): string {
  return /^[\w./:=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** Trains from a config file with progress on standard error, and says how to go on if it is interrupted. */
export async function trainFrom(
  config: string,
  {
    run,
    set,
    command,
    from,
  }: {
    readonly run: unknown;
    readonly set: readonly string[];
    readonly command: string;
    readonly from?: string | undefined;
  },
  context: CommandContext,
): Promise<string> {
  const { stderr, env, json, signal } = context;
  const loaded = await loadConfig(config, set);
  await localFolder(loaded.target, context); // a name of the hub into the cache, where the target is looked for
  const directory = runDirectory(config, run);
  const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
  try {
    return await train(loaded, { directory, from, progress, signal });
  } catch (thrown) {
    if (signal.aborted && isInterruption(thrown)) {
      progress.note(`Stopped, and saved in ${directory}. The same command goes on from there: ${command}`);
    }
    throw thrown;
  }
}

/** The `train` command. */
export const trainCommand: CommandEntry = {
  name: "train",
  summary: "train a verbalizer and a reconstructor; goes on by itself where it stopped",
  arguments: [{ name: "<config>", description: "a YAML file; docs/config.md lists every key" }],
  options: [
    { flags: "--run <dir>", description: "the run folder; by default runs/ and the config's name" },
    {
      flags: "--set <key=value...>",
      description: "change single keys, the value read as YAML: --set rl.steps=10",
    },
    {
      flags: "--from <dir>",
      description:
        "take data and warm start of this run, whose config differs in rl, log, threads and seed only",
    },
  ],
  examples: [
    {
      command: "nla train configs/quickstart.yaml",
      does: "the bundled example, about two minutes on two cores",
    },
    {
      command: "nla train configs/quickstart.yaml --run runs/short --set rl.steps=5",
      does: "the same with less RL",
    },
    {
      command:
        "nla train runs/smallworld/config.yaml --from runs/smallworld --run runs/frozen --set rl.freeze_reconstructor=true",
      does: "another arm of RL from the same warm start",
    },
  ],
  jsonHelp: "progress as JSON lines on standard error, the run folder on standard output",
  action: async ([config], options, context) => {
    const set = (options.set as readonly string[] | undefined) ?? [];
    const run = typeof options.run === "string" ? ["--run", options.run] : [];
    const from = typeof options["from"] === "string" ? options["from"] : undefined;
    const words = [
      "nla",
      "train",
      config as string,
      ...run,
      ...set.flatMap((each) => ["--set", each]),
    ].concat(from === undefined ? [] : ["--from", from]);
    const command = words.map(shellWord).join(" ");
    const directory = await trainFrom(config as string, { run: options.run, set, command, from }, context);
    context.stdout.write(context.json ? `${JSON.stringify({ run: directory })}\n` : `${directory}\n`);
  },
};
