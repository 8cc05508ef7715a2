// The binding table: every ggml function that nlakit calls, its signature in one short string, and the loader that turns
// the table into typed functions. Functions are bound by name; no struct of ggml is laid out here but `ggml_init_params`.
//
// A signature reads "arguments>result", one letter each:
//   p pointer   i int   l int64_t   z size_t   f float   b bool   s C string   y uint8_t   v void
import koffi from "koffi";
import type { LibraryHandle } from "koffi";

/** A native address, opaque outside `engine/`. */
export type Pointer = bigint & { readonly __pointer: unique symbol };

interface ArgumentTypes {
  p: Pointer | null;
  i: number;
  l: number;
  z: number;
  f: number;
  b: boolean;
  s: string | null;
  y: number;
}
interface ResultTypes {
  p: Pointer | null;
  i: number;
  l: number | bigint;
  z: number | bigint;
  f: number;
  b: boolean;
  s: string;
  v: void;
}
type Arguments<S extends string> = S extends `${infer C}${infer Rest}`
  ? C extends keyof ArgumentTypes
    ? [ArgumentTypes[C], ...Arguments<Rest>]
    : never
  : [];
type Signature<S extends string> = S extends `${infer A}>${infer R}`
  ? R extends keyof ResultTypes
    ? (...values: Arguments<A>) => ResultTypes[R]
    : never
  : never;

const KOFFI_TYPES: Record<string, string> = {
  p: "void*",
  i: "int",
  l: "int64_t",
  z: "size_t",
  f: "float",
  b: "bool",
  s: "str",
  y: "uint8_t",
  v: "void",
};

/** Functions of libggml-base that build a node of a graph: the first argument is always the context. */
export const OP_SIGNATURES = {
  add: "ppp>p",
  sub: "ppp>p",
  mul: "ppp>p",
  div: "ppp>p",
  add_inplace: "ppp>p",
  mul_mat: "ppp>p",
  get_rows: "ppp>p",
  get_rows_back: "pppp>p",
  set_rows: "pppp>p",
  repeat: "ppp>p",
  repeat_4d: "ppllll>p",
  repeat_back: "ppp>p",
  cpy: "ppp>p",
  concat: "pppi>p",
  sqr: "pp>p",
  sqrt: "pp>p",
  log: "pp>p",
  exp: "pp>p",
  neg: "pp>p",
  step: "pp>p",
  relu: "pp>p",
  tanh: "pp>p",
  sigmoid: "pp>p",
  silu: "pp>p",
  silu_back: "ppp>p",
  swiglu_split: "ppp>p",
  sum: "pp>p",
  sum_rows: "pp>p",
  cumsum: "pp>p",
  argmax: "pp>p",
  cont: "pp>p",
  cast: "ppi>p",
  scale: "ppf>p",
  scale_bias: "ppff>p",
  clamp: "ppff>p",
  rms_norm: "ppf>p",
  rms_norm_back: "pppf>p",
  soft_max: "pp>p",
  soft_max_ext: "pppff>p",
  soft_max_ext_back_inplace: "pppff>p",
  rope_ext: "ppppiiiffffff>p",
  rope_ext_back: "ppppiiiffffff>p",
  flash_attn_ext: "pppppfff>p",
  opt_step_adamw: "pppppp>p",
  reshape_4d: "ppllll>p",
  permute: "ppiiii>p",
  transpose: "pp>p",
  view_4d: "ppllllzzzz>p",
} as const;

