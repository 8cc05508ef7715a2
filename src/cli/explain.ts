// `nla explain`: reads a text token by token and prints, as readings come, what the NLA says at each and how faithful it is.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { messageOf, NlaError } from "../error.js";
import { loadReconstructor } from "../nla/pair-files.js";
import { loadNla, PAIR_FOLDERS, read } from "../nla/read.js";
import type { Reading, ReadingPair } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import { RemoteServers } from "../serve/remote-servers.js";
import { RemoteVerbalizer } from "../serve/remote-verbalizer.js";
import type { RemoteProtocol } from "../serve/remote-verbalizer.js";
import type { Device } from "../tensor/index.js";
import { deviceFor, verbalizerFolders } from "./device-for.js";
import type { Holding } from "../model/index.js";
import { UsageError } from "./output.js";
import { parsePositions, positionsIn } from "./positions.js";
import type { PositionChoice } from "./positions.js";
import { wholeNumber } from "./program.js";
import type { CommandContext, CommandEntry } from "./program.js";
import { contractOptions } from "./contract-options.js";
import { quantizeNlaOption, quantizeOption } from "./quantize.js";
import { ReadingPage } from "./reading-page.js";
import { bringTarget } from "./target-of.js";

// Small passes, so that the first readings come soon; their size changes no reading.
const BATCH = 16;

/** A reading as `nla explain --json` gives it. */
export function readingJson({ model, layer, tokens }: Reading) {
  return {
    model,
    layer,
    tokens: tokens.map(({ position, token, tokenId, l2Norm, description, mse, cosineSimilarity }) => ({
      position,
      token,
      token_id: tokenId,
      l2_norm: l2Norm,
      description,
      mse,
      cosine_similarity:
        cosineSimilarity !== null && Number.isNaN(cosineSimilarity) ? null : cosineSimilarity,
    })),
  };
}

/** The text to read: the argument, or a file's. @throws UsageError `cli.text`; NlaError `explain.file` */
export async function textOf(argument: string | undefined, file: string | undefined): Promise<string> {
  if ((argument === undefined) === (file === undefined)) {
    throw new UsageError({
      code: "cli.text",
      subject: "nla explain",
      found: argument === undefined ? "no text" : "a text and --file",
      wanted: "a text to read, or --file with one in it",
      next: 'For example: nla explain "Once upon a time" --nla runs/quickstart',
    });
  }
  if (file === undefined) return argument as string;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(file));
  } catch (cause) {
    throw new NlaError({
      code: "explain.file",
      subject: file,
      found: messageOf(cause),
      wanted: "a readable file of UTF-8 text",
      next: "Check the path and the encoding.",
      cause,
    });
  }
}

function parseTemperature(text: string): number {
  const value = Number(text);
  if (/^\d*\.?\d+$/.test(text) && Number.isFinite(value)) return value;
  throw new UsageError({
    code: "cli.option",
    subject: "--temperature",
    found: JSON.stringify(text),
    wanted: "a number of 0 or more",
    next: "0 always takes the likeliest token; 1 samples as training does.",
  });
}

/** What to read a text with, and how. */
export interface ExplainSettings {
  /** A run folder, or a verbalizer's folder or GGUF file with `ar`. */
  readonly nla: string;
  readonly ar?: string;
  /** Sidecars in the place of those that lie with the two. */
  readonly contract?: string;
  readonly arContract?: string;
  /** Defaults to the model that the NLA's sidecar names. */
  readonly model?: string;
  /** Defaults to every token. */
  readonly positions?: PositionChoice;
  readonly temperature?: number;
  readonly maxNewTokens?: number;
  readonly seed?: number;
  readonly threads?: number;
  readonly quantize?: Holding;
  /** How the pair's matrices are held. */
  readonly quantizeNla?: Holding;
  /** Servers that run the verbalizer. Defaults to none: it runs here. */
  readonly server?: readonly string[];
  /** What they speak. Defaults to "sglang". */
  readonly serverKind?: RemoteProtocol;
}

