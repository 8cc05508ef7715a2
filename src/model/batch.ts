// Ragged sequences of token ids as one padded batch, and the masks that keep each sequence to itself.
import { NlaError } from "../error.js";

/** A padded batch. Arrays are [rows · length], row-major. */
export interface Batch {
  readonly rows: number;
  readonly length: number;
  readonly ids: Int32Array;
  /** Position of each token in its own sequence; padding has 0. */
  readonly positions: Int32Array;
  /** Tokens of each row. */
  readonly lengths: readonly number[];
  /** Column of each row's first token: 0, or what padding on the left takes. */
  readonly offsets: readonly number[];
}

/** Options of {@link padBatch}. */
export interface PadOptions {
  /** Where padding stands. Defaults to `"right"`. */
  readonly padding?: "right" | "left";
  /** Lengths are rounded up to a multiple of this, so that graphs can be used again. Defaults to 1. */
  readonly multiple?: number;
  /** Longest sequence allowed, the model's context. */
  readonly maxLength: number;
}

const MAX_ID = 2 ** 31 - 1; // what an i32 holds; the vocabulary's own end is checked where a graph runs

/**
 * Pads sequences to one length. Padding has id 0, which no real token attends to.
 *
 * @throws NlaError `model.batch` for no sequences, an empty one, one longer than the context, or what is no token id
 */
export function padBatch(sequences: readonly (readonly number[])[], options: PadOptions): Batch {
  const { padding = "right", multiple = 1, maxLength } = options;
  const lengths = sequences.map((sequence) => sequence.length);
  lengths.forEach((length, row) => {
    if (length > 0 && length <= maxLength) return;
    throw new NlaError({
      code: "model.batch",
      subject: `sequence ${row} of a batch`,
      found: `${length} tokens`,
      wanted: `1 to ${maxLength} tokens, the model's context`,
      next: length === 0 ? "Leave empty texts out." : "Cut the text, or read it in parts.",
    });
  });
  sequences.forEach((sequence, row) => {
    // An Int32Array would make 0 of NaN and 1 of 1.5 without a word.
    const at = sequence.findIndex((id) => !(Number.isInteger(id) && id >= 0 && id <= MAX_ID));
    if (at < 0) return;
    throw new NlaError({
      code: "model.batch",
      subject: `token ${at} of sequence ${row} of a batch`,
      found: String(sequence[at]),
      wanted: `a token id, an integer from 0 to ${MAX_ID}`,
      next: "Take the ids from the model's own tokenizer.",
    });
  });
  if (sequences.length === 0) {
    throw new NlaError({
      code: "model.batch",
      subject: "a batch",
      found: "no sequences",
      wanted: "at least one",
      next: "Check the filter that chose them.",
    });
  }
  const rows = sequences.length;
  const longest = Math.max(...lengths);
  const length = Math.min(Math.ceil(longest / multiple) * multiple, Math.max(maxLength, longest));
  const ids = new Int32Array(rows * length);
  const positions = new Int32Array(rows * length);
  const offsets = lengths.map((n) => (padding === "left" ? length - n : 0));
  sequences.forEach((sequence, row) => {
    const start = row * length + (offsets[row] as number);
    ids.set(sequence, start);
    for (let i = 0; i < sequence.length; i++) positions[start + i] = i;
  });
  return { rows, length, ids, positions, lengths, offsets };
}

/** Whether rows need a mask each: padding on the left does, on the right the causal mask hides it. */
export function needsRowMasks(batch: Batch): boolean {
  return batch.offsets.some((offset) => offset > 0);
}

/**
 * Additive attention mask: 0 where query i may look at key j, -inf elsewhere. [length, length], or [rows, length, length]
 * where rows need one each. A padding row looks at itself, because a softmax over nothing is NaN.
 *
 * @param window how many positions back are seen, itself included; null: all
 */
export function attentionMask(batch: Batch, window: number | null): Float32Array {
  const { length, rows } = batch;
  const perRow = needsRowMasks(batch);
  const mask = new Float32Array((perRow ? rows : 1) * length * length).fill(-Infinity);
  for (let row = 0; row < (perRow ? rows : 1); row++) {
    const first = perRow ? (batch.offsets[row] as number) : 0;
    for (let i = 0; i < length; i++) {
      const from = Math.max(i < first ? i : first, window === null ? 0 : i - window + 1);
      mask.fill(0, (row * length + i) * length + from, (row * length + i) * length + i + 1);
    }
  }
  return mask;
}

const F16_MINUS_INFINITY = 0xfc00;

/** A mask of 0 and -inf as f16. */
export function halfMask(mask: Float32Array): Uint16Array {
  return Uint16Array.from(mask, (value) => (value === 0 ? 0 : F16_MINUS_INFINITY));
}

/** Index in the batch of each real token, sequence after sequence: the rows of a packed tensor. */
export function packedRows(batch: Batch): Int32Array {
  const rows: number[] = [];
  batch.lengths.forEach((n, row) => {
    const start = row * batch.length + (batch.offsets[row] as number);
    for (let i = 0; i < n; i++) rows.push(start + i);
  });
  return Int32Array.from(rows);
}

/** Rows of a row-major matrix by number. */
export function pickRows(values: Float32Array, width: number, rows: ArrayLike<number>): Float32Array {
  const picked = new Float32Array(rows.length * width);
  for (let i = 0; i < rows.length; i++) {
    const from = (rows[i] as number) * width;
    picked.set(values.subarray(from, from + width), i * width);
  }
  return picked;
}
