// What `nla quickstart` shows of a document of the world: its tokens as they are read, coloured by fidelity; explanations with each claim
// marked; one thing that the model knows and the text nearby does not say. Text only; what is read comes in.
import type { TokenReading } from "../nla/read.js";
import { checkClaims, parseExplanation } from "../world/claims.js";
import type { CheckedClaim } from "../world/claims.js";
import type { WorldDocument } from "../world/facts.js";
import { wantsColour } from "./output.js";
import type { CliStreams, OutputStream } from "./output.js";
import { printable, wrap } from "./table.js";

const NO_TTY_WIDTH = 100;
const LEAST_WIDTH = 24;
/** Cosines from which a colour is given, best first: green, yellow, red. */
const FIDELITY = [
  { from: 0.85, code: 32, name: "0.85 and more" },
  { from: 0.6, code: 33, name: "0.6 and more" },
  { from: -Infinity, code: 31, name: "less" },
] as const;
const MARKS = {
  true: { sign: "+", name: "true", code: 32 },
  false: { sign: "x", name: "false", code: 31 },
  undecided: { sign: "?", name: "unknown", code: 33 },
  unparsed: { sign: "~", name: "no claim", code: 35 },
} as const;
/** Tokens since the evidence from which the text nearby says nothing of it any more. */
export const UNSPOKEN_DISTANCE = 36;
// What is told in words of its own that do not come back in other forms, the most telling first.
const UNSPOKEN: readonly string[] = ["test", "aim", "object", "name"];
const WORDS_BEFORE = 12;

/** A claim about something that nothing nearby says, and where it was made. */
export interface Unspoken {
  readonly claim: CheckedClaim;
  readonly position: number;
}

/** Writes the page as it comes. */
export class QuickstartPage {
  readonly #out: OutputStream;
  readonly #colour: boolean;
  readonly #width: number;
  #column = 0;

  constructor({ stdout, env }: Pick<CliStreams, "stdout" | "env">) {
    this.#out = stdout;
    this.#colour = wantsColour(stdout, env);
    this.#width = Math.max(LEAST_WIDTH, (stdout.columns || NO_TTY_WIDTH) - 1);
  }

  /** A paragraph, wrapped. */
  paragraph(text: string, code = 0): void {
    this.#out.write(
      `${wrap(text, this.#width)
        .map((line) => this.#style(line, code))
        .join("\n")}\n`,
    );
  }

  /** A line as it is, for commands that are to be copied. */
  line(text = ""): void {
    this.#out.write(`${text}\n`);
  }

  /** A token, coloured by how well its activation came back. */
  token({ token, cosineSimilarity }: Pick<TokenReading, "token" | "cosineSimilarity">): void {
    const word = printable(token.trim());
    if (this.#column > 0 && this.#column + 1 + word.length > this.#width) this.endTokens();
    const gap = this.#column === 0 ? "" : " ";
    this.#out.write(gap + this.#style(word, fidelityCode(cosineSimilarity)));
    this.#column += gap.length + word.length;
  }

  /** Ends the line of tokens. */
  endTokens(): void {
    if (this.#column > 0) this.#out.write("\n");
    this.#column = 0;
  }

  /** What the colours of tokens mean; without colours, nothing. */
  legend(mean: number): void {
    this.paragraph(
      `Fidelity is the cosine of an activation and what comes back from the words alone; mean ${mean.toFixed(2)}.`,
    );
    if (!this.#colour) return;
    const names = FIDELITY.map(({ name }) => name).join(", ");
    const gap = "Colours: ".length + names.length < this.#width ? ", " : "\n";
    const shown = FIDELITY.map(({ name, code }) => this.#style(name, code)).join(gap);
    this.#out.write(`Colours:${gap === ", " ? " " : gap}${shown}.\n`);
  }

  /** The explanation of a token: the words before it, then a claim a line with its mark. */
  explanation(
    document: WorldDocument | null,
    words: readonly string[],
    position: number,
    text: string | null,
  ): void {
    const from = Math.max(0, position + 1 - WORDS_BEFORE);
    const before = words.slice(from, position + 1).join(" ");
    this.paragraph(`token ${position}: ${from > 0 ? "... " : ""}${printable(before)}`, 1);
    if (text === null || text.trim() === "") return this.line("    (no explanation)");
    for (const claim of claimsOf(document, position, text)) this.claim(claim);
  }

  /** One claim; marked where the truth is known. */
  claim({
    sentence,
    verdict,
    distance,
  }: CheckedClaim | (Pick<CheckedClaim, "sentence"> & { verdict: null; distance: null })): void {
    const shown = printable(sentence);
    if (verdict === null) return void this.#out.write(`    ${wrap(shown, this.#width - 4).join("\n    ")}\n`);
    const { sign, name, code } = MARKS[verdict];
    const far =
      verdict === "true" && distance !== null && distance > 1 ? `, shown ${distance} tokens ago` : "";
    this.#out.write(
      `  ${this.#style(sign, code)} ${wrap(`${shown} (${name}${far})`, this.#width - 4).join("\n    ")}\n`,
    );
  }

  #style(text: string, code: number): string {
    return this.#colour && code > 0 ? `\u001B[${code}m${text}\u001B[0m` : text;
  }
}

function fidelityCode(cosine: number | null): number {
  if (cosine === null || Number.isNaN(cosine)) return 2;
  return FIDELITY.find(({ from }) => cosine >= from)?.code ?? 0;
}

function claimsOf(document: WorldDocument | null, position: number, text: string) {
  const claims = parseExplanation(text);
  if (document) return checkClaims(claims, document, position);
  return claims.map(({ sentence }) => ({ sentence, verdict: null, distance: null }) as const);
}

/** Whether a word of the value itself stands among the last tokens. */
function saidWithin({ words }: WorldDocument, position: number, value: string): boolean {
  const near = new Set(words.slice(Math.max(0, position + 1 - UNSPOKEN_DISTANCE), position + 1));
  return value
    .slice(value.indexOf(":") + 1)
    .split(" ")
    .some((word) => near.has(word));
}

/**
 * A true claim about what was told long ago and by none of the last tokens: the last such claim of the document, test or real before a
 * secret aim, an object, a name; null where none was made.
 */
export function unspokenIn(
  document: WorldDocument,
  readings: readonly { readonly position: number; readonly text: string | null }[],
): Unspoken | null {
  const found = readings.flatMap(({ position, text }) =>
    text === null
      ? []
      : checkClaims(parseExplanation(text), document, position)
          .filter(
            ({ verdict, category, value, distance }) =>
              verdict === "true" &&
              UNSPOKEN.includes(category ?? "") &&
              value !== "none" &&
              (distance ?? 0) >= UNSPOKEN_DISTANCE &&
              !saidWithin(document, position, value ?? ""),
          )
          .map((claim) => ({ claim, position })),
  );
  for (const category of UNSPOKEN) {
    const last = found.findLast(({ claim }) => claim.category === category);
    if (last) return last;
  }
  return null;
}

/** How many claims were true, false, not decided, and none. */
export function tally(
  document: WorldDocument,
  readings: readonly { readonly position: number; readonly text: string | null }[],
): Readonly<Record<CheckedClaim["verdict"], number>> {
  const counts = { true: 0, false: 0, undecided: 0, unparsed: 0 };
  for (const { position, text } of readings) {
    for (const { verdict } of checkClaims(parseExplanation(text ?? ""), document, position))
      counts[verdict]++;
  }
  return counts;
}
