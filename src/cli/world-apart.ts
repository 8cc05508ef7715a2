// `nla world apart DIR`: what reinforcement learning added to an NLA of the world, taken apart: choosing what to say, reading it better, or a code
// between the two models. Thin: measuring is evaluate/gain-apart.ts.
import { existsSync } from "node:fs";
import path from "node:path";
import { takeApart } from "../evaluate/gain-apart.js";
import type { ApartReport, Arm } from "../evaluate/gain-apart.js";
import { readHeldOutRows } from "../evaluate/held-out-rows.js";
import { NlaError } from "../error.js";
import { loadNla } from "../nla/read.js";
import type { Nla } from "../nla/read.js";
import type { Device } from "../tensor/index.js";
import { loadConfig } from "../train/config.js";
import { openProgress } from "../train/progress.js";
import { RUN_LAYOUT, trainingFile } from "../train/run-layout.js";
import { deviceFor, verbalizerFolders } from "./device-for.js";
import { UsageError } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandContext, CommandEntry } from "./program.js";
import { table, wrap } from "./table.js";

const WIDTH = 100;

interface ApartFlags {
  readonly arm?: readonly string[];
  readonly rows: number;
  readonly samples: number;
  readonly resamples: number;
  readonly seed: number;
  readonly threads?: number;
}

const right = (header: string) => ({ header, align: "right" as const });

/** The report as text. */
export function renderApart({ tokens, choosing, fixedList, lines }: ApartReport): string {
  const rows = lines.map(({ name, warmFve, trainedFve, scores }) => {
    const precision = scores?.overall.precision;
    const recall = scores?.overall.recall;
    return [
      name,
      warmFve.toFixed(3),
      trainedFve.toFixed(3),
      precision
        ? `${precision.value.toFixed(3)} (${precision.low.toFixed(3)} to ${precision.high.toFixed(3)})`
        : "-",
      recall ? `${recall.value.toFixed(3)} (${recall.low.toFixed(3)} to ${recall.high.toFixed(3)})` : "-",
      scores ? scores.sentences.value.toFixed(1) : "-",
      scores ? `${(100 * scores.unparsed.value).toFixed(1)} %` : "-",
    ];
  });
  const heads = [
    { header: "" },
    right("FVE warm AR"),
    right("FVE RL AR"),
    right("precision"),
    right("recall"),
  ];
  const meaning =
    `${tokens} held-out tokens; 95 % by bootstrap over documents. Values are what a verbalizer says when it has to name those categories, decoded greedily. ` +
    `The fixed list (${fixedList.join(", ")}) was chosen on ${choosing} other held-out tokens by the warm start's reconstructor. ` +
    "Arms are read by the warm start's reconstructor and by their own.";
  return [
    table([...heads, right("claims"), right("unparsed")], rows),
    wrap(meaning, WIDTH).join("\n"),
    "",
  ].join("\n\n");
}

async function warmOf(directory: string, device: Device): Promise<Nla> {
  const av = path.join(directory, RUN_LAYOUT.warmVerbalizer);
  const ar = path.join(directory, RUN_LAYOUT.warmReconstructor);
  if (existsSync(av) && existsSync(ar)) return await loadNla(av, device, { reconstructor: ar });
  throw new NlaError({
    code: "apart.warm",
    subject: directory,
    found: "no warm-started pair in it",
    wanted: "a run folder of `nla train`, which keeps the pair that RL started from",
    next: "Name a run folder, such as runs/smallworld; the bundle has no warm start.",
  });
}

function armOf(text: string): { readonly name: string; readonly directory: string } {
  const [, name, directory] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  if (name !== undefined && directory !== undefined) return { name, directory };
  throw new UsageError({
    code: "cli.option",
    subject: "--arm",
    found: JSON.stringify(text),
    wanted: "a name and a run folder, such as frozen=runs/frozen",
    next: "Repeat --arm for every run.",
  });
}

/** Other runs, freed together. */
async function armsOf(
  named: readonly { readonly name: string; readonly directory: string }[],
  device: Device,
): Promise<{ readonly list: readonly Arm[] } & Disposable> {
  const held: { name: string; nla: Nla }[] = [];
  const free = () => held.forEach(({ nla }) => nla[Symbol.dispose]());
  try {
    for (const { name, directory } of named) held.push({ name, nla: await loadNla(directory, device) });
  } catch (thrown) {
    free();
    throw thrown;
  }
  return { list: held, [Symbol.dispose]: free };
}

async function apart(directory: string, flags: ApartFlags, context: CommandContext): Promise<ApartReport> {
  const { stderr, env, json, signal } = context;
  const named = (flags.arm ?? []).map(armOf);
  using device = await deviceFor(verbalizerFolders(directory), { threads: flags.threads });
  using warm = await warmOf(directory, device);
  using trained = await loadNla(directory, device);
  using arms = await armsOf(named, device);
  const config = await loadConfig(path.join(directory, RUN_LAYOUT.config));
  const rows = await readHeldOutRows(path.join(directory, trainingFile("eval")), {
    width: trained.verbalizer.contract.dim,
    rows: flags.rows,
  });
  const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
  return await takeApart(rows, {
    warm,
    trained,
    arms: arms.list,
    maxNewTokens: config.rl.max_new_tokens,
    samples: flags.samples,
    bootstrap: { seed: flags.seed, resamples: flags.resamples },
    signal,
    onStage: (name) => progress.note(name),
  });
}

/** The `world apart` command. */
export const worldApartCommand: CommandEntry = {
  name: "apart",
  summary: "what RL added to an NLA, taken apart: choosing what to say, or reading it better",
  arguments: [{ name: "<dir>", description: "a run folder of a corpus of the world" }],
  options: [
    {
      flags: "--arm <name=dir...>",
      description: "another run from the same warm start (nla train --from), beside it",
    },
    {
      flags: "--rows <n>",
      description: "held-out tokens, a third of them to choose the fixed list on",
      default: 900,
      parse: wholeNumber("--rows", 30),
    },
    {
      flags: "--samples <n>",
      description: "of which the best",
      default: 8,
      parse: wholeNumber("--samples", 1),
    },
    {
      flags: "--resamples <n>",
      description: "of the bootstrap",
      default: 1000,
      parse: wholeNumber("--resamples", 1),
    },
    { flags: "--seed <n>", description: "of the bootstrap", default: 0, parse: wholeNumber("--seed") },
    { flags: "--threads <n>", description: "CPU threads", parse: wholeNumber("--threads", 1) },
  ],
  examples: [
    { command: "nla world apart runs/smallworld", does: "swaps, the fixed list, best of 8" },
    {
      command: "nla world apart runs/smallworld --arm frozen=runs/frozen --arm labels=runs/labels",
      does: "with two control runs beside it",
    },
  ],
  jsonHelp: "{tokens, choosing, fixedList, lines: [{name, warmFve, trainedFve, scores}]}",
  action: async ([directory], options, context) => {
    const report = await apart(directory as string, options as unknown as ApartFlags, context);
    context.stdout.write(context.json ? `${JSON.stringify(report)}\n` : renderApart(report));
  },
};
