// `nla data ...`: the stages from a corpus to training sets, one command each, and a look at what they wrote. Thin: a stage is a
// function in pipeline/; `nla train` calls the same ones. Here are only options, progress and printing.
import { mkdir } from "node:fs/promises";
import { performance } from "node:perf_hooks";
import path from "node:path";
import { readDatasetSidecar, readModelSidecar, sidecarPathFor } from "../data/sidecar.js";
import type { TextCut } from "../data/corpus.js";
import { makeContract } from "../nla/contract.js";
import type { Contract } from "../nla/contract.js";
import { contractOf } from "../nla/sidecar-contract.js";
import { chooseMarker } from "../nla/start.js";
import { loadTarget, targetDirectory } from "../nla/target.js";
import { buildTrainingSet } from "../pipeline/build.js";
import { extractActivations } from "../pipeline/extract.js";
import { labelSet } from "../pipeline/label-set.js";
import { extractiveLabeller } from "../pipeline/labels.js";
import { SET_NAMES } from "../pipeline/sets.js";
import type { SetName } from "../pipeline/sets.js";
import { readShown } from "../pipeline/show.js";
import type { Shown } from "../pipeline/show.js";
import { shuffleRows } from "../pipeline/shuffle.js";
import { splitByDocument } from "../pipeline/split.js";
import { castCommand, controlCommand, joinCommand, mergeCommand, recoverCommand } from "./data-reuse.js";
import { recordedLabellerOf, runCommand } from "./data-run.js";
import { deviceFor } from "./device-for.js";
import { loadModelTokenizer } from "../nla/checkpoint-place.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { openProgress } from "../train/progress.js";
import type { StageProgress } from "../train/progress.js";
import type { Holding } from "../model/index.js";
import { UsageError } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandContext, CommandEntry, CommandOption } from "./program.js";
import { quantizeOption } from "./quantize.js";
import { table } from "./table.js";

const OUT: CommandOption = { flags: "--out <file>", description: "Parquet file to write", required: true };
const SEED: CommandOption = {
  flags: "--seed <n>",
  description: "same seed, same result",
  default: 42,
  parse: wholeNumber("--seed"),
};

function whole(
  name: string,
  placeholder: string,
  description: string,
  minimum: number,
  value?: number,
): CommandOption {
  return {
    flags: `--${name} <${placeholder}>`,
    description,
    parse: wholeNumber(`--${name}`, minimum),
    ...(value === undefined ? {} : { default: value }),
  };
}

function usage(subject: string, found: string, wanted: string, next: string): UsageError {
  return new UsageError({ code: "cli.option", subject, found, wanted, next });
}

function share(name: SetName, value: number, description: string): CommandOption {
  const flag = `--${name.replace("_", "-")}`;
  const parse = (text: string): number => {
    const number = Number(text);
    if (text.trim() !== "" && number >= 0 && number <= 1) return number;
    throw usage(flag, JSON.stringify(text), "a number from 0 to 1", "The four shares add up to 1.");
  };
  return { flags: `${flag} <share>`, description, default: value, parse };
}

function parseCut(text: string): TextCut {
  if (text === "file" || text === "paragraphs") return text;
  const everyCharacters = Number(text);
  if (/^\d+$/.test(text) && everyCharacters >= 1) return { everyCharacters };
  const wanted = "file, paragraphs, or a number of characters";
  throw usage("--cut", JSON.stringify(text), wanted, "It says how .txt files become documents.");
}

/** Makes the folder that a file will be written into. */
async function folderFor(file: string): Promise<void> {
  await mkdir(path.dirname(path.resolve(file)), { recursive: true });
}

/** Prints what a stage returned: JSON for programs, `name: value` lines for people. */
function print(facts: object, { stdout, json }: CommandContext): void {
  if (json) {
    stdout.write(`${JSON.stringify(facts)}\n`);
    return;
  }
  for (const [name, value] of Object.entries(facts)) {
    const words = name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    stdout.write(`${words}: ${typeof value === "object" ? JSON.stringify(value) : String(value)}\n`);
  }
}

function stageProgress(
  name: string,
  total: number | null,
  { stderr, env, json }: CommandContext,
): StageProgress {
  return openProgress({ stream: stderr, clock: () => performance.now(), json, env }).stage(name, { total });
}

