// The threads that compute a CPU backend's graphs, kept from one graph to the next. Without a pool of its own ggml starts
// threads for every graph, and Linux may place a new one on the core of the thread that started it, where one spins while
// the other waits for its turn: generation, a graph per token, then ran no faster on two cores than on one.
import koffi from "koffi";
import type { Ggml, Pointer } from "./ggml.js";

// struct ggml_threadpool_params: bool cpumask[512]; int n_threads; int prio; uint32_t poll; bool strict_cpu; bool paused.
const PARAMS_BYTES = 1024; // twice its size
const AT_THREADS = 512;
const AT_POLL = 520;
const GGML_POLL = 50; // what ggml's defaults give: the layout is checked by it

// Rounds of 131,072 pauses that an idle thread spins before it sleeps: none. A round, which covers the choice of a token, made
// generation 3 % slower and took 4 % more processor time; ggml's default is fifty.
const POLL = 0;

const protos = new Map<string, ReturnType<typeof koffi.proto>>();

/**
 * Gives a CPU backend a pool of `threads`.
 *
 * @returns what frees the pool, to be called after the backend is freed; null where this ggml has no such pools, or lays out
 *   their settings in another way: it then starts threads for every graph
 */
export function keepThreads(
  ggml: Ggml,
  registry: Pointer,
  backend: Pointer,
  threads: number,
): (() => void) | null {
  const find = (name: string, signature: string) => {
    const address = ggml.ggml_backend_reg_get_proc_address(registry, name);
    if (address === null) return null;
    let proto = protos.get(name);
    if (!proto) protos.set(name, (proto = koffi.proto(signature)));
    return koffi.decode(address, proto) as (...values: unknown[]) => unknown;
  };
  const create = find("ggml_threadpool_new", "void* nlakit_threadpool_new(void* params)");
  const free = find("ggml_threadpool_free", "void nlakit_threadpool_free(void* pool)");
  const give = find(
    "ggml_backend_cpu_set_threadpool",
    "void nlakit_set_threadpool(void* backend, void* pool)",
  );
  if (!create || !free || !give) return null;
  const params = new Uint8Array(PARAMS_BYTES);
  const view = new DataView(params.buffer);
  ggml.threadpoolParams(params, threads);
  if (view.getInt32(AT_THREADS, true) !== threads || view.getUint32(AT_POLL, true) !== GGML_POLL) return null;
  view.setUint32(AT_POLL, POLL, true);
  const pool = create(params) as Pointer | null;
  if (pool === null) return null;
  give(backend, pool);
  return () => free(pool);
}
