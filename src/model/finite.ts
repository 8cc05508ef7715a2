// Whether stored weights are numbers. One NaN in one matrix makes every logit NaN, many blocks later and without a name; so every
// parameter is looked at where it comes from disk, the mapped ones, too, in pieces that take no memory.
import { open } from "node:fs/promises";
import { NlaError } from "../error.js";
import { BLOCKS, fileChanged, isBlockDtype } from "../tensor/index.js";
import type { BlockDtype, Dtype } from "../tensor/index.js";

const PIECE = 2 ** 24; // a few milliseconds of the event loop

/** Where a block has its scales, and its minimum: half-precision numbers. The rest of a block is whole numbers. */
const SCALES: Readonly<Record<BlockDtype, readonly number[]>> = {
  q4_0: [0],
  q4_1: [0, 2],
  q5_0: [0],
  q5_1: [0, 2],
  q8_0: [0],
  q4_k: [0, 2],
  q5_k: [0, 2],
  q6_k: [208],
};

/** @throws NlaError `model.not-finite` naming file, tensor and element */
export function checkFinite(file: string, name: string, values: Float32Array): void {
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) throw notFinite(file, name, i, String(values[i]));
  }
}

/**
 * The same for values as they are stored.
 *
 * @param bytes whole values, or whole blocks
 * @param first number of the first element in the tensor
 * @throws NlaError `model.not-finite`
 */
export function checkStored(file: string, name: string, dtype: Dtype, bytes: Uint8Array, first = 0): void {
  const at = firstNotFinite(dtype, bytes);
  if (at === null) return;
  const what = isBlockDtype(dtype) ? `a ${dtype} block whose scale is NaN or infinite` : "NaN or infinity";
  throw notFinite(file, name, first + at, what);
}

/**
 * The same for a part of a file, read in pieces: a look at a mapping would end the process where the file is cut in the meantime.
 *
 * @param byteLength from the offset on
 * @throws NlaError `model.not-finite`, `model.file-changed` where the file ends too early
 */
export async function checkStoredAt(
  { path, offset }: { readonly path: string; readonly offset: number },
  name: string,
  dtype: Dtype,
  byteLength: number,
): Promise<void> {
  const [values, size] = isBlockDtype(dtype)
    ? [BLOCKS[dtype].values, BLOCKS[dtype].bytes]
    : [1, dtype === "f32" ? 4 : 2];
  const piece = new Uint8Array(Math.min(byteLength, Math.floor(PIECE / size) * size));
  const file = await open(path, "r");
  try {
    for (let done = 0; done < byteLength;) {
      const want = Math.min(piece.byteLength, byteLength - done);
      for (let filled = 0; filled < want;) {
        const { bytesRead } = await file.read(piece, filled, want - filled, offset + done + filled);
        if (bytesRead === 0) throw fileChanged(path, offset + done + filled, offset + byteLength);
        filled += bytesRead;
      }
      checkStored(path, name, dtype, piece.subarray(0, want), (done / size) * values);
      done += want;
    }
  } finally {
    await file.close();
  }
}

function firstNotFinite(dtype: Dtype, bytes: Uint8Array): number | null {
  if (isBlockDtype(dtype)) {
    const { bytes: size, values } = BLOCKS[dtype];
    const scales = SCALES[dtype];
    for (let at = 0; at < bytes.byteLength; at += size) {
      for (const scale of scales) {
        // The high byte of a half has the sign and the five bits of the exponent.
        if (((bytes[at + scale + 1] as number) & 0x7c) === 0x7c) return (at / size) * values;
      }
    }
    return null;
  }
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  if (dtype === "f32") {
    const words = new Uint32Array(buffer, byteOffset, byteLength >> 2);
    for (let i = 0; i < words.length; i++) {
      if (((words[i] as number) & 0x7f800000) === 0x7f800000) return i;
    }
    return null;
  }
  const high = dtype === "bf16" ? 0x7f80 : 0x7c00;
  const pairs = new Uint32Array(buffer, byteOffset, byteLength >> 2);
  for (let i = 0; i < pairs.length; i++) {
    const pair = pairs[i] as number;
    if ((pair & high) === high) return 2 * i;
    if (((pair >>> 16) & high) === high) return 2 * i + 1;
  }
  if (byteLength % 4 === 0) return null;
  const last = (bytes[byteLength - 2] as number) | ((bytes[byteLength - 1] as number) << 8);
  return (last & high) === high ? byteLength / 2 - 1 : null;
}

function notFinite(file: string, name: string, element: number, found: string): NlaError {
  return new NlaError({
    code: "model.not-finite",
    subject: `${file}, tensor ${name}, element ${element}`,
    found,
    wanted: "finite weights",
    next: "Fetch the file again; if it stays so, the training that made it had failed.",
  });
}
