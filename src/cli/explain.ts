// `nla explain`: reads a text token by token and prints, as readings come, what the NLA says at each and how faithful it is.
import { readFile } from "node:fs/promises";
import { messageOf, NlaError } from "../error.js";
import { loadNla, read } from "../nla/read.js";
import type { Reading, TokenReading } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import { Device } from "../tensor/index.js";
import { UsageError, wantsColour } from "./output.js";
import type { CliStreams, OutputStream } from "./output.js";
import { parsePositions, positionsIn } from "./positions.js";
import type { PositionChoice } from "./positions.js";
import { wholeNumber } from "./program.js";
import type { CommandEntry } from "./program.js";
import { bar, displayWidth, printable, truncate, wrap } from "./table.js";
import { targetOf } from "./target-of.js";

// Small passes, so that the first readings come soon; their size changes no reading.
const BATCH = 16;

const INDEX_WIDTH = 4;
const TOKEN_WIDTH = 12;
const BAR_WIDTH = 8;
const NO_TTY_WIDTH = 100;
const GAP = "  ";

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
      cosine_similarity: cosineSimilarity !== null && Number.isNaN(cosineSimilarity) ? null : cosineSimilarity,
    })),
  };
}

/** Prints readings line by line, the explanation wrapped to the terminal; without one every reading is one line. */
export class ReadingPage {
  readonly #stdout: OutputStream;
  readonly #colour: boolean;
  readonly #textWidth: number;
  #cosines = 0;
  #scored = 0;
  #read = 0;

  constructor({ stdout, env }: Pick<CliStreams, "stdout" | "env">) {
    this.#stdout = stdout;
    this.#colour = wantsColour(stdout, env);
    const used = INDEX_WIDTH + TOKEN_WIDTH + BAR_WIDTH + 6 + 3 * GAP.length;
    const width = stdout.columns || NO_TTY_WIDTH;
    this.#textWidth = stdout.isTTY ? Math.max(20, width - used - 1) : Infinity;
  }

  /** The heading. `pair` is where the NLA lies. */
  begin({ model, layer, pair }: { readonly model: string; readonly layer: number; readonly pair: string }): void {
    this.#stdout.write(`${printable(model)}, output of block ${layer}, read by ${printable(pair)}\n\n`);
    const names = ["#".padStart(INDEX_WIDTH), "token".padEnd(TOKEN_WIDTH), "fidelity".padEnd(BAR_WIDTH + 6), "what it reads"];
    this.#stdout.write(`${this.#style(names.join(GAP), 1)}\n`);
  }

  /** One reading. */
  line({ position, token, description, cosineSimilarity }: TokenReading): void {
    this.#read++;
    // Token boundaries are easier to see with the space that most words begin with.
    const shown = truncate(printable(token).replace(/^ +|(?<=[^ ]) +$/g, (spaces) => "·".repeat(spaces.length)), TOKEN_WIDTH);
    const cells = [
      String(position).padStart(INDEX_WIDTH),
      this.#style(shown, 36) + " ".repeat(TOKEN_WIDTH - displayWidth(shown)),
      this.#fidelity(cosineSimilarity),
    ];
    const text = description === null ? this.#style("(no explanation)", 2) : printable(description.trim());
    const lines = this.#textWidth === Infinity ? [text] : wrap(text, this.#textWidth);
    const indent = " ".repeat(INDEX_WIDTH + TOKEN_WIDTH + BAR_WIDTH + 6 + 2 * GAP.length);
    this.#stdout.write(
      lines.map((line, i) => `${i === 0 ? cells.join(GAP) : indent}${GAP}${line}`.trimEnd()).join("\n") + "\n",
    );
  }

  /** What the bars mean, and their mean. */
  end(): void {
    if (this.#read === 0) return;
    const mean = this.#scored === 0 ? "" : `; their mean here is ${(this.#cosines / this.#scored).toFixed(2)}`;
    const text =
      "Fidelity is the cosine between a token's activation and what the reconstructor makes of the explanation alone" +
      `${mean}. Cosines of different models cannot be compared; nla eval gives the variance explained.`;
    const width = this.#textWidth === Infinity ? NO_TTY_WIDTH : (this.#stdout.columns || NO_TTY_WIDTH) - 1;
    this.#stdout.write(`\n${this.#style(wrap(text, width).join("\n"), 2)}\n`);
  }

  #fidelity(cosine: number | null): string {
    if (cosine === null || Number.isNaN(cosine)) return "-".padEnd(BAR_WIDTH + 6);
    this.#cosines += cosine;
    this.#scored++;
    return `${this.#style(bar(cosine, BAR_WIDTH), 32)} ${cosine.toFixed(2).padStart(5)}`;
  }

  #style(text: string, code: number): string {
    return this.#colour ? `\u001B[${code}m${text}\u001B[0m` : text;
  }
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

