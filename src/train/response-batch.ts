// Micro-batches for the verbalizer: its prompt, then a response, with the activation at its site and targets and weights for
// the response's tokens only. Warm start and reinforcement learning both read these.
import { declareBatch, finalNorm, forward, headOf, injectionValues, padBatch } from "../model/index.js";
import type { Batch, DeclaredBatch } from "../model/index.js";
import { ops } from "../tensor/index.js";
import type { Graph, HostArray, Tensor } from "../tensor/index.js";
import type { Verbalizer } from "../nla/verbalizer.js";

/** One response to one activation. */
export interface ResponseRow {
  /** Raw activation [dim]. */
  readonly vector: Float32Array;
  /** Token ids of the response, its end included. */
  readonly response: readonly number[];
}

/** A padded micro-batch; `slots` is how many response tokens each row has room for. */
export interface ResponseBatch<Row extends ResponseRow = ResponseRow> {
  readonly rows: readonly Row[];
  readonly batch: Batch;
  readonly slots: number;
}

// Lengths in steps of this many, so that a few compiled graphs serve all micro-batches.
const LENGTH_STEP = 8;

/** Splits rows into micro-batches, rows of like length together, so that little is padding. */
export function responseBatches<Row extends ResponseRow>(
  verbalizer: Verbalizer,
  rows: readonly Row[],
  microBatch: number,
): ResponseBatch<Row>[] {
  const prompt = verbalizer.prompt.ids;
  const sorted = rows
    .map((row, i) => ({ row, i }))
    .sort((a, b) => a.row.response.length - b.row.response.length || a.i - b.i);
  const batches: ResponseBatch<Row>[] = [];
  for (let start = 0; start < sorted.length; start += microBatch) {
    const part = sorted.slice(start, start + microBatch).map(({ row }) => row);
    const batch = padBatch(
      part.map(({ response }) => [...prompt, ...response]),
      { multiple: LENGTH_STEP, maxLength: verbalizer.model.config.contextLength },
    );
    batches.push({ rows: part, batch, slots: batch.length - prompt.length });
  }
  return batches;
}

/** The key under which micro-batches share a graph. */
export function responseShape({ batch }: ResponseBatch): string {
  return `${batch.rows}x${batch.length}`;
}

/** A micro-batch in a graph: the state before each response token, and what the tokens are. */
export interface DeclaredResponses {
  readonly declared: DeclaredBatch;
  /** States that predict the response's tokens, [rows · slots, dim]. */
  readonly hidden: Tensor;
  /** i32 [rows · slots] */
  readonly targets: Tensor;
  /** The output matrix. */
  readonly head: Tensor;
  values(batch: ResponseBatch): Record<string, HostArray>;
}

/** Declares a micro-batch. Only the states before response tokens go through the head: prompts are not trained on. */
export function declareResponses(g: Graph, verbalizer: Verbalizer, like: ResponseBatch): DeclaredResponses {
  const { model, prompt } = verbalizer;
  const { rows, length } = like.batch;
  const declared = declareBatch(g, like.batch);
  const vectors = g.input("injected", [rows, model.config.dim]);
  const at = g.input("injectedAt", [rows], "i32");
  const { blocks } = forward(g, model, declared, {
    inject: { vectors, at, after: verbalizer.injectedAfter },
  });
  const before = g.input("before", [rows * like.slots], "i32");
  const states = ops.gatherRows(g, blocks.at(-1) as Tensor, before);
  const targets = g.input("targets", [rows * like.slots], "i32");
  return {
    declared,
    hidden: finalNorm(g, model, states),
    targets,
    head: headOf(model),
    values(batch) {
      const injections = batch.rows.map(({ vector }, row) => verbalizer.injection(vector, row));
      const positions = Int32Array.from({ length: rows * like.slots }, (_, i) => {
        return Math.floor(i / like.slots) * length + prompt.ids.length - 1 + (i % like.slots);
      });
      return {
        ...declared.values(batch.batch),
        ...injectionValues(injections, batch.batch, model.config.dim),
        before: positions,
        targets: Int32Array.from(perToken(batch, (row, i) => row.response[i] as number)),
      };
    },
  };
}

/** One number per response slot: `of(row, i)` for token i of a row's response, 0 where a row has no such token. */
export function perToken<Row extends ResponseRow>(
  { rows, slots }: ResponseBatch<Row>,
  of: (row: Row, i: number) => number,
): Float32Array {
  const values = new Float32Array(rows.length * slots);
  rows.forEach((row, r) => {
    for (let i = 0; i < row.response.length; i++) values[r * slots + i] = of(row, i);
  });
  return values;
}
