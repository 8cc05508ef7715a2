// `nla quickstart`, which `npm start` runs: the bundled NLA of Smallworld reads a new document, offline and in seconds. With --text it
// reads a sentence of one's own; with --train an NLA is trained before one's eyes and reads instead. Rendering is quickstart-page.ts.
import { existsSync } from "node:fs";
import path from "node:path";
import { performance } from "node:perf_hooks";
import { NlaError } from "../error.js";
import { loadNla, read } from "../nla/read.js";
import type { Reading } from "../nla/read.js";
import { loadTarget, targetDirectory } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { checkBundle } from "../train/bundle-checksums.js";
import { loadConfig } from "../train/config.js";
import { openProgress } from "../train/progress.js";
import { train } from "../train/run.js";
import { worldDocument } from "../world/documents.js";
import type { WorldDocument } from "../world/facts.js";
import { deviceFor } from "./device-for.js";
import { readingJson } from "./explain.js";
import { unknownWords, wordsIn } from "./known-words.js";
import { withCurves } from "./live-curves.js";
import { isInterruption, UsageError } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandContext, CommandEntry } from "./program.js";
import { QuickstartPage, tally, UNSPOKEN_DISTANCE, unspokenIn } from "./quickstart-page.js";
import { bringTarget } from "./target-of.js";
import { shellWord } from "./train.js";

// Two folders up from src/cli and from dist/cli alike.
const PACKAGE = path.resolve(import.meta.dirname, "../..");
const BUNDLE = path.join(PACKAGE, "assets/smallworld");
const TRAIN_CONFIG = path.join(PACKAGE, "configs/smallworld-short.yaml");
const TARGET = "smallworld";
const RUN = "runs/quickstart";

const WORLD = 1;
// Behind every document that configs train on or measure.
const FIRST_DOCUMENT = 50_000_000;
const DOCUMENTS = 1_000_000;
const MAX_NEW_TOKENS = 110;
const BATCH = 16;
// Tokens whose explanations are shown, as parts of the document: early, in the middle, at the end.
const SHOWN = [0.3, 0.6, 0.95] as const;

interface QuickstartFlags {
  readonly text?: string;
  readonly train?: boolean;
  readonly nla?: string;
  readonly run?: string;
  readonly seed?: number;
  readonly kind: string;
  readonly threads?: number;
}

/** What is read: a document whose truth is known, or somebody's own words. */
interface Subject {
  readonly text: string;
  readonly words: readonly string[];
  readonly document: WorldDocument | null;
}

function subjectOf({ text, seed, kind }: QuickstartFlags): Subject {
  if (text === undefined) {
    const index = FIRST_DOCUMENT + ((seed ?? Math.floor(Date.now() / 1000)) % DOCUMENTS);
    const document = worldDocument(WORLD, index, { kind });
    return { text: document.words.join(" "), words: document.words, document };
  }
  const words = wordsIn(text);
  const known = words.length - unknownWordsOf(words);
  if (known > 0) return { text: words.join(" "), words, document: null };
  const [strange] = unknownWords(text);
  throw new UsageError({
    code: "quickstart.text",
    subject: "--text",
    found:
      words.length === 0
        ? "nothing to read"
        : `no word that the model knows, ${strange?.word ?? ""} above all`,
    wanted: "some words of Smallworld",
    next: `For example: nla quickstart --text "graded run seven . user : hello , i am mira ." (\`nla world vocabulary\` lists all words).`,
  });
}

function unknownWordsOf(words: readonly string[]): number {
  const strange = new Set(unknownWords(words.join(" ")).map(({ word }) => word));
  return words.filter((word) => strange.has(word)).length;
}