/** An option parser for a sampling temperature. */
function temperature(text: string): number {
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

interface ExplainFlags {
  readonly file?: string;
  readonly nla: string;
  readonly ar?: string;
  readonly model?: string;
  readonly positions?: PositionChoice;
  readonly temperature: number;
  readonly maxNewTokens: number;
  readonly seed: number;
  readonly threads?: number;
}

/** The `explain` command. */
export const explainCommand: CommandEntry = {
  name: "explain",
  summary: "read a text token by token: what the model's activations say",
  arguments: [{ name: "[text]", description: "the text to read" }],
  options: [
    { flags: "--nla <dir>", description: "a run folder, or a verbalizer's folder with --ar", required: true },
    { flags: "--ar <dir>", description: "the reconstructor's folder, for a pair that lies apart" },
    { flags: "--file <file>", description: "read the text from a file" },
    { flags: "--model <dir>", description: "the model to read; by default the one that the NLA's sidecar names" },
    { flags: "--positions <list>", description: "tokens to read: 3,5,-1 or 2:10; by default all", parse: parsePositions },
    { flags: "--temperature <t>", description: "0 takes the likeliest words", default: 0, parse: temperature },
    { flags: "--max-new-tokens <n>", description: "cap on an explanation", default: 200, parse: wholeNumber("--max-new-tokens", 1) },
    { flags: "--seed <n>", description: "of sampling", default: 0, parse: wholeNumber("--seed") },
    { flags: "--threads <n>", description: "CPU threads; by default all cores", parse: wholeNumber("--threads", 1) },
  ],
  examples: [
    { command: 'nla explain "Once upon a time" --nla runs/quickstart', does: "every token" },
    { command: 'nla explain "Once upon a time" --nla runs/quickstart --positions -1', does: "the last one" },
    { command: "nla explain --file a.txt --nla av --ar ar --model target", does: "a released pair" },
  ],
  jsonHelp: "{model, layer, tokens: [...]} as docs/json.md says",
  action: async ([argument], options, context) => {
    const flags = options as unknown as ExplainFlags;
    const { stdout, json, signal } = context;
    const text = await textOf(argument as string | undefined, flags.file);
    using device = Device.open(flags.threads === undefined ? {} : { threads: flags.threads });
    using nla = await loadNla(flags.nla, device, flags.ar === undefined ? {} : { reconstructor: flags.ar });
    using target = await loadTarget(targetOf(flags.model, nla.target), device);
    const { positions } = flags;
    const length = target.tokenizer.encode(text, { addSpecialTokens: true }).length;
    const page = json ? null : new ReadingPage(context);
    let begun = false;
    const reading = await read(target, nla, text, {
      temperature: flags.temperature,
      maxNewTokens: flags.maxNewTokens,
      seed: flags.seed,
      batch: BATCH,
      signal,
      ...(positions ? { positions: positionsIn(positions, length) } : {}),
      onReading: (each) => {
        if (!begun) page?.begin({ model: target.name, layer: nla.layer, pair: flags.nla });
        begun = true;
        page?.line(each);
      },
    });
    if (json) stdout.write(`${JSON.stringify(readingJson(reading))}\n`);
    page?.end();
  },
};
