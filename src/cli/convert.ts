// `nla convert MODEL --gguf FILE`: a model, verbalizer or reconstructor as one GGUF file. Thin: the work is nla/gguf-checkpoint.ts.
import { convertCheckpoint } from "../nla/gguf-checkpoint.js";
import { targetDirectory } from "../nla/target.js";
import { HOLDINGS } from "../model/index.js";
import type { Holding } from "../model/index.js";
import { localFolder } from "./hub-names.js";
import type { CommandEntry } from "./program.js";
import { parseHolding } from "./quantize.js";

const WORDS = { target: "a model", av: "a verbalizer", ar: "a reconstructor" } as const;

/** The `convert` command. */
export const convertCommand: CommandEntry = {
  name: "convert",
  summary: "write a model as a GGUF file, quantized if asked for",
  arguments: [
    { name: "<model>", description: "a model's, verbalizer's or reconstructor's folder, or .gguf file" },
  ],
  options: [
    { flags: "--gguf <file>", description: "the file to write", required: true },
    {
      flags: "--quantize <type>",
      description: `type of the matrices: ${HOLDINGS.join(", ")}; by default as they are stored`,
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
      command: "nla convert runs/quickstart/verbalizer --gguf av.gguf --quantize q8_0",
      does: "about a quarter of the size; the sidecar goes to av.gguf.nla_meta.yaml",
    },
  ],
  jsonHelp: "{file, bytes, role, sidecar, notes}",
  action: async ([model], options, context) => {
    const { stdout, stderr, json, signal } = context;
    const from = targetDirectory(await localFolder(model as string, context));
    const flags = options as {
      readonly gguf: string;
      readonly quantize?: Holding;
      readonly tokenizer: boolean;
    };
    const { notes, ...written } = await convertCheckpoint(from, flags.gguf, {
      holding: flags.quantize,
      tokenizer: flags.tokenizer,
      signal,
    });
    if (json) stdout.write(`${JSON.stringify({ ...written, notes })}\n`);
    else {
      for (const note of notes) stderr.write(`note: ${note}\n`);
      const megabytes = (written.bytes / 1e6).toFixed(1);
      stdout.write(`${WORDS[written.role]}, written to ${written.file}, ${megabytes} MB\n`);
      if (written.sidecar !== null) stdout.write(`its sidecar, written to ${written.sidecar}\n`);
    }
  },
};
