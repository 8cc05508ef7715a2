// Declares in a graph what a padded batch is, and makes the values of those inputs from one.
import { Graph } from "../tensor/index.js";
import type { HostArray, Tensor } from "../tensor/index.js";
import { attentionMask, halfMask, needsRowMasks } from "./batch.js";
import type { Batch } from "./batch.js";
import type { BatchInputs } from "./forward.js";

/** A batch in a graph: its tensors, and a function that gives the values for one run. */
export interface DeclaredBatch extends BatchInputs {
  values(batch: Batch): Record<string, HostArray>;
}

/**
 * Declares inputs for batches of one shape.
 *
 * @param like a batch of that shape; whether rows need masks of their own is fixed by it
 */
export function declareBatch(g: Graph, like: Pick<Batch, "rows" | "length" | "offsets">): DeclaredBatch {
  const { rows, length } = like;
  const perRow = needsRowMasks(like as Batch);
  // Without gradients attention is one kernel, whose mask is f16; elsewhere than on CPUs it has not every head size.
  const fused = !g.recording && g.device.info.kind === "cpu";
  const ids = g.input("ids", [rows * length], "i32");
  const positions = g.input("positions", [rows * length], "i32");
  const masks = new Map<number | null, Tensor>();
  return {
    rows,
    length,
    ids,
    positions,
    mask(window) {
      let mask = masks.get(window);
      if (!mask) {
        const name = `mask${window ?? ""}`;
        mask = fused
          ? g.input(name, [perRow ? rows : 1, 1, length, length], "f16")
          : g.input(name, perRow ? [rows, 1, length, length] : [length, length]);
        masks.set(window, mask);
      }
      return mask;
    },
    values(batch) {
      const values: Record<string, HostArray> = { ids: batch.ids, positions: batch.positions };
      for (const window of masks.keys()) {
        const mask = attentionMask(batch, window);
        values[`mask${window ?? ""}`] = fused ? halfMask(mask) : mask;
      }
      return values;
    },
  };
}
