// The native CPU kernels of nlakit (native/*.c), which run as custom ops inside ggml's graphs: finding the library, checking that
// it and ggml agree on the layout of a tensor, and choosing the instruction set. Without the library, or with NLA_KERNELS=off,
// there are none, and the layers above compose every op of ggml's own.
import koffi from "koffi";
import { messageOf, NlaError } from "../error.js";
import { GGML_TYPE } from "./dtype.js";
import type { Pointer } from "./ggml.js";
import { findKernels } from "./kernel-file.js";
import { tensorLayout } from "./kernel-layout.js";
import { loadLibrary } from "./library.js";

/** Instruction sets that there are kernels for, in the library's own numbering. */
export const KERNEL_LEVELS = ["portable", "avx2", "avx512", "avx512-bf16", "amx-bf16", "neon"] as const;
export type KernelLevel = (typeof KERNEL_LEVELS)[number];

/** The ops of the library. */
export type KernelName =
  | "matmul"
  | "held_matmul"
  | "pack"
  | "layout"
  | "rms_norm"
  | "rms_norm_back"
  | "sum_rows"
  | "stack_rows"
  | "gated"
  | "gated_back"
  | "gated_product"
  | "gated_product_back"
  | "rope_table"
  | "rope"
  | "soft_cap"
  | "soft_cap_back"
  | "cross_entropy"
  | "gather_back"
  | "attention"
  | "attention_back"
  | "attention_step"
  | "store"
  | "cache_attention"
  | "choose_token"
  | "adamw"
  | "accumulate";

/** One side of a product: element (row, column) is at `data[row * rowStride + column * columnStride]`. */
export interface DirectMatrix {
  readonly data: Float32Array | Uint16Array;
  readonly rowStride: number;
  readonly columnStride: number;
}

/** A product outside any graph, for tests and timing: c[m, n] = base + a[m, k] b[k, n]. */
export interface DirectProduct {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: DirectMatrix;
  readonly b: DirectMatrix;
  readonly c: Float32Array;
  readonly cStride: number;
  readonly base?: Float32Array | null;
  readonly bf16?: boolean;
  /** {@link Kernels.scratchBytes} + 64 bytes. */
  readonly scratch: Uint8Array;
}

/** The library, ready to use. */
export interface Kernels {
  readonly path: string;
  /** Highest level that this machine has. */
  readonly best: KernelLevel;
  /** Bytes of scratch that each thread needs. */
  readonly scratchBytes: number;
  /** The level in use. */
  readonly level: KernelLevel;
  /** Whether products in bf16 are computed in bf16: not where F32 is faster or there is nothing else. */
  readonly fastBf16: boolean;
  /** Uses another level. Graphs built before must not run again: what they pack has the size of their level. @throws NlaError `engine.kernels` */
  select(level: KernelLevel, fastBf16?: boolean): void;
  op(name: KernelName): Pointer;
  /** Bytes of a right operand [k, n] as the op "pack" leaves it at this level. */
  packedBytes(n: number, k: number, bf16: boolean): number;
  multiply(product: DirectProduct): void;
  /** Makes an f32 view one of twice as many bf16 in the same memory: [..., 2n] of [..., n]. */
  viewBf16(view: Pointer): void;
  /** The backend buffer that holds a tensor. */
  bufferOf(tensor: Pointer): Pointer | null;
  /** Asks the system for large pages under memory that was not touched yet. */
  largePages(start: Pointer, bytes: number): void;
}

/** What there is, for `nla doctor`. */
export interface KernelReport {
  /** Null: ggml's own kernels are used. */
  readonly level: KernelLevel | null;
  readonly best: KernelLevel | null;
  readonly fastBf16: boolean;
  readonly path: string | null;
  /** Why there are none, or null. */
  readonly reason: string | null;
  /** What to do about it, or null. */
  readonly next: string | null;
}

// What ggml keeps before a tensor in a context, an object header of 32 bytes: the rest of its overhead is the tensor.
const OBJECT_BYTES = 32;
const HOW_TO_BUILD =
  "Install a C compiler (on Debian and Ubuntu: apt-get install gcc) and run `npm run build:native` in nlakit's folder.";

