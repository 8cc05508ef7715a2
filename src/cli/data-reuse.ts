// `nla data join|recover|merge|cast|control`: what people do with data files that exist already. Thin: the work is in
// pipeline/reuse-labels.ts and pipeline/rearrange-sets.ts.
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { castVectors, mergeShards, shuffleActivations } from "../pipeline/rearrange-sets.js";
import { joinLabels, recoverLabels } from "../pipeline/reuse-labels.js";
import { wholeNumber } from "./program.js";
import type { CommandContext, CommandEntry, CommandOption } from "./program.js";

const OUT: CommandOption = { flags: "--out <file>", description: "Parquet file to write", required: true };
const TEMPLATE: CommandOption = {
  flags: "--reconstructor-template <text>",
  description: "prompt that the earlier set was built with; by default its sidecar's",
};

function print(facts: object, { stdout, json }: CommandContext): void {
  if (json) stdout.write(`${JSON.stringify(facts)}\n`);
  else for (const [name, value] of Object.entries(facts)) stdout.write(`${name}: ${String(value)}\n`);
}

async function folderFor(file: string): Promise<string> {
  await mkdir(path.dirname(path.resolve(file)), { recursive: true });
  return file;
}

const template = (options: Readonly<Record<string, unknown>>) => {
  const given = options["reconstructorTemplate"];
  return given === undefined ? {} : { reconstructorTemplate: given as string };
};

/** `nla data join`. */
export const joinCommand: CommandEntry = {
  name: "join",
  summary: "put the labels of an earlier set on fresh activations of the same positions",
  arguments: [
    { name: "<raw>", description: "activations without labels" },
    { name: "<prior>", description: "labelled file, av_sft or ar_sft set, shuffled or not" },
  ],
  options: [TEMPLATE, OUT],
  examples: [
    {
      command:
        "nla data join layer20/av_sft_raw.parquet layer12/av_sft_shuf.parquet --out av_sft_explained.parquet",
      does: "another layer, the same labels",
    },
  ],
  action: async ([raw, prior], options, context) => {
    const out = await folderFor(options["out"] as string);
    const sides = { raw: raw as string, prior: prior as string, out };
    print(await joinLabels({ ...sides, ...template(options), signal: context.signal }), context);
  },
};

/** `nla data recover`. */
export const recoverCommand: CommandEntry = {
  name: "recover",
  summary: "take texts and labels out of a built set, as a cache for labelling",
  arguments: [{ name: "<built>", description: "av_sft or ar_sft set that kept its texts" }],
  options: [TEMPLATE, OUT],
  examples: [
    { command: "nla data recover av_sft_shuf.parquet --out cache.parquet", does: "for stage2.cache_from" },
  ],
  action: async ([built], options, context) => {
    const out = await folderFor(options["out"] as string);
    print(await recoverLabels({ built: built as string, out, ...template(options) }), context);
  },
};

/** `nla data merge`. */
export const mergeCommand: CommandEntry = {
  name: "merge",
  summary: "join shards of one extraction",
  arguments: [{ name: "<shards...>", description: "files of neighbouring parts of a corpus, in any order" }],
  options: [OUT],
  examples: [
    {
      command: "nla data merge shard0.parquet shard1.parquet --out base.parquet",
      does: "no gap, no overlap",
    },
  ],
  action: async (shards, options, context) => {
    const out = await folderFor(options["out"] as string);
    print(await mergeShards((shards as unknown[]).flat() as string[], out), context);
  },
};

/** `nla data cast`. */
export const castCommand: CommandEntry = {
  name: "cast",
  summary: "write vectors of an old file as fixed-size lists",
  arguments: [{ name: "<file>", description: "data file whose vectors are lists of variable length" }],
  options: [OUT],
  examples: [{ command: "nla data cast legacy.parquet --out new.parquet", does: "the same rows" }],
  action: async ([file], options, context) => {
    const out = await folderFor(options["out"] as string);
    print(await castVectors(file as string, out), context);
  },
};

/** `nla data control`. */
export const controlCommand: CommandEntry = {
  name: "control",
  summary: "write the random-activation control: texts in place, vectors of other rows",
  arguments: [{ name: "<file>", description: "training set" }],
  options: [
    {
      flags: "--seed <n>",
      description: "same seed, same order",
      default: 42,
      parse: wholeNumber("--seed"),
    },
    OUT,
  ],
  examples: [
    {
      command: "nla data control av_sft.parquet --out av_sft_control.parquet",
      does: "the reference's order",
    },
  ],
  action: async ([file], options, context) => {
    const out = await folderFor(options["out"] as string);
    print(await shuffleActivations(file as string, { seed: options["seed"] as number, out }), context);
  },
};
