// A reading on a terminal: a line per token with a bar for its fidelity and the explanation wrapped to the width. Without a
// terminal every reading is one line, so that other programs can take it.
import { wantsColour } from "./output.js";
import type { CliStreams, OutputStream } from "./output.js";
import type { TokenReading } from "../nla/read.js";
import { bar, displayWidth, printable, truncate, wrap } from "./table.js";

const INDEX_WIDTH = 4;
const TOKEN_WIDTH = 12;
const BAR_WIDTH = 8;
const NO_TTY_WIDTH = 100;
const GAP = "  ";

/** What is read by what. */
export interface ReadingSource {
  readonly model: string;
  readonly layer: number;
  /** Where the NLA lies. */
  readonly pair: string;
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

  /** One reading; before the first, the heading. */
  line({ position, token, description, cosineSimilarity }: TokenReading, source: ReadingSource): void {
    if (this.#read === 0) this.#heading(source);
    this.#read++;
    // Token boundaries are easier to see with the space that most words begin with.
    const shown = truncate(
      printable(token).replace(/^ +|(?<=[^ ]) +$/g, (spaces) => "·".repeat(spaces.length)),
      TOKEN_WIDTH,
    );
    const cells = [
      String(position).padStart(INDEX_WIDTH),
      this.#style(shown, 36) + " ".repeat(TOKEN_WIDTH - displayWidth(shown)),
      this.#fidelity(cosineSimilarity),
    ];
    const text = description === null ? this.#style("(no explanation)", 2) : printable(description.trim());
    const lines = this.#textWidth === Infinity ? [text] : wrap(text, this.#textWidth);
    const indent = " ".repeat(INDEX_WIDTH + TOKEN_WIDTH + BAR_WIDTH + 6 + 2 * GAP.length);
    this.#stdout.write(
      lines.map((line, i) => `${i === 0 ? cells.join(GAP) : indent}${GAP}${line}`.trimEnd()).join("\n") +
        "\n",
    );
  }

  /** What the bars mean, and their mean. */
  end(): void {
    if (this.#read === 0) return;
    const mean =
      this.#scored === 0 ? "" : `; their mean here is ${(this.#cosines / this.#scored).toFixed(2)}`;
    const text =
      "Fidelity is the cosine between a token's activation and what the reconstructor makes of the explanation alone" +
      `${mean}. Cosines of different models cannot be compared; nla eval gives the variance explained.`;
    const width = this.#textWidth === Infinity ? NO_TTY_WIDTH : (this.#stdout.columns || NO_TTY_WIDTH) - 1;
    this.#stdout.write(`\n${this.#style(wrap(text, width).join("\n"), 2)}\n`);
  }

  #heading({ model, layer, pair }: ReadingSource): void {
    this.#stdout.write(`${printable(model)}, output of block ${layer}, read by ${printable(pair)}\n\n`);
    const names = [
      "#".padStart(INDEX_WIDTH),
      "token".padEnd(TOKEN_WIDTH),
      "fidelity".padEnd(BAR_WIDTH + 6),
      "what it reads",
    ];
    this.#stdout.write(`${this.#style(names.join(GAP), 1)}\n`);
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
