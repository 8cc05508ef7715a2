// The two ways in which a key-value cache lies in memory: grouped, as nlakit's own kernels read it (any type they know, no mask,
// one graph for all lengths), and plain, as ggml's attention takes it on every device (f32, with a mask, a graph per 32 slots).
import { ops } from "../tensor/index.js";
import type { Graph, HostArray, Tensor } from "../tensor/index.js";
import type { DecoderConfig } from "./decoder-config.js";
import type { Attend } from "./forward.js";

/** What of a cache a layout needs. */
export interface CacheTensors {
  readonly config: DecoderConfig;
  readonly rows: number;
  readonly slots: number;
  /** Of block k, [rows, kvHeads, slots, headDim]. */
  keys(k: number): Tensor;
  values(k: number): Tensor;
}

/** What a graph does with a cache, and the values of the inputs it declared for that. */
export interface CacheUse {
  /** Stores the tokens at hand, [rows · length, kvHeads, headDim], of block k. */
  store(k: number, key: Tensor, value: Tensor): void;
  inputs(positions: Int32Array): Record<string, HostArray>;
}

/** One of the two. */
export interface CacheLayout {
  readonly dtype: "f32" | "bf16";
  /** Whether a cache begins as zeros: what no token has written is masked, but where it is multiplied, NaN times 0 would be NaN. */
  readonly cleared: boolean;
  /** How many slots a graph covers that must reach `furthest` tokens. */
  covered(furthest: number, slots: number): number;
  /** Whole prompts of `length` tokens, from slot 0 on. */
  prompts(g: Graph, cache: CacheTensors, length: number): CacheUse;
  /** One token per row at `positions`, stored and then attended from over the first `used` slots. */
  step(
    g: Graph,
    cache: CacheTensors,
    positions: Tensor,
    used: number,
  ): CacheUse & { readonly attend: Attend; readonly takesParts?: boolean };
}

/** The first slot that a query at each position sees. */
function firstSeen(positions: Int32Array, window: number): Int32Array {
  return positions.map((position) => Math.max(0, position - window + 1));
}

/** Stores tokens of a block, `length` per row from the slots `at` on. */
function grouped(g: Graph, cache: CacheTensors, length: number, at: Tensor): CacheUse["store"] {
  const { kvHeads, headDim } = cache.config;
  // Parts of one tensor come split already: they are read as they lie.
  const split = (x: Tensor) =>
    x.shape.length === 4 ? x : ops.reshape(g, x, [cache.rows, length, kvHeads, headDim]);
  return (k, key, value) => {
    ops.storeTokens(g, cache.keys(k), split(key), at, "keys");
    ops.storeTokens(g, cache.values(k), split(value), at, "values");
  };
}

/** For devices with nlakit's own kernels. In bf16 the cache is read in half the time, and rounded as products in bf16 round. */
export function groupedLayout(dtype: "f32" | "bf16"): CacheLayout {
  return {
    dtype,
    cleared: false,
    covered: (_, slots) => slots,
    prompts(g, cache, length) {
      const at = g.input("slots", [cache.rows], "i32");
      return {
        store: grouped(g, cache, length, at),
        inputs: () => ({ slots: new Int32Array(cache.rows) }),
      };
    },
    step(g, cache, positions) {
      const { config, rows } = cache;
      const windows = new Set(config.windows.filter((window) => window !== null));
      const firsts = new Map([...windows].map((w) => [w, g.input(`first${w}`, [rows], "i32")]));
      return {
        store: grouped(g, cache, 1, positions),
        takesParts: true,
        attend(k, q, key, value, table) {
          const { attentionScale: scale, attentionSoftcap: softcap } = config;
          const first = firsts.get(config.windows[k] ?? 0) ?? null;
          return ops.cacheAttention(g, q, cache.keys(k), cache.values(k), positions, {
            scale,
            softcap,
            first,
            token: { key, value, table: table ?? null },
          });
        },
        inputs: (at) => Object.fromEntries([...windows].map((w) => [`first${w}`, firstSeen(at, w)])),
      };
    },
  };
}

