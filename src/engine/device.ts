// A device is one ggml backend that is open: it computes graphs, one at a time, off the event loop.
import koffi from "koffi";
import { availableParallelism, totalmem } from "node:os";
import { NlaError } from "../error.js";
import type { Pointer } from "./ggml.js";
import { loadKernels } from "./kernels.js";
import type { Kernels } from "./kernels.js";
import { loadLibrary } from "./library.js";
import type { GgmlLibrary } from "./library.js";
import { NativeMemory } from "./memory.js";
import { SpareBuffers } from "./spare-buffers.js";
import type { OpProfile } from "./profile.js";
import { keepThreads } from "./threadpool.js";

/** What kind of hardware a device is. */
export type DeviceKind = "cpu" | "gpu" | "integrated-gpu" | "accelerator" | "other";

/** A device that ggml can see. */
export interface DeviceInfo {
  readonly index: number;
  readonly name: string;
  readonly description: string;
  readonly kind: DeviceKind;
  /** Memory that it has in all, or null where neither it nor the system says. */
  readonly memoryBytes: number | null;
}

const KINDS: readonly DeviceKind[] = ["cpu", "gpu", "integrated-gpu", "accelerator"];

// More threads than this have never been run, and a typo such as 20000 would exhaust the process.
const MAX_THREADS = 512;

/** Every device that ggml can see, in its order. */
export function listDevices(): DeviceInfo[] {
  const { ggml } = loadLibrary();
  return Array.from({ length: Number(ggml.ggml_backend_dev_count()) }, (_, index) => {
    const device = ggml.ggml_backend_dev_get(index) as Pointer;
    const kind = KINDS[ggml.ggml_backend_dev_type(device)] ?? "other";
    const { total } = ggml.deviceMemory(device);
    return {
      index,
      name: ggml.ggml_backend_dev_name(device),
      description: ggml.ggml_backend_dev_description(device),
      kind,
      memoryBytes: (kind === "cpu" ? hostMemory() : total) || null,
    };
  });
}

/** What this process may use of the machine's memory: containers get less than the machine has. */
function hostMemory(): number {
  const limit = process.constrainedMemory?.() ?? 0;
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}

/** Options of {@link Device.open}. */
export interface DeviceOptions {
  /** `"cpu"`, or the name or kind that {@link listDevices} gives. Defaults to `"cpu"`. */
  readonly device?: string;
  /** CPU threads. Defaults to the number of cores this process may use. */
  readonly threads?: number;
  /** Whether nlakit's own CPU kernels are used where they are there. Defaults to true. */
  readonly kernels?: boolean;
}

/** One open backend. Computations on it queue up, so that two callers never share its thread pool or scratch memory. */
export class Device implements Disposable {
  readonly info: DeviceInfo;
  readonly threads: number;
  readonly library: GgmlLibrary;
  /** nlakit's own kernels, or null: on other devices than CPUs, without the library, with NLA_KERNELS=off. */
  readonly kernels: Kernels | null;
  /** Freed memory that is kept for what comes next, on CPUs. For `engine/` only. */
  readonly spare: SpareBuffers | null;
  /** Where it is set, graphs are computed node by node and timed: for `nla bench --profile`. */
  profile: OpProfile | null = null;
  #scratch: NativeMemory | null = null;
  #backend: Pointer | null;
  readonly #freeThreads: (() => void) | null;
  #queue: Promise<unknown> = Promise.resolve();
  #waiting = 0; // tasks in the queue, with the one that runs

  private constructor(
    library: GgmlLibrary,
    info: DeviceInfo,
    threads: number,
    backend: Pointer,
    kernels: Kernels | null,
    freeThreads: (() => void) | null,
  ) {
    this.library = library;
    this.info = info;
    this.threads = threads;
    this.#backend = backend;
    this.kernels = kernels;
    this.#freeThreads = freeThreads;
    this.spare = info.kind === "cpu" ? new SpareBuffers(library.ggml) : null;
  }

