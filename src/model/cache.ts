// The key-value cache of generation: for every block, keys and values of [rows, kvHeads, slots, headDim], with the two ways
// in (a whole prompt, one token per row) and the one way to another set of rows.
import { setImmediate } from "node:timers/promises";
import { Arena, Graph } from "../tensor/index.js";
import type { Tensor } from "../tensor/index.js";
import type { DecoderConfig } from "./decoder-config.js";
import type { Decoder } from "./decoder.js";

const BYTES = 4; // f32: exact, and on CPUs faster than f16

/** Keys and values of a batch of sequences. */
export class KvCache implements Disposable {
  readonly rows: number;
  readonly slots: number;
  readonly #config: DecoderConfig;
  readonly #blocks: readonly Arena[];
  readonly #model: Decoder;

  private constructor(model: Decoder, rows: number, slots: number, blocks: readonly Arena[]) {
    this.#model = model;
    this.#config = model.config;
    this.rows = rows;
    this.slots = slots;
    this.#blocks = blocks;
  }

  /**
   * An empty cache, all zeros: what no token has written is masked, but NaN times 0 would still be NaN.
   *
   * @throws NlaError `engine.memory`; what was allocated is freed again
   */
  static async create(model: Decoder, rows: number, slots: number): Promise<KvCache> {
    const { layers, kvHeads, headDim } = model.config;
    const shape = [rows, kvHeads, slots, headDim];
    const blocks: Arena[] = [];
    try {
      for (let k = 0; k < layers; k++) {
        // Block by block, because filling a large cache with zeros holds the event loop.
        if (k > 0) await setImmediate();
        blocks.push(
          new Arena(model.device, `key-value cache of block ${k}`, { keys: { shape }, values: { shape } }),
        );
      }
    } catch (thrown) {
      for (const block of blocks) block[Symbol.dispose]();
      throw thrown;
    }
    return new KvCache(model, rows, slots, blocks);
  }

  keys(k: number): Tensor {
    return (this.#blocks[k] as Arena).get("keys");
  }

  values(k: number): Tensor {
    return (this.#blocks[k] as Arena).get("values");
  }

  /** The first `used` slots of a tensor of this cache, as a view: [rows, kvHeads, used, headDim]. */
  view(g: Graph, tensor: Tensor, used: number): Tensor {
    const { kvHeads, headDim } = this.#config;
    const row = headDim * BYTES;
    const strides = [row, row * this.slots, row * this.slots * kvHeads];
    const shape = [this.rows, kvHeads, used, headDim];
    return g.emit("view_4d", shape, "f32", tensor, headDim, used, kvHeads, this.rows, ...strides, 0);
  }

  /** Stores the first `length` slots of every row. x [rows, kvHeads, length, headDim]. */
  storePrompt(g: Graph, tensor: Tensor, x: Tensor): void {
    g.expand(g.emit("cpy", x.shape, "f32", x, this.view(g, tensor, x.shape[2] as number)));
  }

  /**
   * Stores one token per row. x [rows, kvHeads, headDim]; `slotRows` i32 [rows · kvHeads] as {@link KvCache.slotRows} gives.
   */
  storeToken(g: Graph, tensor: Tensor, x: Tensor, slotRows: Tensor): void {
    const { kvHeads, headDim } = this.#config;
    const table = [this.rows * kvHeads * this.slots, headDim];
    g.boundIndices("storeToken", slotRows, table[0] as number);
    const flat = g.emit("reshape_4d", table, "f32", tensor, headDim, table[0] as number, 1, 1);
    const rows = g.emit(
      "reshape_4d",
      [this.rows * kvHeads, headDim],
      "f32",
      x,
      headDim,
      this.rows * kvHeads,
      1,
      1,
    );
    g.expand(g.emit("set_rows", table, "f32", flat, rows, slotRows));
  }

  /** Where the tokens at `positions` (one per row) belong in the cache seen as rows of one head. */
  slotRows(positions: ArrayLike<number>): Int32Array {
    const { kvHeads } = this.#config;
    return Int32Array.from(
      { length: this.rows * kvHeads },
      (_, i) => (positions[Math.floor(i / kvHeads)] as number) + this.slots * i,
    );
  }

  /**
   * A cache with other rows: `source[i]` is the row of this one that becomes row i. Rows may repeat (several samples of one
   * prompt) or be left out (sequences that have ended).
   */
  async select(source: readonly number[], signal?: AbortSignal): Promise<KvCache> {
    const selected = await KvCache.create(this.#model, source.length, this.slots);
    try {
      using g = new Graph(this.#model.device, { recording: false });
      const ids = g.input("source", [source.length], "i32");
      g.boundIndices("select", ids, this.rows);
      const { kvHeads, headDim, layers } = this.#config;
      const width = kvHeads * this.slots * headDim;
      for (let k = 0; k < layers; k++) {
        for (const [from, to] of [
          [this.keys(k), selected.keys(k)],
          [this.values(k), selected.values(k)],
        ] as const) {
          const flat = g.emit("reshape_4d", [this.rows, width], "f32", from, width, this.rows, 1, 1);
          const picked = g.emit("get_rows", [source.length, width], "f32", flat, ids);
          const target = g.emit("reshape_4d", [source.length, width], "f32", to, width, source.length, 1, 1);
          g.expand(g.emit("cpy", [source.length, width], "f32", picked, target));
        }
      }
      await g.run({ source: Int32Array.from(source) }, signal);
      return selected;
    } catch (thrown) {
      selected[Symbol.dispose]();
      throw thrown;
    }
  }

  [Symbol.dispose](): void {
    for (const block of this.#blocks) block[Symbol.dispose]();
  }
}
