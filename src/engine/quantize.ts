// Quantizing weights by ggml's own functions, so that blocks are the same as llama.cpp's.
import { NlaError } from "../error.js";
import { BLOCKS, GGML_TYPE } from "./dtype.js";
import type { BlockDtype } from "./dtype.js";
import { loadLibrary } from "./library.js";

/**
 * Rows of f32 as blocks.
 *
 * @param values [rows, width], finite
 * @returns rows · width / values per block · bytes per block
 * @throws NlaError `tensor.blocks` where blocks do not divide a row: ggml would end the process
 */
export function quantizeRows(dtype: BlockDtype, values: Float32Array, width: number): Uint8Array {
  const block = BLOCKS[dtype];
  const rows = values.length / width;
  if (width % block.values !== 0 || !Number.isInteger(rows) || rows < 1) {
    throw new NlaError({
      code: "tensor.blocks",
      subject: `rows of ${width} values in ${dtype}`,
      found: `${values.length} values, ${width % block.values} over in every row`,
      wanted: `rows of a multiple of ${block.values}`,
      next: "Use another type: q8_0 and q4_0 have blocks of 32, f16 and bf16 none.",
    });
  }
  const into = new Uint8Array((values.length / block.values) * block.bytes);
  const written = loadLibrary().ggml.quantize(GGML_TYPE[dtype], values, into, rows, width);
  if (written === into.byteLength) return into;
  throw new NlaError({
    code: "tensor.blocks",
    subject: `rows of ${width} values in ${dtype}`,
    found: `${written} bytes from ggml`,
    wanted: `${into.byteLength}`,
    next: "Report this with the output of `nla doctor --json`.",
  });
}
