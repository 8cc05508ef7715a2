// What a check of conformance finds: the largest error of all values compared, against a bound.
import type { Device } from "../tensor/index.js";
import type { Decoder } from "./decoder.js";
import type { GoldenFolder } from "./golden-folder.js";

/** What an error is measured in. */
export type Measure = "rel L2" | "absolute" | "relative" | "tokens" | "settings";

/** One comparison. */
export interface Check {
  readonly check: string;
  readonly measure: Measure;
  /** The largest error of all values compared. */
  readonly error: number;
  readonly bound: number;
  readonly passed: boolean;
  /** How many tensors were compared, and which had that error. */
  readonly compared: number;
  readonly worst: string;
}

/** Collects errors under the name of a check, and judges the largest. */
export class Findings {
  checks: Check[] = [];
  absent: string[] = [];
  readonly #onCheck: (check: Check) => void;
  #prefix = "";

  constructor(onCheck: (check: Check) => void) {
    this.#onCheck = onCheck;
  }

  /** The same list, with names that begin with what was checked. */
  under(subject: string): Findings {
    const part = new Findings(this.#onCheck);
    part.#prefix = `${subject}: `;
    part.checks = this.checks;
    part.absent = this.absent;
    return part;
  }

  /** @param errors by the name of what was compared; an empty list means that the folder has no such values */
  add(name: string, measure: Measure, bound: number, errors: readonly (readonly [string, number])[]): void {
    const check = `${this.#prefix}${name}`;
    const [first] = errors;
    if (!first) {
      this.absent.push(check);
      return;
    }
    // NaN is worse than any number.
    const [worst, error] = errors.reduce((a, b) => (Number.isNaN(a[1]) || a[1] >= b[1] ? a : b), first);
    const made = { check, measure, error, bound, passed: error <= bound, compared: errors.length, worst };
    this.checks.push(made);
    this.#onCheck(made);
  }
}

/** What a check reads. */
export interface Subject {
  readonly device: Device;
  readonly model: Decoder;
  readonly golden: GoldenFolder;
  /** How far states and logits may be off, where that is not what f32 allows. */
  readonly bound?: number;
  readonly signal: AbortSignal | undefined;
}

/** |a - b| / |b| over all elements; infinite where the lengths differ. */
export function relativeL2(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Infinity;
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i++) {
    difference += ((a[i] as number) - (b[i] as number)) ** 2;
    norm += (b[i] as number) ** 2;
  }
  return Math.sqrt(difference / norm);
}
