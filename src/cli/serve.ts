// `nla serve`: a target, and its NLA if there is one, over HTTP until SIGTERM or Ctrl-C.
import { loadNla } from "../nla/read.js";
import type { Nla } from "../nla/read.js";
import { loadTarget, targetDirectory } from "../nla/target.js";
import { createApp } from "../serve/app.js";
import { listen } from "../serve/listen.js";
import { ServedModel } from "../serve/served-model.js";
import type { Holding } from "../model/index.js";
import { contractOptions } from "./contract-options.js";
import { deviceFor, verbalizerFolders } from "./device-for.js";
import { UsageError } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandEntry } from "./program.js";
import { quantizeNlaOption, quantizeOption } from "./quantize.js";
import { bringTarget } from "./target-of.js";

interface ServeFlags {
  readonly model?: string;
  readonly nla?: string;
  readonly ar?: string;
  readonly contract?: string;
  readonly arContract?: string;
  readonly host: string;
  readonly port: number;
  readonly apiKey?: string;
  readonly rows: number;
  readonly context: number;
  readonly queue: number;
  readonly maxBody: number;
  readonly maxPositions: number;
  readonly patience: number;
  readonly compute: "f32" | "bf16";
  readonly device: string;
  readonly threads?: number;
  readonly quantize?: Holding;
  readonly quantizeNla?: Holding;
}

const LOOPBACK = /^(localhost|127(\.\d+){3}|::1)$/;

function whole(name: string, value: number, description: string): CommandEntry["options"] {
  return [{ flags: `--${name} <n>`, description, default: value, parse: wholeNumber(`--${name}`, 1) }];
}

/** Resolves once the process is asked to end. */
function asked(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    process.once("SIGTERM", () => resolve());
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

/** The `serve` command. */
export const serveCommand = ({ version }: { readonly version: string }): CommandEntry => ({
  name: "serve",
  summary: "serve a model and its NLA over HTTP: SGLang's, OpenAI's and our own API",
  options: [
    {
      flags: "--model <dir>",
      hub: "name",
      description: "the target; by default the one that the NLA's sidecar names",
    },
    { flags: "--nla <dir>", hub: "folder", description: "a run folder, or a verbalizer's folder with --ar" },
    {
      flags: "--ar <dir>",
      hub: "folder",
      description: "the reconstructor's folder, for a pair that lies apart",
    },
    ...contractOptions,
    { flags: "--host <name>", description: "address to listen at", default: "127.0.0.1" },
    {
      flags: "--port <n>",
      description: "0 takes any that is free",
      default: 30_000,
      parse: wholeNumber("--port"),
    },
    { flags: "--api-key <key>", description: "ask for it; by default $NLA_API_KEY" },
    ...(whole("rows", 64, "sequences at once") ?? []),
    ...(whole("context", 1024, "tokens of a sequence, prompt included") ?? []),
    ...(whole("queue", 1024, "sequences that may wait") ?? []),
    ...(whole("max-body", 64 * 2 ** 20, "bytes of a request") ?? []),
    ...(whole("max-positions", 512, "positions of a request") ?? []),
    ...(whole("patience", 60, "seconds for a request to arrive, or an answer to be taken") ?? []),
    { flags: "--compute <type>", description: "precision", choices: ["f32", "bf16"], default: "f32" },
    { flags: "--device <name>", description: "device, as `nla doctor` names it", default: "cpu" },
    {
      flags: "--threads <n>",
      description: "CPU threads; by default all cores",
      parse: wholeNumber("--threads", 1),
    },
    quantizeOption,
    quantizeNlaOption,
  ],
  examples: [
    { command: "nla serve --nla runs/quickstart", does: "the pair and its target, on this machine only" },
    { command: "nla serve --model av --port 30000", does: "a verbalizer for SGLang's clients" },
  ],
  jsonHelp: "one line {url, model, nla} when it listens",
  action: async (_, options, context) => {
    const flags = options as unknown as ServeFlags;
    const { stdout, stderr, json, env, signal } = context;
    if (flags.model === undefined && flags.nla === undefined) {
      const next = "For example: nla serve --nla runs/quickstart";
      throw new UsageError({
        code: "cli.option",
        subject: "nla serve",
        found: "neither --model nor --nla",
        wanted: "one of them",
        next,
      });
    }
    const apiKey = flags.apiKey ?? env["NLA_API_KEY"];
    if (!apiKey && !LOOPBACK.test(flags.host))
      stderr.write(`note: everybody who reaches ${flags.host} can use this server: give --api-key\n`);
    const folders =
      flags.nla === undefined ? [targetDirectory(flags.model as string)] : verbalizerFolders(flags.nla);
    using device = await deviceFor(folders, { threads: flags.threads, device: flags.device });
    let nla: Nla | null = null;
    try {
      if (flags.nla !== undefined)
        nla = await loadNla(flags.nla, device, {
          reconstructor: flags.ar,
          contract: flags.contract,
          reconstructorContract: flags.arContract,
          holding: flags.quantizeNla,
        });
      const name = await bringTarget(flags.model, nla?.target ?? null, context);
      using target = await loadTarget(name, device, flags.quantize);
      const { rows: maxRows, context: maxTokens, queue: maxQueue, compute, maxPositions } = flags;
      const batching = { maxRows, maxTokens, maxQueue, compute };
      await using served = new ServedModel(target.name, target.model, target.tokenizer, batching);
      await using verbalizer =
        nla === null
          ? null
          : new ServedModel(flags.nla as string, nla.verbalizer.model, nla.verbalizer.tokenizer, batching);
      const app = createApp({
        version,
        target: served,
        generator: verbalizer ?? served,
        nla: nla === null || verbalizer === null ? null : { target, nla, verbalizer, maxPositions },
        ...(apiKey ? { apiKey } : {}),
        maxBody: flags.maxBody,
      });
      const server = await listen(app, { ...flags, patienceMs: 1000 * flags.patience });
      const facts = { url: server.url, model: target.name, nla: flags.nla ?? null };
      stdout.write(
        json
          ? `${JSON.stringify(facts)}\n`
          : `listening at ${server.url} (GET /openapi.json says what there is)\n`,
      );
      await asked(signal);
      if (!json) stderr.write("draining: requests at work are finished, new ones are not taken\n");
      await server.close();
    } finally {
      nla?.[Symbol.dispose]();
    }
  },
});
