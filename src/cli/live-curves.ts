// Curves of a training in the terminal: whenever a stage has measured fidelity and claims, a line with all values so far. It stands on
// the progress of train/progress.ts and stores nothing.
import type { Progress } from "../train/progress.js";

const STEPS = "▁▂▃▄▅▆▇█";
const CURVES = ["fve", "precision", "recall"] as const;
const MOST = 24;

/** Values from 0 to 1 as a row of blocks, the last `most` of them. */
export function sparkline(values: readonly number[], most = MOST): string {
  return values
    .slice(-most)
    .map((value) => STEPS[Math.min(STEPS.length - 1, Math.max(0, Math.floor(value * STEPS.length)))])
    .join("");
}

/** A progress that also draws curves of FVE, precision and recall, stage by stage. */
export function withCurves(progress: Progress): Progress {
  return {
    note: (text) => progress.note(text),
    stage(name, options) {
      const stage = progress.stage(name, options);
      const curves = new Map<string, number[]>();
      return {
        report(report) {
          const { numbers = {} } = report;
          const found = CURVES.filter((curve) => typeof numbers[curve] === "number");
          for (const curve of found)
            curves.set(curve, [...(curves.get(curve) ?? []), numbers[curve] as number]);
          if (found.length > 0) {
            const shown = found.map((curve) => {
              return `${curve} ${sparkline(curves.get(curve) ?? [])} ${(numbers[curve] as number).toFixed(2)}`;
            });
            progress.note(`${name} ${report.step}: ${shown.join("  ")}`);
          }
          stage.report(report);
        },
        end: (outcome) => stage.end(outcome),
      };
    },
  };
}
