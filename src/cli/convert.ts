// `nla convert MODEL --gguf FILE`: a model, verbalizer or reconstructor as one GGUF file, or such a file as a folder. Thin: the work is
// nla/gguf-checkpoint.ts.
import { convertCheckpoint, unpackCheckpoint } from "../nla/gguf-checkpoint.js";
import type { Converted } from "../nla/gguf-checkpoint.js";
import { targetDirectory } from "../nla/target.js";
import { HOLDINGS } from "../model/index.js";
import type { Holding } from "../model/index.js";
import { localFolder } from "./hub-names.js";
import { UsageError } from "./output.js";
import type { CommandEntry } from "./program.js";
import { parseHolding } from "./quantize.js";

const WORDS = { target: "a model", av: "a verbalizer", ar: "a reconstructor" } as const;

const DTYPES = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

interface Flags {
  readonly gguf?: string;
  readonly folder?: string;
  readonly quantize?: Holding;
  readonly tokenizer: boolean;
}

async function convert(from: string, flags: Flags, signal: AbortSignal): Promise<Converted> {
  const { gguf, folder, quantize, tokenizer } = flags;
  if ((gguf === undefined) === (folder === undefined)) {
    throw new UsageError({
      code: "cli.option",
      subject: "nla convert",
      found: gguf === undefined ? "neither --gguf nor --folder" : "--gguf and --folder",
      wanted: "one of them: what to write",
      next: "For example: nla convert models/qwen --gguf qwen.gguf",
    });
  }
  if (gguf !== undefined)
    return await convertCheckpoint(from, gguf, { holding: quantize, tokenizer, signal });
  const dtype = Object.entries(DTYPES).find(([name]) => name === (quantize ?? "f32"))?.[1];
  if (dtype !== undefined && tokenizer) return await unpackCheckpoint(from, folder as string, { dtype });
  throw new UsageError({
    code: "cli.option",
    subject: tokenizer ? "--quantize" : "--no-tokenizer",
    found: tokenizer ? `${quantize} for a folder` : "a folder without a tokenizer",
    wanted: `${Object.keys(DTYPES).join(", ")}, with the tokenizer`,
    next: "Blocks, and files without a tokenizer, are for GGUF.",
  });
}

/** The `convert` command. */
export const convertCommand: CommandEntry = {
  name: "convert",
  summary: "write a model as a GGUF file, quantized if asked for, or as a folder",
  arguments: [
    { name: "<model>", description: "a model's, verbalizer's or reconstructor's folder, or .gguf file" },
  ],
  options: [
    { flags: "--gguf <file>", description: "the file to write" },
    { flags: "--folder <dir>", description: "instead: a folder in Hugging Face layout, matrices unpacked" },
    {
      flags: "--quantize <type>",
      description: `type of the matrices: ${HOLDINGS.join(", ")}; by default as they are stored, in a folder f32`,
      parse: parseHolding,
    },
    {
      flags: "--no-tokenizer",
      description: "leave the tokenizer out, where GGUF has no place for its kind",
    },
  ],
  examples: [
    { command: "nla convert models/qwen --gguf qwen.gguf", does: "the same values, loadable by llama.cpp" },
    {
      command: "nla convert qwen.gguf --folder models/qwen",
      does: "and back: what trains, and what Python reads",
    },
    {
      command: "nla convert runs/quickstart/verbalizer --gguf av.gguf --quantize q8_0",
      does: "about a quarter of the size; the sidecar goes to av.gguf.nla_meta.yaml",
    },
  ],
  jsonHelp: "{file, bytes, role, sidecar, notes}",
  action: async ([model], options, context) => {
    const { stdout, stderr, json, signal } = context;
    const from = targetDirectory(await localFolder(model as string, context));
    const { notes, ...written } = await convert(from, options as unknown as Flags, signal);
    if (json) stdout.write(`${JSON.stringify({ ...written, notes })}\n`);
    else {
      for (const note of notes) stderr.write(`note: ${note}\n`);
      const megabytes = (written.bytes / 1e6).toFixed(1);
      stdout.write(`${WORDS[written.role]}, written to ${written.file}, ${megabytes} MB\n`);
      if (written.sidecar !== null) stdout.write(`its sidecar, written to ${written.sidecar}\n`);
    }
  },
};
