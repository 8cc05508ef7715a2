// `nla quickstart`, which `npm start` runs: trains the bundled example and reads a sentence with it. The second time it only
// reads, because the run is there.
import path from "node:path";
import { explainCommand } from "./explain.js";
import type { CommandEntry } from "./program.js";
import { runDirectory, shellWord, trainFrom } from "./train.js";

// Two folders up from src/cli and from dist/cli alike.
const CONFIG = path.resolve(import.meta.dirname, "../../configs/quickstart.yaml");

// Not in the training text, and in words that a model of 260 thousand parameters has met.
const SENTENCE = "The king is dead, and the queen weeps for him.";

/** The `quickstart` command. */
export const quickstartCommand: CommandEntry = {
  name: "quickstart",
  summary: "train the bundled example (about two minutes) and read a sentence with it",
  arguments: [{ name: "[text]", description: `the sentence; by default "${SENTENCE}"` }],
  options: [{ flags: "--run <dir>", description: "the run folder; by default runs/quickstart" }],
  examples: [
    { command: "nla quickstart", does: "train, then read the default sentence" },
    {
      command: 'nla quickstart "Good morrow, my lord."',
      does: "read another one; no training the second time",
    },
  ],
  jsonHelp: "the reading as `nla explain --json` prints it",
  action: async ([text], options, context) => {
    const run = options.run ?? runDirectory(CONFIG, undefined);
    const given = [text as string | undefined, ...(options.run ? ["--run", options.run as string] : [])];
    const words = ["nla", "quickstart", ...given.filter((each) => each !== undefined)];
    const byNpm = context.env["npm_lifecycle_event"] === "start" && words.length === 2;
    const command = byNpm ? "npm start" : words.map(shellWord).join(" ");
    const directory = await trainFrom(CONFIG, { run, set: [], command }, context);
    const flags = { nla: directory, temperature: 0, maxNewTokens: 200, seed: 0 };
    await explainCommand.action?.([(text as string | undefined) ?? SENTENCE], flags, context);
  },
};