interface ExtractFlags {
  readonly model: string;
  readonly layer: number;
  readonly corpus: string;
  readonly name?: string;
  readonly split: string;
  readonly field?: string;
  readonly cut: TextCut;
  readonly recursive?: boolean;
  readonly start: number;
  readonly length?: number;
  readonly perDocument: number;
  readonly minPosition: number;
  readonly maxLength: number;
  readonly seed: number;
  readonly textAfter: number;
  readonly batch: number;
  readonly compute: "f32" | "bf16";
  readonly device: string;
  readonly threads?: number;
  readonly quantize?: Holding;
  readonly out: string;
}

const extract: CommandEntry = {
  name: "extract",
  summary: "run a model over a corpus and write its activations at random positions",
  options: [
    {
      flags: "--model <dir>",
      hub: "name",
      description: "Hugging Face folder, or a bundled name",
      required: true,
    },
    {
      flags: "--layer <k>",
      description: "block whose output is taken, from 0",
      required: true,
      parse: wholeNumber("--layer"),
    },
    { flags: "--corpus <path>", description: ".txt, .jsonl, .parquet, or a folder of them", required: true },
    { flags: "--name <text>", description: "first part of document ids; by default the path's own name" },
    { flags: "--split <text>", description: "second part of document ids", default: "train" },
    { flags: "--field <name>", description: "field or column with the text or the chat messages" },
    {
      flags: "--cut <how>",
      description: ".txt files into documents: file, paragraphs, or every so many characters",
      default: "file",
      parse: parseCut,
    },
    { flags: "--recursive", description: "read folders inside the folder too" },
    whole("start", "n", "documents to leave out at the beginning", 0, 0),
    whole("length", "n", "documents to read after them; by default all", 1),
    whole("per-document", "n", "activations of a document", 1, 10),
    whole("min-position", "n", "first token that may be read, from 0", 0, 50),
    whole("max-length", "n", "tokens that a document is cut to", 2, 2048),
    SEED,
    whole("text-after", "n", "also write so many characters of what follows", 0, 0),
    whole("batch", "n", "documents of one pass", 1, 8),
    { flags: "--compute <type>", description: "precision", choices: ["f32", "bf16"], default: "f32" },
    { flags: "--device <name>", description: "device, as `nla doctor` names it", default: "cpu" },
    whole("threads", "n", "CPU threads; by default all cores", 1),
    quantizeOption,
    OUT,
  ],
  examples: [
    {
      command:
        "nla data extract --model aidreams260K --layer 2 --corpus texts.jsonl --min-position 10 --out base.parquet",
      does: "10 activations of each text",
    },
  ],
  action: async (_, options, context) => {
    const flags = options as unknown as ExtractFlags;
    const { perDocument, minPosition, maxLength, seed, length, name, field, threads } = flags;
    await folderFor(flags.out);
    using device = await deviceFor([targetDirectory(flags.model)], { threads, device: flags.device });
    using target = await loadTarget(flags.model, device, flags.quantize);
    const progress = stageProgress("extract", length ?? null, context);
    const facts = await extractActivations({
      target,
      layer: flags.layer,
      corpus: {
        path: flags.corpus,
        split: flags.split,
        cut: flags.cut,
        recursive: flags.recursive ?? false,
        start: flags.start,
        ...(name === undefined ? {} : { name }),
        ...(field === undefined ? {} : { field }),
        ...(length === undefined ? {} : { length }),
      },
      positions: { perDocument, minPosition, maxLength, seed },
      textAfter: flags.textAfter,
      batchDocuments: flags.batch,
      compute: flags.compute,
      out: flags.out,
      signal: context.signal,
      onProgress: ({ documents, rows }) => progress.report({ step: documents, numbers: { rows } }),
    });
    progress.end();
    print(facts, context);
  },
};