const BYTES = 4; // f32: exact, and on CPUs faster than f16
// Attention covers slots in steps of this many, so that a graph serves several tokens and the fast kernels apply.
const SLOT_STEP = 32;
const F16_MINUS_INFINITY = 0xfc00;

/** The first `used` slots of a tensor, as a view: [rows, kvHeads, used, headDim]. */
function view(g: Graph, { config, rows, slots }: CacheTensors, tensor: Tensor, used: number): Tensor {
  const { kvHeads, headDim } = config;
  const row = headDim * BYTES;
  const strides = [row, row * slots, row * slots * kvHeads];
  const shape = [rows, kvHeads, used, headDim];
  return g.emit("view_4d", shape, "f32", tensor, headDim, used, kvHeads, rows, ...strides, 0);
}

/** For every device. */
export const plainLayout: CacheLayout = {
  dtype: "f32",
  cleared: true,
  covered: (furthest, slots) => Math.min(Math.ceil(furthest / SLOT_STEP) * SLOT_STEP, slots),
  prompts(g, cache, length) {
    const { kvHeads, headDim } = cache.config;
    const put = (tensor: Tensor, x: Tensor) => {
      const split = ops.reshape(g, x, [cache.rows, length, kvHeads, headDim]);
      const byHead = ops.permute(g, split, [0, 2, 1, 3]);
      g.expand(g.emit("cpy", byHead.shape, "f32", byHead, view(g, cache, tensor, length)));
    };
    return {
      store(k, key, value) {
        put(cache.keys(k), key);
        put(cache.values(k), value);
      },
      inputs: () => ({}),
    };
  },
  step(g, cache, _, used) {
    const { config, rows, slots } = cache;
    const { kvHeads, headDim } = config;
    const slotRows = g.input("slots", [rows * kvHeads], "i32");
    const windows = [...new Set(config.windows)];
    const masks = new Map(
      windows.map((window) => [window, g.input(`mask${window ?? ""}`, [rows, 1, 1, used], "f16")]),
    );
    const put = (tensor: Tensor, x: Tensor) => {
      const table = [rows * kvHeads * slots, headDim];
      g.boundIndices("storeToken", slotRows, table[0] as number);
      const flat = g.emit("reshape_4d", table, "f32", tensor, headDim, table[0] as number, 1, 1);
      const each = g.emit("reshape_4d", [rows * kvHeads, headDim], "f32", x, headDim, rows * kvHeads, 1, 1);
      g.expand(g.emit("set_rows", table, "f32", flat, each, slotRows));
    };
    const store = (k: number, key: Tensor, value: Tensor) => {
      put(cache.keys(k), key);
      put(cache.values(k), value);
    };
    return {
      store,
      attend(k, q, key, value) {
        store(k, key, value);
        const query = ops.reshape(g, q, [rows, 1, config.heads, headDim]);
        const [keys, values] = [view(g, cache, cache.keys(k), used), view(g, cache, cache.values(k), used)];
        const mixed = ops.cachedAttention(g, query, keys, values, {
          mask: masks.get(config.windows[k] ?? null) as Tensor,
          scale: config.attentionScale,
          softcap: config.attentionSoftcap,
        });
        return ops.reshape(g, mixed, [rows, config.heads * headDim]);
      },
      inputs(positions) {
        const inputs: Record<string, HostArray> = {
          // Where the tokens belong in the cache seen as rows of one head.
          slots: Int32Array.from(
            { length: rows * kvHeads },
            (_unused, i) => (positions[Math.floor(i / kvHeads)] as number) + slots * i,
          ),
        };
        for (const window of windows) {
          const mask = new Uint16Array(rows * used).fill(F16_MINUS_INFINITY);
          const from = window === null ? new Int32Array(rows) : firstSeen(positions, window);
          positions.forEach((position, row) => {
            mask.fill(0, row * used + (from[row] as number), row * used + position + 1);
          });
          inputs[`mask${window ?? ""}`] = mask;
        }
        return inputs;
      },
    };
  },
};
