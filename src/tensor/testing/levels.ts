// The levels of nlakit's kernels that the machine at hand has, for tests that run at each of them.
import { KERNEL_LEVELS, loadKernels } from "../../engine/index.js";
import type { KernelLevel, Kernels } from "../../engine/index.js";

/** What {@link kernelLevels} gives. */
export interface TestedLevels {
  /** Null where there are none. */
  readonly kernels: Kernels | null;
  readonly levels: readonly KernelLevel[];
  /** Puts back the level that was in use. */
  restore(): void;
}

/** Every level that can be selected here; the one in use stays selected. */
export function kernelLevels(): TestedLevels {
  const kernels = loadKernels();
  if (!kernels) return { kernels, levels: [], restore: () => {} };
  const { level, fastBf16 } = kernels;
  const restore = () => kernels.select(level, fastBf16);
  const levels = KERNEL_LEVELS.filter((each) => {
    try {
      kernels.select(each);
      return true;
    } catch {
      return false; // not on this processor
    }
  });
  restore();
  return { kernels, levels, restore };
}