const split: CommandEntry = {
  name: "split",
  summary: "share the documents of a file of activations out over training and evaluation sets",
  arguments: [{ name: "<base>", description: "activations, as `nla data extract` writes them" }],
  options: [
    share("ar_sft", 0.24, "warm start of the reconstructor"),
    share("av_sft", 0.24, "warm start of the verbalizer"),
    share("rl", 0.47, "reinforcement learning"),
    share("eval", 0.05, "held out from all training"),
    SEED,
    { flags: "--out <dir>", description: "folder for the files {set}_raw.parquet", required: true },
  ],
  examples: [{ command: "nla data split base.parquet --out splits", does: "four files, no document in two" }],
  action: async ([base], { arSft, avSft, rl, eval: held, seed, out }, context) => {
    await mkdir(out as string, { recursive: true });
    const facts = await splitByDocument({
      base: base as string,
      fractions: { ar_sft: arSft, av_sft: avSft, rl, eval: held } as Record<SetName, number>,
      seed: seed as number,
      out: (set) => path.join(out as string, `${set}_raw.parquet`),
      signal: context.signal,
    });
    print(facts, context);
  },
};

const label: CommandEntry = {
  name: "label",
  summary: "add a text to every activation, for the warm start to learn from",
  arguments: [{ name: "<raw>", description: "activations with their text" }],
  options: [
    {
      flags: "--labeller <name>",
      description: "who writes them; extractive: words of the document around the position",
      choices: ["extractive"],
      default: "extractive",
    },
    whole("words-before", "n", "words from before the position", 0, 24),
    whole("words-after", "n", "words from after it, if the file has them (extract --text-after)", 0, 8),
    { flags: "--labels <calls>", description: "or recorded labels: JSON lines of prompt and completion" },
    {
      flags: "--templates <sidecar>",
      hub: "folder",
      description: "whose labelling prompt they answer: a .parquet or nla_meta.yaml",
    },
    OUT,
  ],
  examples: [
    {
      command: "nla data label splits/av_sft_raw.parquet --out splits/av_sft_explained.parquet",
      does: "offline, the same every time",
    },
    {
      command:
        "nla data label av_sft_raw.parquet --labels provider_calls.jsonl --templates av_sft.parquet --out av_sft_explained.parquet",
      does: "with recorded labels",
    },
  ],
  action: async ([raw], { wordsBefore, wordsAfter, labels, templates, out }, context) => {
    if ((labels === undefined) !== (templates === undefined)) {
      const found = labels === undefined ? "--templates alone" : "--labels alone";
      throw usage("nla data label", found, "both or neither", "The prompt says what the records answer.");
    }
    const labeller =
      labels === undefined
        ? extractiveLabeller({ wordsBefore: wordsBefore as number, wordsAfter: wordsAfter as number })
        : await recordedLabellerOf(labels as string, templates as string);
    await folderFor(out as string);
    const facts = await labelSet({
      raw: raw as string,
      labeller,
      out: out as string,
      signal: context.signal,
    });
    print(facts, context);
  },
};

interface BuildFlags {
  readonly set: SetName;
  readonly pair?: string;
  readonly model?: string;
  readonly verbalizerTemplate?: string;
  readonly reconstructorTemplate?: string;
  readonly format: "tags" | "plain";
  readonly text: boolean;
  readonly out: string;
}

const build: CommandEntry = {
  name: "build",
  summary: "put prompts and responses around activations and labels",
  arguments: [{ name: "<input>", description: "labelled activations; for rl and eval also others" }],
  options: [
    { flags: "--set <name>", description: "which set to build", choices: SET_NAMES, required: true },
    {
      flags: "--pair <dir>",
      hub: "folder",
      description: "folder of a verbalizer whose prompts and marker to use",
    },
    {
      flags: "--model <dir>",
      hub: "name",
      description: "or, for a new pair, the target's folder, with both templates",
    },
    { flags: "--verbalizer-template <text>", description: "prompt with {injection_char} in it" },
    { flags: "--reconstructor-template <text>", description: "prompt with {explanation} in it" },
    {
      flags: "--format <name>",
      description: "how a response marks off the explanation",
      choices: ["tags", "plain"],
      default: "tags",
    },
    { flags: "--no-text", description: "leave out the text up to each position" },
    OUT,
  ],
  examples: [
    {
      command: "nla data build av_sft_explained.parquet --set av_sft --pair verbalizer --out av_sft.parquet",
      does: "as the pair was trained",
    },
  ],
  action: async ([input], options, context) => {
    const flags = options as unknown as BuildFlags;
    const { contract, tokenizer } = await contractFor(input as string, flags);
    await folderFor(flags.out);
    const facts = await buildTrainingSet({
      input: input as string,
      set: flags.set,
      contract,
      tokenizer,
      out: flags.out,
      keepText: flags.text,
      signal: context.signal,
    });
    print(facts, context);
  },
};