/** Trains a small pair on the bundled target, with curves; returns its run folder. */
async function trainHere(
  flags: QuickstartFlags,
  { stderr, env, json, signal }: CommandContext,
): Promise<string> {
  const directory = flags.run ?? RUN;
  const overrides = flags.threads === undefined ? [] : [`threads=${flags.threads}`];
  const config = await loadConfig(TRAIN_CONFIG, overrides);
  const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
  try {
    return await train(config, { directory, progress: json ? progress : withCurves(progress), signal });
  } catch (thrown) {
    if (signal.aborted && isInterruption(thrown)) {
      const run = flags.run === undefined ? "" : ` --run ${shellWord(flags.run)}`;
      progress.note(
        `Stopped, and saved in ${directory}. The same command goes on: nla quickstart --train${run}`,
      );
    }
    throw thrown;
  }
}

function bundle(): string {
  if (existsSync(path.join(BUNDLE, "verbalizer"))) return BUNDLE;
  throw new NlaError({
    code: "quickstart.bundle",
    subject: BUNDLE,
    found: "no bundled NLA",
    wanted: "the folders target, verbalizer and reconstructor",
    next: "Install the package anew, or make the bundle with `npm run smallworld`.",
  });
}

/** @throws NlaError `quickstart.target` where a target does not read the world's words one by one */
function requireWorld({ name, tokenizer }: Target, pair: string): void {
  const { words } = worldDocument(WORLD, FIRST_DOCUMENT);
  const ids = tokenizer.encode(words.join(" "), { addSpecialTokens: true });
  const known = tokenizer.unkId === null || !ids.includes(tokenizer.unkId);
  if (ids.length === words.length + 1 && known) return;
  throw new NlaError({
    code: "quickstart.target",
    subject: pair,
    found: `an NLA of ${name}, which does not have the words of Smallworld`,
    wanted: "an NLA of a target that was trained on Smallworld",
    next: `Read text of your own with it: nla explain "..." --nla ${shellWord(pair)}`,
  });
}

async function quickstart(flags: QuickstartFlags, context: CommandContext): Promise<void> {
  if (flags.train && flags.nla !== undefined) {
    throw new UsageError({
      code: "quickstart.both",
      subject: "--train and --nla",
      found: "both",
      wanted: "one of them",
      next: "--train reads with the NLA that it trains; --run says where that goes.",
    });
  }
  const subject = subjectOf(flags);
  const pair = flags.train ? await trainHere(flags, context) : (flags.nla ?? bundle());
  await checkBundle(pair);
  const own = path.join(pair, "target");
  using device = await deviceFor([existsSync(own) ? own : targetDirectory(TARGET)], {
    threads: flags.threads,
  });
  using nla = await loadNla(pair, device);
  using target = await loadTarget(
    existsSync(own) ? own : await bringTarget(undefined, nla.target, context),
    device,
  );
  requireWorld(target, pair);
  const page = context.json ? null : new QuickstartPage(context);
  page?.paragraph(headingOf(subject, pair), 1);
  page?.line();
  for (const { word, nearest } of subject.document ? [] : unknownWords(subject.text)) {
    const offer = nearest.length === 0 ? "nothing is near it" : `near it: ${nearest.join(", ")}`;
    page?.paragraph(`The model does not have the word "${word}" and reads it as unknown; ${offer}.`);
  }
  const reading = await read(target, nla, subject.text, {
    temperature: 0,
    maxNewTokens: MAX_NEW_TOKENS,
    batch: BATCH,
    signal: context.signal,
    onReading: (each) => {
      if (each.position > 0) page?.token({ ...each, token: subject.words[each.position - 1] ?? each.token }); // 0 is BOS
    },
  });
  page?.endTokens();
  if (page) showReadings(page, subject, reading);
  else
    context.stdout.write(`${JSON.stringify({ ...readingJson(reading), document: documentJson(subject) })}\n`);
}

function documentJson({ document }: Subject) {
  return document && { seed: document.seed, index: document.index, kind: document.kind };
}

function headingOf({ document }: Subject, pair: string): string {
  const who = pair === BUNDLE ? "the bundled NLA" : `the NLA in ${pair}`;
  if (!document) return `Your sentence, read token by token by ${who}.`;
  return `A new ${document.kind} of Smallworld (document ${document.index}), read token by token by ${who}. The NLA sees one activation at a time and no text.`;
}

