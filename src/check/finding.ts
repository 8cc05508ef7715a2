// What the linter says: a fault is data (an error's four facts and a severity), sometimes with a mend that cannot lose anything.
import { NlaError } from "../error.js";

/** `error`: it gives wrong numbers or does not run. `warning`: it runs here, and may not elsewhere or as it was meant. */
export type Severity = "error" | "warning";

/** Something that is not as it should be. */
export interface Finding {
  readonly severity: Severity;
  /** Stable, dotted; a reader's own code where a reader refused. */
  readonly code: string;
  readonly subject: string;
  readonly found: string;
  readonly wanted: string;
  /** How to mend it. */
  readonly next: string;
  /** Mends it where that is safe; null where a person has to decide. */
  readonly fix: (() => Promise<void>) | null;
}

/** Something that is as it may be, and that a reader of the result may want to know; it counts as no finding. */
export interface Note {
  readonly code: string;
  readonly subject: string;
  readonly found: string;
  /** What it means, and what could be done. */
  readonly next: string;
}

/** Collects findings; what a check throws becomes one, faults of the program go on as they are. */
export class Findings {
  readonly list: Finding[] = [];
  readonly notes: Note[] = [];

  add(severity: Severity, finding: Omit<Finding, "severity" | "fix"> & Partial<Pick<Finding, "fix">>): void {
    this.list.push({ severity, fix: null, ...finding });
  }

  /** The value of a check, or null where it found an error. */
  async of<T>(check: () => T | Promise<T>): Promise<T | null> {
    try {
      return await check();
    } catch (thrown) {
      if (!(thrown instanceof NlaError)) throw thrown;
      const { code, subject, found, wanted, next } = thrown;
      // Two checks may come upon the same fault.
      if (
        !this.list.some(
          (each) => each.code === code && each.subject.endsWith(subject) && each.found === found,
        )
      )
        this.add("error", { code, subject, found, wanted, next });
      return null;
    }
  }
}