/** The other functions of libggml-base: contexts, graphs, buffers, backends. */
const BASE_SIGNATURES = {
  ggml_version: ">s",
  ggml_commit: ">s",
  ggml_free: "p>v",
  ggml_tensor_overhead: ">z",
  ggml_graph_overhead_custom: "zb>z",
  ggml_new_tensor_4d: "pillll>p",
  ggml_set_input: "p>v",
  ggml_set_output: "p>v",
  ggml_set_param: "p>v",
  ggml_set_name: "ps>p",
  ggml_op_desc: "p>s",
  ggml_nelements: "p>l",
  ggml_custom_4d: "pillllpipip>p",
  ggml_custom_inplace: "pppipip>p",
  ggml_nbytes: "p>z",
  ggml_get_data: "p>p",
  ggml_backend_cpu_buffer_from_ptr: "pz>p",
  ggml_backend_tensor_alloc: "ppp>i",
  ggml_backend_buft_is_host: "p>b",
  ggml_new_graph_custom: "pzb>p",
  ggml_build_forward_expand: "pp>v",
  ggml_graph_n_nodes: "p>i",
  ggml_graph_node: "pi>p",
  ggml_graph_clear: "p>v",
  ggml_graph_add_node: "pp>v",
  ggml_log_set: "pp>v",
  ggml_backend_tensor_memset: "pyzz>v",
  ggml_backend_alloc_ctx_tensors: "pp>p",
  ggml_backend_graph_compute: "pp>i",
  ggml_backend_free: "p>v",
  ggml_backend_buffer_free: "p>v",
  ggml_backend_buffer_get_size: "p>z",
  ggml_backend_buffer_get_base: "p>p",
  ggml_backend_get_default_buffer_type: "p>p",
  ggml_backend_dev_name: "p>s",
  ggml_backend_dev_description: "p>s",
  ggml_backend_dev_type: "p>i",
  ggml_backend_dev_init: "ps>p",
  ggml_backend_dev_backend_reg: "p>p",
  ggml_backend_dev_supports_op: "pp>b",
  ggml_backend_reg_name: "p>s",
  ggml_backend_reg_get_proc_address: "ps>p",
  ggml_gallocr_new: "p>p",
  ggml_gallocr_free: "p>v",
  ggml_gallocr_reserve: "pp>b",
  ggml_gallocr_alloc_graph: "pp>b",
  ggml_gallocr_get_buffer_size: "pi>z",
} as const;

/** Functions of libggml itself: the registry of backends. */
const REGISTRY_SIGNATURES = {
  ggml_backend_load_all_from_path: "s>v",
  ggml_backend_dev_count: ">z",
  ggml_backend_dev_get: "z>p",
} as const;

type Functions<T extends Record<string, string>> = { readonly [K in keyof T]: Signature<T[K]> };

/** The functions that build a node, by their ggml name without prefix. */
export type OpName = keyof typeof OP_SIGNATURES;

/** A function that koffi can also run on a worker thread. */
type Asynchronous<F extends (...values: never[]) => unknown> = F & {
  async: (...values: [...Parameters<F>, (error: unknown, result: ReturnType<F>) => void]) => void;
};

/** All bound functions. `ops` take the context first; the rest keep their full C names. */
export interface Ggml extends Functions<typeof BASE_SIGNATURES>, Functions<typeof REGISTRY_SIGNATURES> {
  readonly ops: Functions<typeof OP_SIGNATURES>;
  readonly ggml_backend_graph_compute: Asynchronous<Signature<"pp>i">>;
  /** Opens a context for `bytes` of tensor metadata; tensor data is allocated elsewhere. */
  readonly init: (bytes: number) => Pointer;
  readonly tensorSet: (tensor: Pointer, data: ArrayBufferView, offset: number, bytes: number) => void;
  readonly tensorGet: (tensor: Pointer, into: ArrayBufferView, offset: number, bytes: number) => void;
  /** Bytes that a device has, free and in all, as it says itself; a CPU may say 0. */
  readonly deviceMemory: (device: Pointer) => { free: number; total: number };
  /** Quantizes rows of f32 into blocks; the caller has checked the sizes. Gives the bytes written. */
  readonly quantize: (
    type: number,
    from: Float32Array,
    into: Uint8Array,
    rows: number,
    width: number,
  ) => number;
  /** Bytes that an allocator would take for a graph, without taking them. */
  readonly plannedBytes: (allocator: Pointer, graph: Pointer) => number;
  /** Fills ggml's default settings of a thread pool into memory; threadpool.ts knows their layout. */
  readonly threadpoolParams: (into: Uint8Array, threads: number) => void;
}