  /**
   * Opens a device.
   *
   * @throws NlaError `engine.device` where there is none of that name, `engine.threads` for a thread count that is not
   *   an integer between 1 and 512, `engine.kernels` where NLA_KERNELS is not valid
   */
  static open({
    device = "cpu",
    threads = availableParallelism(),
    kernels = true,
  }: DeviceOptions = {}): Device {
    if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
      throw new NlaError({
        code: "engine.threads",
        subject: "threads",
        found: String(threads),
        wanted: `an integer from 1 to ${MAX_THREADS}`,
        next: "Set --threads to the number of cores to use.",
      });
    }
    const library = loadLibrary();
    const { ggml } = library;
    const all = listDevices();
    const wanted = String(device).toLowerCase();
    const info =
      all.find((each) => each.name.toLowerCase() === wanted) ?? all.find((each) => each.kind === wanted);
    // Before anything is opened: it may throw, and nobody would free that.
    const own = kernels && info?.kind === "cpu" ? loadKernels() : null;
    const native = info && ggml.ggml_backend_dev_get(info.index);
    const backend = native ? ggml.ggml_backend_dev_init(native, null) : null;
    if (!info || !native || !backend) {
      throw new NlaError({
        code: "engine.device",
        subject: `device "${device}"`,
        found: info
          ? "a device that would not open"
          : `only ${all.map((each) => each.name).join(", ") || "no device"}`,
        wanted: "a device that ggml can open",
        next: "`nla doctor` lists the devices and why others are missing.",
      });
    }
    let freeThreads: (() => void) | null = null;
    if (info.kind === "cpu") {
      const registry = ggml.ggml_backend_dev_backend_reg(native) as Pointer;
      const address = ggml.ggml_backend_reg_get_proc_address(registry, "ggml_backend_set_n_threads");
      setThreadsProto ??= koffi.proto("void nlakit_set_n_threads(void* backend, int threads)");
      (koffi.decode(address, setThreadsProto) as (backend: Pointer, threads: number) => void)(
        backend,
        threads,
      );
      if (threads > 1) freeThreads = keepThreads(ggml, registry, backend, threads);
    }
    return new Device(library, info, threads, backend, own, freeThreads);
  }

  /** True after {@link Device[Symbol.dispose]}. */
  get disposed(): boolean {
    return this.#backend === null;
  }

  /** The native backend, for `engine/` only. */
  get backend(): Pointer {
    if (this.#backend === null) {
      throw new NlaError({
        code: "engine.disposed",
        subject: `device ${this.info.name}`,
        found: "a device that was closed",
        wanted: "an open one",
        next: "Keep the device open as long as its tensors and graphs are used.",
      });
    }
    return this.#backend;
  }

  /** Memory that kernels pack and sum in, one part for each thread: one graph computes at a time. For `engine/` only. */
  get kernelScratch(): Pointer {
    const bytes = this.threads * (this.kernels?.scratchBytes ?? 0) + 64; // to align it
    this.#scratch ??= new NativeMemory(this, [
      { extent: [bytes / 4, 1, 1, 1], dtype: "f32", name: "scratch" },
    ]);
    return this.#scratch.tensors[0] as Pointer;
  }

  /**
   * Runs `task` when everything queued before it has ended, and not at the same time as anything else on this device.
   *
   * @throws the signal's reason if it is aborted before the turn comes
   */
  exclusive<T>(task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    this.#waiting++;
    const turn = this.#queue.then(async () => {
      try {
        signal?.throwIfAborted();
        return await task();
      } finally {
        this.#waiting--;
      }
    });
    this.#queue = turn.catch(() => undefined); // the caller gets the error; the queue only needs to know that it ended
    return turn;
  }

  /** Frees native memory: at once, or after the tasks in the queue, whose computations may still read it. */
  release(free: () => void): void {
    if (this.#waiting === 0) free();
    else this.#queue = this.#queue.then(free);
  }

  /** Computes a native graph on a worker thread. */
  compute(graph: Pointer): Promise<void> {
    const { ggml } = this.library;
    return new Promise((resolve, reject) => {
      ggml.ggml_backend_graph_compute.async(this.backend, graph, (error, status) => {
        if (error) reject(error instanceof Error ? error : new Error(String(error)));
        else if (status !== 0) {
          reject(
            new NlaError({
              code: "engine.compute",
              subject: `a graph on ${this.info.name}`,
              found: `status ${status} from ggml`,
              wanted: "status 0",
              next: "Report this with the output of `nla doctor --json`.",
            }),
          );
        } else resolve();
      });
    });
  }

  /** Closes the backend, after the computation that runs. Its tensors and graphs can be freed later, but not used. */
  [Symbol.dispose](): void {
    const backend = this.#backend;
    if (backend === null) return;
    this.#scratch?.[Symbol.dispose]();
    this.#backend = null;
    this.release(() => {
      this.spare?.clear({ closing: true });
      this.library.ggml.ggml_backend_free(backend);
      this.#freeThreads?.();
    });
  }
}

let setThreadsProto: ReturnType<typeof koffi.proto> | undefined;
