// `nla forward`: token ids in, residual streams and logits out as a safetensors file; for comparing with other engines.
import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { resourceUsage } from "node:process";
import { messageOf } from "../error.js";
import { writeSafetensors } from "../data/safetensors.js";
import { loadDecoder, run } from "../model/index.js";
import type { Holding, RunResult } from "../model/index.js";
import { storedTensor } from "../model/checkpoint.js";
import { targetDirectory } from "../nla/target.js";
import { deviceFor } from "./device-for.js";
import { quantizeOption } from "./quantize.js";
import { UsageError } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandEntry } from "./program.js";

// A batch of more ids than this is a mistake in the file; the graph of one that large would not fit any machine.
const MAX_IDS = 10_000_000;

/** Reads `--ids`: JSON, or `@` and a file of JSON; a list of lists of ids, or one list. @throws UsageError `forward.ids` */
export async function readIds(text: string): Promise<number[][]> {
  const fail = (found: string, cause?: unknown) =>
    new UsageError({
      code: "forward.ids",
      subject: text.startsWith("@") ? text.slice(1) : "--ids",
      found,
      wanted: "JSON lists of token ids, one list per sequence, such as [[1, 15, 7], [1, 9]]",
      next: "Take the ids from the model's own tokenizer; @FILE reads them from a file.",
      cause,
    });
  let value: unknown;
  try {
    value = JSON.parse(text.startsWith("@") ? await readFile(text.slice(1), "utf8") : text);
  } catch (cause) {
    throw fail(messageOf(cause), cause);
  }
  if (!Array.isArray(value)) throw fail(value === null ? "null" : `a ${typeof value}`);
  const lists: unknown[] =
    value.length > 0 && value.every((each) => typeof each === "number") ? [value] : value;
  let count = 0;
  for (const [row, list] of lists.entries()) {
    if (!Array.isArray(list)) throw fail(`${JSON.stringify(list)} for sequence ${row}`);
    const bad = (list as unknown[]).findIndex((id) => !(Number.isSafeInteger(id) && (id as number) >= 0));
    if (bad >= 0) throw fail(`${JSON.stringify(list[bad])} at token ${bad} of sequence ${row}`);
    count += list.length;
  }
  if (count > MAX_IDS) throw fail(`${count} ids`);
  if (lists.length === 0) throw fail("no sequence");
  return lists as number[][];
}

/** What `--capture` names. */
export interface Capture {
  readonly all: boolean;
  readonly blocks: readonly number[];
}

/** Reads `--capture`: `all`, or block numbers. @throws UsageError `cli.option` */
export function parseCapture(text: string): Capture {
  if (text === "all") return { all: true, blocks: [] };
  const parts = text.split(",").map((part) => part.trim());
  if (parts.every((part) => /^\d{1,6}$/.test(part))) {
    return { all: false, blocks: [...new Set(parts.map(Number))].sort((a, b) => a - b) };
  }
  throw new UsageError({
    code: "cli.option",
    subject: "--capture",
    found: JSON.stringify(text),
    wanted: "all, or block numbers such as 0,1,2",
    next: "Blocks are counted from 0; all adds what enters block 0 and the stream after the last norm.",
  });
}

interface Named {
  readonly name: string;
  readonly values: Float32Array;
  readonly width: number;
}

/** The tensors of a pass by their names in the file: packed, the real tokens of sequence 0, then 1, and so on. */
function namedTensors(
  { embedded, blocks, normed, logits }: RunResult,
  dim: number,
  vocabulary: number,
): Named[] {
  const tensors: Named[] = [];
  if (logits) tensors.push({ name: "logits", values: logits, width: vocabulary });
  if (embedded) tensors.push({ name: "hidden.embed", values: embedded, width: dim });
  for (const [k, values] of blocks) tensors.push({ name: `hidden.block${k}`, values, width: dim });
  if (normed) tensors.push({ name: "hidden.norm", values: normed, width: dim });
  return tensors;
}

interface ForwardFlags {
  readonly model: string;
  readonly ids: string;
  readonly capture?: Capture;
  readonly logits?: boolean;
  readonly out: string;
  readonly threads?: number;
  readonly quantize?: Holding;
}

/** The `forward` command. */
export const forwardCommand: CommandEntry = {
  name: "forward",
  summary: "run a model over token ids and write its residual streams and logits",
  options: [
    {
      flags: "--model <dir>",
      hub: "name",
      description: "a model folder, or a bundled model",
      required: true,
    },
    { flags: "--ids <json>", description: "lists of token ids, or @FILE with them", required: true },
    { flags: "--out <file>", description: "the safetensors file to write, float32", required: true },
    { flags: "--capture <blocks>", description: "all, or block numbers such as 0,1,2", parse: parseCapture },
    quantizeOption,
    { flags: "--logits", description: "also the logits of every token" },
    {
      flags: "--threads <n>",
      description: "CPU threads; by default all cores",
      parse: wholeNumber("--threads", 1),
    },
  ],
  examples: [
    {
      command:
        "nla forward --model aidreams260K --ids '[[1, 403, 407], [1, 9]]' --capture all --logits --out f.safetensors",
      does: "everything",
    },
    {
      command: "nla forward --model DIR --ids @ids.json --capture 20 --out f.safetensors",
      does: "the output of block 20",
    },
  ],
  jsonHelp: "{model, lengths, tensors: [{name, shape}], out, loadSeconds, peakBytes}",
  action: async (_, options, { stdout, json, signal }) => {
    const {
      model: name,
      ids,
      capture,
      logits = false,
      out,
      threads,
      quantize,
    } = options as unknown as ForwardFlags;
    if (!capture && !logits) {
      throw new UsageError({
        code: "forward.nothing",
        subject: "nla forward",
        found: "neither --capture nor --logits",
        wanted: "something to write",
        next: "Add --capture all, or --logits.",
      });
    }
    const sequences = await readIds(ids);
    using device = await deviceFor([targetDirectory(name)], { threads });
    const started = performance.now();
    using model = await loadDecoder(targetDirectory(name), device, {}, quantize);
    const loadSeconds = (performance.now() - started) / 1000;
    const { dim, vocabulary, layers } = model.config;
    const all = capture?.all ?? false;
    const result = await run(model, sequences, {
      capture: all ? Array.from({ length: layers }, (_, k) => k) : (capture?.blocks ?? []),
      embedded: all,
      normed: all,
      logits: logits ? "all" : "none",
      signal,
    });
    const tokens = result.lengths.reduce((sum, length) => sum + length, 0);
    const tensors = namedTensors(result, dim, vocabulary).map(({ name, values, width }) =>
      storedTensor(name, [tokens, width], "F32", values),
    );
    await mkdir(path.dirname(path.resolve(out)), { recursive: true });
    await writeSafetensors(out, tensors);
    const shapes = tensors.map(({ name, shape }) => ({ name, shape }));
    const peak = resourceUsage().maxRSS * 1024;
    stdout.write(
      json
        ? `${JSON.stringify({ model: name, lengths: result.lengths, tensors: shapes, out, loadSeconds, peakBytes: peak })}\n`
        : `${shapes.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join("\n")}\nwritten to ${out}\nloaded in ${loadSeconds.toFixed(2)} s, peak memory ${(peak / 2 ** 20).toFixed(0)} MiB\n`,
    );
  },
};