function bindTable<T extends Record<string, string>>(
  library: LibraryHandle,
  table: T,
  prefix = "",
): Functions<T> {
  const bound: Record<string, unknown> = {};
  for (const [name, signature] of Object.entries(table)) {
    const [inputs = "", output = "v"] = signature.split(">");
    const types = [...inputs].map((letter) => KOFFI_TYPES[letter] as string);
    bound[name] = library.func(prefix + name, KOFFI_TYPES[output] as string, types);
  }
  return bound as Functions<T>;
}

let initParams: ReturnType<typeof koffi.struct> | undefined;

/**
 * Binds every function of the table.
 *
 * @param base path of libggml-base
 * @param registry path of libggml
 * @throws koffi's error, naming the symbol, where a library lacks one
 */
export function bindGgml(base: string, registry: string): Ggml {
  // Global: the backends that libggml loads later resolve their symbols against these two.
  const baseLibrary = koffi.load(base, { global: true });
  const registryLibrary = koffi.load(registry, { global: true });
  initParams ??= koffi.struct("ggml_init_params", {
    mem_size: "size_t",
    mem_buffer: "void*",
    no_alloc: "bool",
  });
  const rawInit = baseLibrary.func("ggml_init", "void*", [initParams]);
  const get = baseLibrary.func("ggml_backend_tensor_get", "void", [
    "void*",
    koffi.out(koffi.pointer("void")),
    "size_t",
    "size_t",
  ]);
  const set = baseLibrary.func("ggml_backend_tensor_set", "void", ["void*", "void*", "size_t", "size_t"]);
  const outSize = koffi.out(koffi.pointer("size_t"));
  const memory = baseLibrary.func("ggml_backend_dev_memory", "void", ["void*", outSize, outSize]);
  const plan = baseLibrary.func("ggml_gallocr_reserve_n_size", "void", [
    "void*",
    "void*",
    "void*",
    "void*",
    outSize,
  ]);
  const quantize = baseLibrary.func("ggml_quantize_chunk", "size_t", [
    "int",
    "void*",
    koffi.out(koffi.pointer("void")),
    "int64_t",
    "int64_t",
    "int64_t",
    "void*",
  ]);
  const defaults = baseLibrary.func("ggml_threadpool_params_init", "void", [
    koffi.out(koffi.pointer("void")),
    "int",
  ]);
  return {
    ...bindTable(baseLibrary, BASE_SIGNATURES),
    ...bindTable(registryLibrary, REGISTRY_SIGNATURES),
    ops: bindTable(baseLibrary, OP_SIGNATURES, "ggml_"),
    init: (bytes: number) => rawInit({ mem_size: bytes, mem_buffer: null, no_alloc: true }) as Pointer,
    tensorSet: (tensor: Pointer, data: ArrayBufferView, offset: number, bytes: number) =>
      set(tensor, data, offset, bytes),
    tensorGet: (tensor: Pointer, into: ArrayBufferView, offset: number, bytes: number) =>
      get(tensor, into, offset, bytes),
    quantize: (type: number, from: Float32Array, into: Uint8Array, rows: number, width: number) =>
      Number(quantize(type, from, into, 0, rows, width, null)),
    threadpoolParams: (into: Uint8Array, threads: number) => defaults(into, threads),
    deviceMemory: (device: Pointer) => {
      const [free, total] = [[0], [0]];
      memory(device, free, total);
      return { free: Number(free[0]), total: Number(total[0]) };
    },
    plannedBytes: (allocator: Pointer, graph: Pointer) => {
      const bytes = [0];
      plan(allocator, graph, null, null, bytes);
      return Number(bytes[0]);
    },
  } as Ggml;
}
