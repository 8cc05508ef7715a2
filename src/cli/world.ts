// `nla world ...`: the world with known truth on a terminal: documents, words, entropy, and one document with the truth at every token.
// Thin: documents, facts and costs are world/'s; the page is world-page.ts.
import { setImmediate } from "node:timers/promises";
import path from "node:path";
import { mkdir } from "node:fs/promises";
import { writeFileAtomic } from "../data/files.js";
import { worldDocument, worldDocuments } from "../world/documents.js";
import { worldEntropy } from "../world/entropy.js";
import type { EntropyRow } from "../world/entropy.js";
import type { WorldDocument } from "../world/facts.js";
import { KINDS } from "../world/kinds/index.js";
import { writeWorldTokenizer } from "../world/tokenizer-folder.js";
import { SPECIAL_TOKENS, worldVocabulary } from "../world/vocabulary.js";
import { UsageError } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandContext, CommandEntry, CommandOption } from "./program.js";
import { table, wrap } from "./table.js";
import { worldPage } from "./world-page.js";
import { worldApartCommand } from "./world-apart.js";
import { worldBundleCommand } from "./world-bundle.js";
import { worldUnspokenCommand } from "./world-unspoken.js";
import { worldTrainCommand } from "./world-train.js";

const WIDTH = 100;
const MAX_WIDTH = 110;
// Below this the table of the truth goes without the column of what comes next.
const NARROW = 70;
// Enough documents that the mean entropy per token stands in its third digit; well under a second.
const ENTROPY_DOCUMENTS = 10_000;

const SEED: CommandOption = {
  flags: "--seed <n>",
  description: "which world",
  default: 1,
  parse: wholeNumber("--seed"),
};
const INDEX: CommandOption = {
  flags: "--index <n>",
  description: "which document of it",
  default: 0,
  parse: wholeNumber("--index"),
};
const KIND: CommandOption = {
  flags: "--kind <kind>",
  description: "only documents of this kind",
  choices: KINDS.map(({ name }) => name),
};

interface SampleFlags {
  readonly seed: number;
  readonly index: number;
  readonly count: number;
  readonly kind?: string;
}

/** A document as `--json` gives it. */
function documentJson({ seed, index, kind, nats, words, facts }: WorldDocument): object {
  return { seed, index, kind, nats: Number(nats.toFixed(9)), text: words.join(" "), facts };
}

async function sample(flags: SampleFlags, { stdout, json, signal }: CommandContext): Promise<void> {
  const { seed, index: start, count, kind } = flags;
  const width = Math.min(stdout.columns ?? WIDTH, MAX_WIDTH);
  for await (const document of worldDocuments({
    seed,
    start,
    count,
    ...(kind === undefined ? {} : { kind }),
  })) {
    // A pause now and then lets Ctrl-C in and a slow reader of the pipe catch up.
    if (document.index % 256 === 0) await setImmediate(undefined, { signal });
    if (json) {
      stdout.write(`${JSON.stringify(documentJson(document))}\n`);
      continue;
    }
    const { words, nats } = document;
    const heading = `${document.kind} ${document.index}, ${words.length} tokens, ${nats.toFixed(1)} nats`;
    stdout.write(`${heading}\n${wrap(words.join(" "), width).join("\n")}\n\n`);
  }
}

const sampleCommand: CommandEntry = {
  name: "sample",
  summary: "print documents of the world",
  options: [
    SEED,
    { ...INDEX, description: "the first document" },
    KIND,
    { flags: "--count <n>", description: "how many", default: 3, parse: wholeNumber("--count", 1) },
  ],
  examples: [
    { command: "nla world sample --kind rhyme", does: "three rhymes" },
    { command: "nla world sample --count 1000 --json > world.jsonl", does: "documents with their facts" },
  ],
  jsonHelp: "a line per document: {seed, index, kind, nats, text, facts: [{category, value, from, end}]}",
  action: async (_, options, context) => sample(options as unknown as SampleFlags, context),
};

const vocabularyCommand: CommandEntry = {
  name: "vocabulary",
  summary: "print the closed vocabulary, or write its tokenizer",
  options: [{ flags: "--out <dir>", description: "write a tokenizer folder there" }],
  examples: [
    { command: "nla world vocabulary", does: "every word" },
    { command: "nla world vocabulary --out tokenizer", does: "tokenizer.json and tokenizer_config.json" },
  ],
  jsonHelp: "{size, tokens: by id}, and {out} where a folder was written",
  action: async (_, options, { stdout, json }) => {
    const out = options["out"] as string | undefined;
    const tokens = worldVocabulary();
    if (out !== undefined) await writeWorldTokenizer(out);
    if (json) {
      stdout.write(
        `${JSON.stringify({ size: tokens.length, tokens, ...(out === undefined ? {} : { out }) })}\n`,
      );
      return;
    }
    const width = Math.min(stdout.columns ?? WIDTH, MAX_WIDTH);
    const size = `${tokens.length} tokens, ${SPECIAL_TOKENS.length} of them special`;
    if (out === undefined) stdout.write(`${wrap(tokens.join(" "), width).join("\n")}\n\n${size}\n`);
    else stdout.write(`${size}, written to ${out}\n`);
  },
};