/** The contract that the flags name: an existing pair's, or a new one for the input's layer and width. */
async function contractFor(
  input: string,
  { pair, model, verbalizerTemplate, reconstructorTemplate, format }: BuildFlags,
): Promise<{ contract: Contract; tokenizer: Tokenizer }> {
  if (pair !== undefined) {
    const tokenizer = await loadModelTokenizer(pair);
    const sidecar = await readModelSidecar(pair);
    return { contract: contractOf(sidecar, await sidecarPathFor(pair), tokenizer, null), tokenizer };
  }
  if (model === undefined || verbalizerTemplate === undefined || reconstructorTemplate === undefined) {
    const wanted = "--pair, or --model with --verbalizer-template and --reconstructor-template";
    throw usage("nla data build", "no prompts", wanted, "Name a trained verbalizer, or give both templates.");
  }
  const { extraction } = await readDatasetSidecar(input);
  const { char, tokenizer } = chooseMarker(await loadModelTokenizer(targetDirectory(model)));
  const contract = makeContract(
    {
      layer: extraction.layerIndex,
      dim: extraction.dModel,
      char,
      verbalizerTemplate,
      reconstructorTemplate,
      injectionScale: null, // training chooses it; the file does not hold it
      format,
    },
    tokenizer,
  );
  return { contract, tokenizer };
}

const shuffle: CommandEntry = {
  name: "shuffle",
  summary: "put the rows of a training set in random order",
  arguments: [{ name: "<file>", description: "training set" }],
  options: [SEED, OUT],
  examples: [{ command: "nla data shuffle rl.parquet --out rl_shuf.parquet", does: "the reference's order" }],
  action: async ([file], { seed, out }, context) => {
    await folderFor(out as string);
    print(await shuffleRows({ file: file as string, seed: seed as number, out: out as string }), context);
  },
};

const SHOWN_TAIL = 60;

/** Rows as a table; of each text its end, which is where the position is. */
export function renderShown({ file, datasetId, rowCount, width, rows }: Shown): string {
  const columns = [
    { header: "row", align: "right" as const },
    { header: "document", maxWidth: 32 },
    { header: "position", align: "right" as const },
    { header: "norm", align: "right" as const },
    { header: "text up to the position" },
    { header: "label", maxWidth: 40 },
  ];
  const cells = rows.map(({ row, docId, position, norm, text, label: given }) => [
    String(row),
    docId,
    String(position),
    String(Number(norm.toPrecision(4))),
    tail(text ?? ""),
    given ?? "",
  ]);
  return `${file}: ${rowCount} rows of width ${width} (${datasetId})\n\n${table(columns, cells)}\n`;
}

function tail(text: string): string {
  const characters = Array.from(text.slice(-2 * SHOWN_TAIL));
  if (characters.length <= SHOWN_TAIL && text.length <= 2 * SHOWN_TAIL) return text;
  return `…${characters.slice(1 - SHOWN_TAIL).join("")}`;
}

const show: CommandEntry = {
  name: "show",
  summary: "print rows of any data file",
  arguments: [{ name: "<file>", description: "Parquet file with its sidecar" }],
  options: [whole("start", "n", "first row", 0, 0), whole("rows", "n", "how many", 1, 10)],
  examples: [{ command: "nla data show base.parquet --rows 20", does: "texts, positions and norms" }],
  action: async ([file], { start, rows }, { stdout, json }) => {
    const shown = await readShown(file as string, { start: start as number, rows: rows as number });
    stdout.write(json ? `${JSON.stringify(shown)}\n` : renderShown(shown));
  },
};

/** The `data` commands. */
export const dataCommand: CommandEntry = {
  name: "data",
  summary: "make training sets stage by stage, and look at them",
  examples: [
    { command: "nla data extract --help", does: "the first stage" },
    { command: "nla data show FILE", does: "what a stage wrote" },
  ],
  commands: [
    runCommand,
    extract,
    split,
    label,
    build,
    shuffle,
    show,
    joinCommand,
    recoverCommand,
    mergeCommand,
    castCommand,
    controlCommand,
  ],
};