interface State {
  readonly kernels: Kernels | null;
  readonly reason: string | null;
  readonly next: string | null;
}
let state: State | undefined;

/**
 * The kernels, or null where there are none; the same object every time.
 *
 * @throws NlaError `engine.kernels` where NLA_KERNELS names no level, or one that this machine has not
 */
export function loadKernels(): Kernels | null {
  return (state ??= open()).kernels;
}

/** Describes what {@link loadKernels} gives and why. */
export function describeKernels(): KernelReport {
  let kernels: Kernels | null;
  try {
    kernels = loadKernels();
  } catch (error) {
    const next = error instanceof NlaError ? error.next : HOW_TO_BUILD;
    return { level: null, best: null, fastBf16: false, path: null, reason: messageOf(error), next };
  }
  return {
    level: kernels?.level ?? null,
    best: kernels?.best ?? null,
    fastBf16: kernels?.fastBf16 ?? false,
    path: kernels?.path ?? null,
    reason: state?.reason ?? null,
    next: state?.next ?? null,
  };
}

function open(): State {
  const wanted = (process.env["NLA_KERNELS"] ?? "auto").toLowerCase();
  if (wanted === "off") {
    return { kernels: null, reason: "NLA_KERNELS=off", next: "Unset NLA_KERNELS to use them." };
  }
  const known = wanted === "auto" || wanted === "on" || KERNEL_LEVELS.some((level) => level === wanted);
  if (!known) {
    throw new NlaError({
      code: "engine.kernels",
      subject: "the environment variable NLA_KERNELS",
      found: wanted,
      wanted: `auto, off or one of ${KERNEL_LEVELS.join(", ")}`,
      next: "Correct it, or unset it.",
    });
  }
  const found = findKernels();
  if (found.file === null) {
    return { kernels: null, reason: `no library: ${found.reason}`, next: HOW_TO_BUILD };
  }
  const { file } = found;
  let kernels: Bound;
  try {
    kernels = bind(file);
  } catch (error) {
    return { kernels: null, reason: `${file} does not load: ${messageOf(error)}`, next: HOW_TO_BUILD };
  }
  const { ggml, version } = loadLibrary();
  const bytes = Number(ggml.ggml_tensor_overhead()) - OBJECT_BYTES;
  if (bytes !== kernels.tensorBytes) {
    const reason = `ggml ${version} has tensors of ${bytes} bytes, the kernels are made for ${kernels.tensorBytes}`;
    return {
      kernels: null,
      reason,
      next: "Reinstall nlakit with `npm ci`, which installs matching versions.",
    };
  }
  const wrong = tensorLayout(ggml, kernels.op("layout"));
  if (wrong !== null) {
    return {
      kernels: null,
      reason: `the self-test failed: ${wrong}`,
      next: "Report this with the output of `nla doctor --json`.",
    };
  }
  const forced = KERNEL_LEVELS.find((level) => level === wanted);
  const level = forced ?? kernels.best;
  if (forced === undefined && level === "portable") {
    const reason = "this processor has neither AVX2 nor NEON, and ggml's own kernels are faster there";
    return { kernels: null, reason, next: null };
  }
  kernels.select(level, level === "amx-bf16");
  if (level === "avx512-bf16") kernels.select(level, bf16IsFaster(kernels));
  return { kernels, reason: null, next: null };
}

interface Bound extends Kernels {
  readonly tensorBytes: number;
}