const entropyCommand: CommandEntry = {
  name: "entropy",
  summary: "print the exact entropy per token, the least loss that a model can have",
  options: [
    SEED,
    {
      flags: "--count <n>",
      description: "documents",
      default: ENTROPY_DOCUMENTS,
      parse: wholeNumber("--count", 1),
    },
  ],
  examples: [{ command: "nla world entropy", does: "nats per token of every kind" }],
  jsonHelp:
    "{seed, kinds: [{kind, documents, tokens, longest, nats_per_token, nats_per_token_with_end}], all}",
  action: async (_, options, { stdout, json }) => {
    const { seed, count } = options as unknown as { seed: number; count: number };
    const { kinds, all } = worldEntropy({ seed, count });
    if (json) {
      stdout.write(`${JSON.stringify({ seed, kinds: kinds.map(entropyJson), all: entropyJson(all) })}\n`);
      return;
    }
    const rows = [...kinds, all].map((row) => [
      row.kind,
      row.documents.toLocaleString("en-US"),
      (row.tokens / row.documents).toFixed(1),
      String(row.longest),
      row.natsPerToken.toFixed(4),
      row.natsPerTokenWithEnd.toFixed(4),
    ]);
    const columns = [
      { header: "kind" },
      ...["documents", "tokens each", "longest", "nats/token", "with EOS"].map((header) => ({
        header,
        align: "right" as const,
      })),
    ];
    stdout.write(`${table(columns, rows)}\n`);
  },
};

function entropyJson({ natsPerToken, natsPerTokenWithEnd, ...row }: EntropyRow): object {
  return {
    ...row,
    nats_per_token: Number(natsPerToken.toFixed(9)),
    nats_per_token_with_end: Number(natsPerTokenWithEnd.toFixed(9)),
  };
}

interface TruthFlags {
  readonly seed: number;
  readonly index: number;
  readonly kind?: string;
  readonly html?: string;
}

const truthCommand: CommandEntry = {
  name: "truth",
  summary: "print one document with the truth at every token",
  options: [
    SEED,
    INDEX,
    KIND,
    { flags: "--html <file>", description: "write it as a page that stands alone" },
  ],
  examples: [
    { command: "nla world truth --seed 1 --index 4", does: "a line per token" },
    { command: "nla world truth --kind chat --html chat.html", does: "a page to point at" },
  ],
  jsonHelp: "{seed, index, kind, nats, text, facts: [{category, value, from, end}]}",
  action: async (_, options, { stdout, json }) => {
    const { seed, index, kind, html } = options as unknown as TruthFlags;
    if (html === "") {
      throw new UsageError({
        code: "cli.option",
        subject: "--html",
        found: "an empty name",
        wanted: "a file to write",
        next: "Give a name such as truth.html.",
      });
    }
    const document = worldDocument(seed, index, kind === undefined ? {} : { kind });
    if (html !== undefined) {
      await mkdir(path.dirname(path.resolve(html)), { recursive: true });
      await writeFileAtomic(html, worldPage(document));
    }
    if (json) stdout.write(`${JSON.stringify(documentJson(document))}\n`);
    else if (html === undefined) stdout.write(renderTruth(document, stdout.columns ?? WIDTH));
    else stdout.write(`${document.kind} ${index} of world ${seed}, written to ${html}\n`);
  },
};

/** A line per token: the word, the part of the text, what comes next, and what becomes known or ends there. */
export function renderTruth({ kind, seed, index, words, facts, nats }: WorldDocument, width: number): string {
  const state = new Map<number, string[]>();
  const noted = (position: number, note: string) =>
    state.set(position, [...(state.get(position) ?? []), note]);
  for (const { category, value, from, end } of facts) {
    if (category === "now" || category === "next") continue;
    noted(from, `${category} ${value}`);
    if (end < words.length) noted(end, `(${category} said)`);
  }
  const at = (category: "now" | "next", position: number): string =>
    facts.find((each) => each.category === category && each.from === position)?.value ?? "";
  const room = Math.min(width, MAX_WIDTH);
  const narrow = room < NARROW;
  const rows = words.map((word, position) => [
    String(position),
    word,
    at("now", position),
    ...(narrow ? [] : [at("next", position)]),
    (state.get(position) ?? []).join(", "),
  ]);
  const columns = [
    { header: "#", align: "right" as const },
    { header: "token", maxWidth: narrow ? 10 : 14 },
    { header: "now", maxWidth: narrow ? 8 : 12 },
    ...(narrow ? [] : [{ header: "next", maxWidth: 15 }]),
    { header: "becomes known", maxWidth: Math.max(13, room - (narrow ? 27 : 52)) },
  ];
  const last = facts.filter(
    ({ end, category }) => end === words.length && category !== "now" && category !== "next",
  );
  const known = last.map(({ category, value }) => `${category} ${value}`).join(", ");
  const perToken = (nats / words.length).toFixed(3);
  const heading = wrap(
    `${kind} ${index} of world ${seed}: ${words.length} tokens, ${perToken} nats per token`,
    Math.max(20, room),
  ).join("\n");
  const ending = wrap(`Known at the end: ${known}.`, Math.max(20, room));
  return `${heading}\n\n${table(columns, rows)}\n\n${ending.join("\n")}\n`;
}

/** The `world` command. */
export const worldCommand: CommandEntry = {
  name: "world",
  summary: "a world with known truth: documents, words, entropy",
  examples: [{ command: "nla world truth --kind story", does: "one story and all that is true of it" }],
  commands: [
    sampleCommand,
    vocabularyCommand,
    entropyCommand,
    truthCommand,
    worldTrainCommand,
    worldBundleCommand,
    worldUnspokenCommand,
    worldApartCommand,
  ],
};