function showReadings(page: QuickstartPage, { document, words }: Subject, { tokens }: Reading): void {
  // Positions of the document count no BOS.
  const readings = tokens
    .filter(({ position }) => position > 0)
    .map(({ position, description }) => ({ position: position - 1, text: description }));
  const cosines = tokens.flatMap(({ cosineSimilarity: cosine }) =>
    cosine === null || Number.isNaN(cosine) ? [] : [cosine],
  );
  page.line();
  if (cosines.length > 0) page.legend(cosines.reduce((a, b) => a + b, 0) / cosines.length);
  const places = new Set(SHOWN.map((part) => Math.floor(part * (words.length - 1))));
  for (const place of places) {
    page.line();
    page.explanation(document, words, place, readings[place]?.text ?? null);
  }
  page.line();
  if (document) {
    const { true: right, false: wrong, undecided, unparsed } = tally(document, readings);
    const claims = right + wrong + undecided + unparsed;
    page.paragraph(
      `Of ${claims} claims about this document ${right} are true, ${wrong} false, ${undecided} not decided by the text so far, ${unparsed} no claim. A program that knows the document says so, no judge.`,
    );
    page.line();
    showUnspoken(page, document, unspokenIn(document, readings));
    page.line();
  }
  page.paragraph("What to type next:", 1);
  for (const line of NEXT) page.line(line);
}

const NEXT = [
  '  nla quickstart --text "paid order six . user : hello , i am mira . i feel gloomy ."',
  "  nla quickstart --kind story",
  "  nla quickstart --train        train an NLA of this model here, in minutes",
  "  nla world truth --index 4     a document with all that is true of it",
] as const;

function showUnspoken(
  page: QuickstartPage,
  document: WorldDocument,
  unspoken: ReturnType<typeof unspokenIn>,
): void {
  if (!unspoken) {
    page.paragraph(
      "Nothing was read here that the text nearby does not say. Another document may show it: the assistant of a chat or log knows whether it is tested.",
    );
    return;
  }
  const { claim, position } = unspoken;
  const from = position - (claim.distance ?? 0);
  const cue = document.words.slice(Math.max(0, from - 2), from + 1).join(" ");
  page.paragraph("Known and not said:", 1);
  page.paragraph(
    `At token ${position} ("${document.words[position]}") the model knows: ${claim.sentence} That is true, and the words that told it ("${cue}") were ${claim.distance} tokens ago; none of the last ${UNSPOKEN_DISTANCE} tokens says so.`,
  );
}

/** The `quickstart` command. */
export const quickstartCommand: CommandEntry = {
  name: "quickstart",
  summary: "a working NLA in ten seconds: reads a new document and marks what it says true or false",
  options: [
    { flags: "--text <text>", description: "read your own sentence, in words of Smallworld" },
    { flags: "--kind <kind>", description: "kind of the new document", default: "chat" },
    { flags: "--train", description: "train an NLA on the bundled model first, with live curves" },
    {
      flags: "--nla <dir>",
      hub: "folder",
      description: "read with this NLA of Smallworld, a run folder, instead of the bundled one",
    },
    { flags: "--run <dir>", description: `where that training goes; by default ${RUN}` },
    {
      flags: "--seed <n>",
      description: "which document; by default another one each second",
      parse: wholeNumber("--seed"),
    },
    { flags: "--threads <n>", description: "CPU threads", parse: wholeNumber("--threads", 1) },
  ],
  examples: [
    { command: "nla quickstart", does: "read a new document" },
    {
      command: 'nla quickstart --text "graded run seven . user : hello , i am mira ."',
      does: "read your own sentence",
    },
    { command: "nla quickstart --train", does: "train an NLA before your eyes, then read with it" },
  ],
  jsonHelp: "the reading as `nla explain --json` prints it, and `document: {seed, index, kind}`",
  action: async (_, options, context) => {
    await quickstart(options as unknown as QuickstartFlags, context);
  },
};
