// The key-value cache of generation: for every block, keys and values of [rows, kvHeads, slots, headDim], and the one way to another
// set of rows. How the numbers lie, go in and are read is its layout's (cache-layout.ts).
import { setImmediate } from "node:timers/promises";
import { Arena, Graph, ops } from "../tensor/index.js";
import type { Tensor } from "../tensor/index.js";
import { groupedLayout, plainLayout } from "./cache-layout.js";
import type { CacheLayout, CacheTensors } from "./cache-layout.js";
import type { DecoderConfig } from "./decoder-config.js";
import type { Decoder } from "./decoder.js";

/** Keys and values of a batch of sequences. */
export class KvCache implements CacheTensors, Disposable {
  readonly config: DecoderConfig;
  readonly rows: number;
  readonly slots: number;
  readonly layout: CacheLayout;
  readonly #arenas: readonly Arena[];
  readonly #model: Decoder;

  private constructor(
    model: Decoder,
    rows: number,
    slots: number,
    layout: CacheLayout,
    arenas: readonly Arena[],
  ) {
    this.#model = model;
    this.config = model.config;
    this.rows = rows;
    this.slots = slots;
    this.layout = layout;
    this.#arenas = arenas;
  }

  /**
   * An empty cache.
   *
   * @param slots at least so many tokens per row
   * @param compute the type of the products around it; bf16 keeps bf16 where nlakit's own kernels read it
   * @throws NlaError `engine.memory`; what was allocated is freed again
   */
  static create(model: Decoder, rows: number, slots: number, compute: "f32" | "bf16"): Promise<KvCache> {
    const layout = model.device.kernels === null ? plainLayout : groupedLayout(compute);
    return KvCache.#allocate(model, rows, Math.ceil(slots / ops.SLOT_GROUP) * ops.SLOT_GROUP, layout);
  }

  static async #allocate(model: Decoder, rows: number, slots: number, layout: CacheLayout): Promise<KvCache> {
    const { layers, kvHeads, headDim } = model.config;
    const { dtype } = layout;
    const spec = { shape: [rows, kvHeads, slots, headDim], dtype };
    const of = (k: number) => [`keys ${k}`, `values ${k}`].map((name) => [name, spec] as const);
    const all = Array.from({ length: layers }, (_, k) => of(k));
    const arenas: Arena[] = [];
    try {
      // In one piece, which has most large pages. But zeros are filled in block by block, because that holds the event loop.
      for (const specs of layout.cleared ? all : [all.flat()]) {
        if (arenas.length > 0) await setImmediate();
        const { cleared } = layout;
        arenas.push(new Arena(model.device, "key-value cache", Object.fromEntries(specs), { cleared }));
      }
    } catch (thrown) {
      for (const arena of arenas) arena[Symbol.dispose]();
      throw thrown;
    }
    return new KvCache(model, rows, slots, layout, arenas);
  }

  keys(k: number): Tensor {
    return this.#get(k, `keys ${k}`);
  }

  values(k: number): Tensor {
    return this.#get(k, `values ${k}`);
  }

  #get(k: number, name: string): Tensor {
    return (this.#arenas[this.#arenas.length > 1 ? k : 0] as Arena).get(name);
  }

  /**
   * A cache with other rows: `source[i]` is the row of this one that becomes row i. Rows may repeat (several samples of one
   * prompt) or be left out (sequences that have ended).
   */
  async select(source: readonly number[], signal?: AbortSignal): Promise<KvCache> {
    const { layout, rows, slots } = this;
    const selected = await KvCache.#allocate(this.#model, source.length, slots, layout);
    try {
      using g = new Graph(this.#model.device, { recording: false });
      const ids = g.input("source", [source.length], "i32");
      g.boundIndices("select", ids, rows);
      const { kvHeads, headDim, layers } = this.config;
      const width = kvHeads * slots * headDim;
      const { dtype } = layout;
      for (let k = 0; k < layers; k++) {
        for (const [from, to] of [
          [this.keys(k), selected.keys(k)],
          [this.values(k), selected.values(k)],
        ] as const) {
          const flat = g.emit("reshape_4d", [rows, width], dtype, from, width, rows, 1, 1);
          const picked = g.emit("get_rows", [source.length, width], "f32", flat, ids);
          const target = g.emit("reshape_4d", [source.length, width], dtype, to, width, source.length, 1, 1);
          g.expand(g.emit("cpy", [source.length, width], dtype, picked, target));
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
    for (const arena of this.#arenas) arena[Symbol.dispose]();
  }
}

/**
 * Copies rows of one cache into rows of another with as many slots and the same layout: row `from[i]` of `source` becomes row `to[i]` of
 * `target`.
 */
export async function copyRows(
  model: Decoder,
  source: KvCache,
  from: readonly number[],
  target: KvCache,
  to: readonly number[],
): Promise<void> {
  const { kvHeads, headDim, layers } = model.config;
  const width = kvHeads * source.slots * headDim;
  const { dtype } = target.layout;
  using g = new Graph(model.device, { recording: false });
  const picked = g.input("from", [from.length], "i32");
  const placed = g.input("to", [to.length], "i32");
  g.boundIndices("copyRows", picked, source.rows);
  g.boundIndices("copyRows", placed, target.rows);
  for (let k = 0; k < layers; k++) {
    for (const [a, b] of [
      [source.keys(k), target.keys(k)],
      [source.values(k), target.values(k)],
    ] as const) {
      const flat = g.emit("reshape_4d", [source.rows, width], dtype, a, width, source.rows, 1, 1);
      const rows = g.emit("get_rows", [from.length, width], "f32", flat, picked);
      const into = g.emit("reshape_4d", [target.rows, width], dtype, b, width, target.rows, 1, 1);
      g.expand(g.emit("set_rows", [target.rows, width], dtype, into, rows, placed));
    }
  }
  await g.run({ from: Int32Array.from(from), to: Int32Array.from(to) });
}