function bind(file: string): Bound {
  const library = koffi.load(file);
  const detect = library.func("nk_detect", "int", []) as () => number;
  const choose = library.func("nk_select", "int", ["int", "int"]) as (level: number, fast: number) => number;
  const find = library.func("nk_op", "void*", ["str"]) as (name: string) => Pointer | null;
  const tensorBytes = library.func("nk_tensor_bytes", "int64_t", []) as () => number | bigint;
  const packedBytes = library.func("nk_packed_bytes", "int64_t", ["int", "int64_t", "int64_t"]) as (
    bf16: number,
    n: number,
    k: number,
  ) => number | bigint;
  const scratchBytes = library.func("nk_scratch_bytes", "int64_t", []) as () => number | bigint;
  const pages = library.func("nk_large_pages", "int", ["void*", "int64_t"]) as (
    p: Pointer,
    n: number,
  ) => number;
  const viewBf16 = library.func("nk_view_bf16", "void", ["void*"]) as (view: Pointer) => void;
  const buffer = library.func("nk_buffer_of", "void*", ["void*"]) as (tensor: Pointer) => Pointer | null;
  const matrix = ["void*", "int64_t", "int64_t", "int"];
  const target = ["void*", "int64_t", "void*", "int64_t", "void*"];
  const gemm = library.func("nk_gemm", "void", [
    "int",
    "int64_t",
    "int64_t",
    "int64_t",
    ...matrix,
    ...matrix,
    ...target,
  ]);
  const best = KERNEL_LEVELS[detect()] ?? "portable";
  let level: KernelLevel = best;
  let fast = false;
  const found = new Map<string, Pointer>();
  return {
    path: file,
    best,
    scratchBytes: Number(scratchBytes()),
    tensorBytes: Number(tensorBytes()),
    get level() {
      return level;
    },
    get fastBf16() {
      return fast;
    },
    select(next, fastBf16 = true) {
      if (choose(KERNEL_LEVELS.indexOf(next), fastBf16 ? 1 : 0) === 0) {
        throw new NlaError({
          code: "engine.kernels",
          subject: `the kernels for ${next}`,
          found: `a processor whose best level is ${best}`,
          wanted: "one that has these instructions",
          next: "Unset NLA_KERNELS, or name a lower level.",
        });
      }
      level = next;
      fast = fastBf16 && (next === "avx512-bf16" || next === "amx-bf16");
      found.clear();
    },
    op(name) {
      let address = found.get(name) ?? null;
      if (address === null) {
        address = find(name);
        if (address === null) {
          throw new NlaError({
            code: "engine.kernels",
            subject: file,
            found: `no op ${name}`,
            wanted: "the library of this version of nlakit",
            next: "Run `npm run build:native` in nlakit's folder.",
          });
        }
        found.set(name, address);
      }
      return address;
    },
    packedBytes: (n, k, bf16) => Number(packedBytes(bf16 ? 1 : 0, n, k)),
    multiply({ m, n, k, a, b, c, cStride, base = null, bf16 = false, scratch }) {
      gemm(bf16 ? 1 : 0, m, n, k, ...sideOf(a), ...sideOf(b), c, cStride, base, cStride, scratch);
    },
    viewBf16,
    bufferOf: buffer,
    largePages: (start, bytes) => void pages(start, bytes),
  };
}

function sideOf({ data, rowStride, columnStride }: DirectMatrix) {
  return [data, rowStride, columnStride, data instanceof Float32Array ? GGML_TYPE.f32 : GGML_TYPE.bf16];
}

// One product that a training step has, small enough to take a fraction of a millisecond.
const [M, N, K] = [112, 288, 288];
const ROUNDS = 5;

/** AVX512_BF16 is slower than F32 on some processors: timed, about a millisecond, best of five each. */
function bf16IsFaster(kernels: Kernels): boolean {
  const [a, b, c] = [M * K, N * K, M * N].map((size) => new Float32Array(size).fill(1)) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const scratch = new Uint8Array(kernels.scratchBytes + 64);
  const best = (bf16: boolean) => {
    let least = Infinity;
    for (let i = 0; i < ROUNDS; i++) {
      const started = performance.now();
      const [left, right] = [
        { data: a, rowStride: K, columnStride: 1 },
        { data: b, rowStride: 1, columnStride: K },
      ];
      kernels.multiply({ m: M, n: N, k: K, a: left, b: right, c, cStride: N, bf16, scratch });
      least = Math.min(least, performance.now() - started);
    }
    return least;
  };
  kernels.select("avx512-bf16", true);
  return best(true) < best(false);
}
