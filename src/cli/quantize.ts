// `--quantize`: how a command holds a model's matrices.
import { HOLDINGS } from "../model/index.js";
import type { Holding } from "../model/index.js";
import { UsageError } from "./output.js";

/** @throws UsageError `cli.option` */
export function parseHolding(text: string): Holding {
  const holding = HOLDINGS.find((each) => each === text.toLowerCase());
  if (holding) return holding;
  throw new UsageError({
    code: "cli.option",
    subject: "--quantize",
    found: JSON.stringify(text),
    wanted: `one of ${HOLDINGS.join(", ")}`,
    next: "stored keeps what the file has, q8_0 is the most exact of the small ones, q4_k_m a half of that.",
  });
}

/** The same for the pair that reads. */
export const quantizeNlaOption = {
  flags: "--quantize-nla <type>",
  description: "the same for the matrices of verbalizer and reconstructor",
  parse: parseHolding,
};

/** The option, for the commands that only read a model. */
export const quantizeOption = {
  flags: "--quantize <type>",
  description: `hold the model's matrices as ${HOLDINGS.join(", ")}; f32 by default, stored for GGUF`,
  parse: parseHolding,
};