/** The pair, or its reconstructor and a client of the servers that run its verbalizer. */
async function pairOf(
  { nla: pair, ar, contract, arContract, quantizeNla, server = [], serverKind = "sglang" }: ExplainSettings,
  device: Device,
  { stderr, env }: Pick<CommandContext, "stderr" | "env">,
): Promise<ReadingPair & Disposable> {
  if (server.length === 0) {
    const places = { reconstructor: ar, contract, reconstructorContract: arContract };
    return loadNla(pair, device, { ...places, holding: quantizeNla });
  }
  const apiKey = env["NLA_API_KEY"];
  const servers = new RemoteServers(server, {
    ...(apiKey ? { apiKey } : {}),
    onRetired: (url, reason) => stderr.write(`note: ${url} is not asked any more: ${reason}\n`),
  });
  const whole = ar === undefined;
  const place = whole ? path.join(pair, PAIR_FOLDERS.reconstructor) : ar;
  const loaded = await loadReconstructor(place, device, { holding: quantizeNla, contract: arContract });
  const reconstructor = loaded.model;
  try {
    const { layer } = reconstructor.contract;
    const folder = whole ? path.join(pair, PAIR_FOLDERS.verbalizer) : pair;
    const remote = { layer, protocol: serverKind, contract };
    const verbalizer = await RemoteVerbalizer.load(folder, servers, remote);
    const target = loaded.sidecar.baseCheckpoint;
    return {
      verbalizer,
      reconstructor,
      layer,
      target,
      [Symbol.dispose]: () => reconstructor[Symbol.dispose](),
    };
  } catch (thrown) {
    reconstructor[Symbol.dispose]();
    throw thrown;
  }
}

/** Reads a text and prints it as it goes, or as JSON at the end. */
export async function explainText(
  text: string,
  settings: ExplainSettings,
  context: Pick<CommandContext, "stdout" | "stderr" | "env" | "json" | "signal">,
): Promise<void> {
  const { nla: pair, model, positions, threads, quantize } = settings;
  const { temperature = 0, maxNewTokens = 200, seed = 0 } = settings;
  const { stdout, json, signal } = context;
  using device = await deviceFor(verbalizerFolders(pair), { threads });
  using nla = await pairOf(settings, device, context);
  using target = await loadTarget(await bringTarget(model, nla.target, context), device, quantize);
  const { length } = target.tokenizer.encode(text, { addSpecialTokens: true });
  const page = json ? null : new ReadingPage(context);
  const reading = await read(target, nla, text, {
    temperature,
    maxNewTokens,
    seed,
    batch: BATCH,
    signal,
    ...(positions ? { positions: positionsIn(positions, length) } : {}),
    onReading: (each) => page?.line(each, { model: target.name, layer: nla.layer, pair }),
  });
  if (json) stdout.write(`${JSON.stringify(readingJson(reading))}\n`);
  page?.end();
}

/** The `explain` command. */
export const explainCommand: CommandEntry = {
  name: "explain",
  summary: "read a text token by token: what the model's activations say",
  arguments: [{ name: "[text]", description: "the text to read" }],
  options: [
    {
      flags: "--nla <dir>",
      hub: "folder",
      description: "a run folder, or a verbalizer's folder or .gguf file with --ar",
      required: true,
    },
    {
      flags: "--ar <dir>",
      hub: "folder",
      description: "the reconstructor's folder or .gguf file, for a pair that lies apart",
    },
    ...contractOptions,
    { flags: "--file <file>", description: "read the text from a file" },
    {
      flags: "--model <dir>",
      hub: "name",
      description: "the model to read; by default the one that the NLA's sidecar names",
    },
    {
      flags: "--positions <list>",
      description: "tokens to read: 3,5,-1 or 2:10; by default all",
      parse: parsePositions,
    },
    {
      flags: "--temperature <t>",
      description: "0 takes the likeliest words",
      default: 0,
      parse: parseTemperature,
    },
    {
      flags: "--max-new-tokens <n>",
      description: "cap on an explanation",
      default: 200,
      parse: wholeNumber("--max-new-tokens", 1),
    },
    { flags: "--seed <n>", description: "of sampling", default: 0, parse: wholeNumber("--seed") },
    {
      flags: "--server <url...>",
      description: "servers that run the verbalizer ($NLA_API_KEY is sent)",
    },
    {
      flags: "--server-kind <name>",
      description: "SGLang's /generate with input_embeds, or vLLM's /v1/completions with prompt_embeds",
      choices: ["sglang", "vllm"],
      default: "sglang",
    },
    {
      flags: "--threads <n>",
      description: "CPU threads; by default all cores",
      parse: wholeNumber("--threads", 1),
    },
    quantizeOption,
    quantizeNlaOption,
  ],
  examples: [
    { command: 'nla explain "Once upon a time" --nla runs/quickstart', does: "every token" },
    { command: 'nla explain "Once upon a time" --nla runs/quickstart --positions -1', does: "the last one" },
    { command: "nla explain --file a.txt --nla av --ar ar --model target", does: "a released pair" },
    {
      command: "nla explain --file a.txt --nla av.gguf --ar ar --model target.gguf",
      does: "quantized files; the sidecar is av.gguf.nla_meta.yaml",
    },
  ],
  jsonHelp: "{model, layer, tokens: [...]} as docs/json.md says",
  action: async ([argument], options, context) => {
    const { file, ...settings } = options as unknown as ExplainSettings & { readonly file?: string };
    await explainText(await textOf(argument as string | undefined, file), settings, context);
  },
};
