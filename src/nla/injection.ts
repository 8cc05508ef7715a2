// Where a verbalizer's prompt takes the activation, and at which length: pure functions over token ids and vectors.
// Not the replacement itself, which the model does with the rows that these functions name.
//
// If the wrong row is replaced, the model sees the literal marker and writes about that character instead; hence every
// rule here is an exact match and every mismatch an error.
import { NlaError } from "../error.js";

/**
 * How an activation enters the verbalizer. `replace`: the embedding row at the marker becomes the scaled vector (the
 * released format). `add-normed`: to the output h of block 1 at the marker |h| · v/|v| is added, v the raw activation, as
 * the community's recipe has it; the two kinds of checkpoint are not exchangeable.
 */
export type InjectionKind = "replace" | "add-normed";

/** Block after whose output `add-normed` adds, counted from 0. */
export const ADDED_AFTER_BLOCK = 1;

/** The ids that mark an injection site. */
export interface InjectionMarker {
  /** Id of the injection token. */
  readonly tokenId: number;
  /** Id that must stand before it. */
  readonly left: number;
  /** Id that must stand after it. */
  readonly right: number;
}

// torch's clamp in the released implementation: below it a vector comes out shorter than the scale, zero stays zero.
const SMALLEST_NORM = Math.fround(1e-12);

/**
 * Positions p with `ids[p] = tokenId`, `ids[p-1] = left` and `ids[p+1] = right`, ascending; never the first or last.
 *
 * @param ids token ids of one sequence, [T]
 */
export function findInjectionSites(
  ids: readonly number[],
  { tokenId, left, right }: InjectionMarker,
): number[] {
  const sites: number[] = [];
  for (let p = 1; p < ids.length - 1; p++) {
    if (ids[p] === tokenId && ids[p - 1] === left && ids[p + 1] === right) sites.push(p);
  }
  return sites;
}

/** One injection: row `position` of sequence `sequence` takes vector number `vector`. */
export interface InjectionSite {
  readonly sequence: number;
  readonly position: number;
  readonly vector: number;
}

/**
 * The sites of a batch in row-major order, each with the vector it takes: sites consume vectors in order.
 *
 * @param batch token ids, [B][T], ragged allowed
 * @param vectorCount number of vectors to place
 * @throws NlaError `injection.count` if the number of sites differs from `vectorCount`, either way
 */
export function assignInjectionSites(
  batch: readonly (readonly number[])[],
  marker: InjectionMarker,
  vectorCount: number,
): InjectionSite[] {
  const sites: InjectionSite[] = [];
  for (const [sequence, ids] of batch.entries()) {
    for (const position of findInjectionSites(ids, marker))
      sites.push({ sequence, position, vector: sites.length });
  }
  if (sites.length !== vectorCount) {
    const markers = batch.reduce((sum, ids) => sum + ids.filter((id) => id === marker.tokenId).length, 0);
    throw new NlaError({
      code: "injection.count",
      subject: "injection sites",
      found: `${sites.length} sites (token ${marker.tokenId} between ${marker.left} and ${marker.right}; ${markers} such tokens with any neighbours)`,
      wanted: `${vectorCount}, one per vector`,
      next:
        sites.length < vectorCount
          ? "Check that the prompt is the sidecar's template and the tokenizer the one it was made with."
          : "A marker stands in the text besides the template's: remove it from the text, or pass one vector per site.",
    });
  }
  return sites;
}

/**
 * `vector` at length `scale`, in float32: `v / (max(|v|, 1e-12) / scale)`; null passes it through unchanged.
 *
 * One division, because `v * (scale / |v|)` differs in the last bit from what verbalizers were trained on. The norm is
 * summed in float64, so a vector whose squares exceed float32 keeps its direction (the Python stack turns it to zeros).
 *
 * @param vector raw activation, [d]
 * @returns a new array, [d]
 * @throws NlaError `injection.not-finite` for NaN or infinite values, `injection.scale` for a scale that is not positive
 *   and finite, `injection.norm` for a length beyond float32
 */
export function scaleToNorm(vector: Float32Array, scale: number | null): Float32Array {
  let squares = 0;
  for (const [i, value] of vector.entries()) {
    if (!Number.isFinite(value)) {
      throw new NlaError({
        code: "injection.not-finite",
        subject: "activation to inject",
        found: `${value} at index ${i} of ${vector.length}`,
        wanted: "finite numbers",
        next: "Extract the activation again; in half precision large models overflow, so use bf16 or f32.",
      });
    }
    squares += value * value;
  }
  if (scale === null) return Float32Array.from(vector);
  if (!(scale > 0 && Number.isFinite(scale))) {
    throw new NlaError({
      code: "injection.scale",
      subject: "injection scale",
      found: String(scale),
      wanted: "a positive number, or null for the vector's own length",
      next: "Set extraction.injection_scale in the sidecar; the 75th percentile of activation norms is a good value.",
    });
  }
  const norm = Math.fround(Math.sqrt(squares));
  const divisor = Math.fround(Math.max(norm, SMALLEST_NORM) / Math.fround(scale));
  if (!Number.isFinite(divisor) || divisor === 0) {
    throw new NlaError({
      code: "injection.norm",
      subject: "activation to inject",
      found: `a length of ${Math.sqrt(squares)}, to be scaled to ${scale}`,
      wanted: "a length and a scale whose ratio float32 can hold",
      next: "Check the extraction: activations of language models are far below 1e30.",
    });
  }
  return vector.map((value) => Math.fround(value / divisor));
}
