// Time per op: a graph computed one node at a time, each by a graph that holds that node alone. ggml's CPU backend times nothing
// itself. What starting a graph costs, a wake-up of every thread, is measured on a sum of two numbers and taken off.
import { NlaError } from "../error.js";
import type { Device } from "./device.js";
import type { Pointer } from "./ggml.js";
import { NativeMemory } from "./memory.js";

/** One op, or one kind of host work. */
export interface OpTime {
  readonly op: string;
  readonly calls: number;
  readonly seconds: number;
}

// These compute nothing: another look at the memory of their operand.
const VIEWS = new Set(["NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"]);
const NODES = 8; // of the graph that holds one
const STARTS = 200;

/** Collects times while it is a device's `profile`. `using` frees the graph that it computes with. */
export class OpProfile implements Disposable {
  readonly #device: Device;
  readonly #times = new Map<string, { calls: number; seconds: number }>();
  readonly #host = new Map<string, { calls: number; seconds: number }>();
  readonly #context: Pointer;
  readonly #single: Pointer;
  readonly #zero: NativeMemory;
  /** Seconds that starting a graph takes, the median of many. */
  readonly startSeconds: number;
  /** Seconds beyond that for the way to a worker thread and back to the event loop, measured in {@link OpProfile.open}. */
  handoverSeconds = 0;
  /** Graphs computed. */
  graphs = 0;
  /** Seconds spent in them, with what it costs to compute them node by node. */
  graphSeconds = 0;

  private constructor(device: Device) {
    const { ggml } = device.library;
    this.#device = device;
    const overhead = Number(ggml.ggml_graph_overhead_custom(NODES, false));
    this.#context = ggml.init(overhead + NODES * (Number(ggml.ggml_tensor_overhead()) + 96) + 65_536);
    this.#single = ggml.ggml_new_graph_custom(this.#context, NODES, false) as Pointer;
    this.#zero = new NativeMemory(device, [{ extent: [1, 1, 1, 1], dtype: "f32", name: "zero" }]);
    const zero = this.#zero.tensors[0] as Pointer;
    this.#zero.zero(zero);
    const nothing = ggml.ops.add_inplace(this.#context, zero, zero) as Pointer; // one element, but on every thread
    const starts = Array.from({ length: STARTS }, () => this.#compute(nothing)).toSorted((a, b) => a - b);
    this.startSeconds = starts[STARTS / 2] as number;
  }

  /** Makes a profile, which counts nothing before it is set as the device's. */
  static async open(device: Device): Promise<OpProfile> {
    const profile = new OpProfile(device);
    const rounds: number[] = [];
    for (let i = 0; i < STARTS; i++) {
      const started = performance.now();
      await device.compute(profile.#single); // the sum of two numbers
      rounds.push((performance.now() - started) / 1000);
    }
    const middle = rounds.toSorted((a, b) => a - b)[STARTS / 2] as number;
    profile.handoverSeconds = Math.max(0, middle - profile.startSeconds);
    return profile;
  }

  /** Computes a graph on this thread, node by node. `names` are those of nlakit's own kernels. */
  graph(graph: Pointer, names: ReadonlyMap<Pointer, string>): void {
    const { ggml } = this.#device.library;
    const started = performance.now();
    const count = ggml.ggml_graph_n_nodes(graph);
    for (let i = 0; i < count; i++) {
      const node = ggml.ggml_graph_node(graph, i) as Pointer;
      const name = names.get(node) ?? ggml.ggml_op_desc(node);
      if (VIEWS.has(name)) continue;
      const own = names.has(node) ? name : `ggml ${name.toLowerCase()}`;
      add(this.#times, own, Math.max(0, this.#compute(node) - this.startSeconds));
    }
    this.graphs++;
    this.graphSeconds += (performance.now() - started) / 1000;
  }

  /** Notes work that is no op. */
  host(what: string, seconds: number): void {
    add(this.#host, what, seconds);
  }

  /** Ops, most time first. */
  get ops(): OpTime[] {
    return sorted(this.#times);
  }

  /** Work that is no op, most time first. */
  get hostWork(): OpTime[] {
    return sorted(this.#host);
  }

  /** Forgets what was collected. */
  clear(): void {
    this.#times.clear();
    this.#host.clear();
    this.graphs = 0;
    this.graphSeconds = 0;
  }

  #compute(node: Pointer): number {
    const { ggml } = this.#device.library;
    ggml.ggml_graph_clear(this.#single);
    ggml.ggml_graph_add_node(this.#single, node);
    const started = performance.now();
    const status = ggml.ggml_backend_graph_compute(this.#device.backend, this.#single);
    const seconds = (performance.now() - started) / 1000;
    if (status === 0) return seconds;
    throw new NlaError({
      code: "engine.compute",
      subject: `one node on ${this.#device.info.name}`,
      found: `status ${status} from ggml`,
      wanted: "status 0",
      next: "Run without --profile.",
    });
  }

  [Symbol.dispose](): void {
    if (this.#device.profile === this) this.#device.profile = null;
    this.#device.library.ggml.ggml_free(this.#context);
    this.#zero[Symbol.dispose]();
  }
}

function add(times: Map<string, { calls: number; seconds: number }>, name: string, seconds: number): void {
  const entry = times.get(name) ?? { calls: 0, seconds: 0 };
  entry.calls++;
  entry.seconds += seconds;
  times.set(name, entry);
}

function sorted(times: ReadonlyMap<string, { calls: number; seconds: number }>): OpTime[] {
  return Array.from(times, ([op, time]) => ({ op, ...time })).toSorted((a, b) => b.seconds - a.seconds);
}
