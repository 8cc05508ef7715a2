// `nla world unspoken DIR`: what an NLA knows that the text no longer says: test or real, hidden motives, secret aims, the coming rhyme, as AUROC
// beside models that see only text and a linear probe. Thin: measuring is evaluate/unspoken.ts.
import { existsSync } from "node:fs";
import path from "node:path";
import type { Interval } from "../evaluate/bootstrap.js";
import { SHORT_WINDOW } from "../evaluate/text-only-control.js";
import { fitTextOnly } from "../evaluate/text-only.js";
import type { TextOnly } from "../evaluate/text-only.js";
import { FAR } from "../evaluate/unspoken-questions.js";
import { measureUnspoken } from "../evaluate/unspoken.js";
import type { UnspokenReport } from "../evaluate/unspoken.js";
import { loadNla } from "../nla/read.js";
import type { Nla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import { openProgress } from "../train/progress.js";
import { RUN_LAYOUT } from "../train/run-layout.js";
import { deviceFor, verbalizerFolders } from "./device-for.js";
import { wholeNumber } from "./program.js";
import type { CommandContext, CommandEntry } from "./program.js";
import { table, wrap } from "./table.js";
import { bringTarget } from "./target-of.js";

const WIDTH = 100;

interface UnspokenFlags {
  readonly model?: string;
  readonly documents: number;
  readonly samples: number;
  readonly resamples: number;
  readonly seed: number;
  readonly threads?: number;
}

const right = (header: string) => ({ header, align: "right" as const });

function interval(of: Interval | null): string {
  return of ? `${of.value.toFixed(3)} (${of.low.toFixed(3)} to ${of.high.toFixed(3)})` : "-";
}

/** The report as text. */
export function renderUnspoken({ documents, tokens, scores, named }: UnspokenReport): string {
  const questions = [...new Set(scores.map(({ question }) => question))];
  const rows = questions.flatMap((question) =>
    scores
      .filter((each) => each.question === question)
      .map((each, i) => [
        i === 0 ? question : "",
        i === 0 ? String(each.tokens) : "",
        i === 0 ? String(each.distance) : "",
        each.reader,
        interval(each.auroc),
      ]),
  );
  const heads = [{ header: "question" }, right("tokens"), right("since cue"), { header: "who answers" }];
  const main = table([...heads, right("AUROC")], rows);
  const false_ = named.map((each) => [
    each.question,
    each.pair,
    `${interval(each.named)} of ${each.trueTokens}`,
    `${interval(each.falselyNamed)} of ${each.otherTokens}`,
  ]);
  const meaning =
    `${tokens} tokens of ${documents} documents in no training set. Asked at tokens ${FAR} and more after the words that told it (median in the table); the rhyme's cue stands in its line, so it is asked at every distance. ` +
    "AUROC: how often what is true gets more than what is not, .5 by chance, 95 % resampling documents. samples: the share that claims it. asked: the verbalizer's probability of the claim as a first sentence.";
  return [
    main,
    wrap(meaning, WIDTH).join("\n"),
    "Named by the greedy explanation of tokens drawn at random, where it is true, and falsely elsewhere:",
    table([{ header: "named" }, { header: "by" }, right("where true"), right("elsewhere")], false_),
    "",
  ].join("\n\n");
}

async function unspoken(directory: string, flags: UnspokenFlags, context: CommandContext) {
  const { stderr, env, json, signal } = context;
  using device = await deviceFor(verbalizerFolders(directory), { threads: flags.threads });
  using nla = await loadNla(directory, device);
  using target = await loadTarget(await bringTarget(flags.model, nla.target, context), device);
  const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
  const texts: { name: string; model: TextOnly }[] = [];
  for (const window of [SHORT_WINDOW, null]) {
    const name = window === null ? "text only, all of it" : `text only, last ${window} words`;
    const live = progress.stage(name, { total: null });
    const categories = ["test", "motive", "aim", "rhyme"] as const;
    const onProgress = (step: number) => live.report({ step });
    texts.push({ name, model: await fitTextOnly({ window, categories, signal, onProgress }) });
    live.end("done");
  }
  const warmFolders = [RUN_LAYOUT.warmVerbalizer, RUN_LAYOUT.warmReconstructor].map((folder) =>
    path.join(directory, folder),
  ) as [string, string];
  const pairs: { name: string; nla: Nla }[] = [{ name: "NLA", nla }];
  using warm = warmFolders.every((folder) => existsSync(folder))
    ? await loadNla(warmFolders[0], device, { reconstructor: warmFolders[1] })
    : null;
  if (warm) pairs.push({ name: "warm start", nla: warm });
  return await measureUnspoken(target, {
    pairs,
    texts,
    documents: flags.documents,
    samples: flags.samples,
    bootstrap: { seed: flags.seed, resamples: flags.resamples },
    signal,
    onStage: (name) => progress.note(name),
  });
}

/** The `world unspoken` command. */
export const worldUnspokenCommand: CommandEntry = {
  name: "unspoken",
  summary: "what an NLA knows that the text no longer says, beside text-only models and a linear probe",
  arguments: [{ name: "<dir>", description: "a run folder, or assets/smallworld" }],
  options: [
    { flags: "--model <dir>", hub: "name", description: "the target, if not the one that the NLA names" },
    {
      flags: "--documents <n>",
      description: "documents, some five tokens each",
      default: 300,
      parse: wholeNumber("--documents", 20),
    },
    { flags: "--samples <n>", description: "per token", default: 8, parse: wholeNumber("--samples", 1) },
    {
      flags: "--resamples <n>",
      description: "of the bootstrap",
      default: 1000,
      parse: wholeNumber("--resamples", 1),
    },
    {
      flags: "--seed <n>",
      description: "of tokens and bootstrap",
      default: 0,
      parse: wholeNumber("--seed"),
    },
    { flags: "--threads <n>", description: "CPU threads", parse: wholeNumber("--threads", 1) },
  ],
  examples: [{ command: "nla world unspoken assets/smallworld", does: "the bundled NLA" }],
  jsonHelp:
    "{documents, tokens, samples, scores: [{question, reader, tokens, distance, auroc}], named: [{question, pair, named, falselyNamed, ...}]}",
  action: async ([directory], options, context) => {
    const report = await unspoken(directory as string, options as unknown as UnspokenFlags, context);
    context.stdout.write(context.json ? `${JSON.stringify(report)}\n` : renderUnspoken(report));
  },
};
