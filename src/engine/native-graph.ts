// One ggml graph: the metadata context that its nodes live in, the order in which they run, and the memory of their
// results. It checks nothing about shapes; `tensor/` does before it calls, because ggml answers a wrong shape with abort().
import { NlaError } from "../error.js";
import type { Device } from "./device.js";
import { GGML_TYPE } from "./dtype.js";
import type { Dtype } from "./dtype.js";
import type { OpName, Pointer } from "./ggml.js";
import { packSettings } from "./kernel-layout.js";
import type { KernelName, Kernels } from "./kernels.js";
import { askForLargePages, requireRoom } from "./memory.js";
import type { Extent } from "./memory.js";

// Room per tensor beyond ggml's own overhead: alignment and the object header.
const SLACK_BYTES = 96;
// Some of ggml's functions build a second tensor, a view, on the way.
const TENSORS_PER_NODE = 2;
// Fewer is no graph; more would reserve gigabytes of metadata, and no model needs a tenth of it.
const MIN_TENSORS = 4;
const MAX_TENSORS = 2 ** 20;

// ggml's allocator keeps a list of 256 free blocks and aborts when it is full. Results that are kept are what separates
// free blocks for good, so their number is bounded, with room for those that live a while.
const MAX_KEPT = 200;

const EVERY_THREAD = -1; // ggml calls a custom op on all of its threads; the number only enters its plan

/** What a kernel is told beside its sources. */
export interface KernelSettings {
  readonly flags?: number;
  readonly value?: number;
  readonly outside?: number;
  /** Of the result. Defaults to f32; some kernels also give bf16. */
  readonly dtype?: "f32" | "bf16";
}

/** A graph under construction, then allocated, then computed any number of times. */
export class NativeGraph implements Disposable {
  readonly maxTensors: number;
  readonly #device: Device;
  #context: Pointer | null;
  readonly #graph: Pointer;
  #allocator: Pointer | null = null;
  #tensors = 0;
  readonly #kept = new Set<Pointer>();
  readonly #names = new Map<Pointer, string>(); // of the kernels that nodes run, for a profile
  #ownNode: Pointer | null = null; // some node whose memory the allocator will give

  /**
   * @param maxTensors how many tensors the graph may have; metadata for them is reserved, not touched
   * @throws NlaError `engine.graph-size` for other than 4 to 1,048,576
   */
  constructor(device: Device, maxTensors: number) {
    if (!Number.isInteger(maxTensors) || maxTensors < MIN_TENSORS || maxTensors > MAX_TENSORS) {
      throw new NlaError({
        code: "engine.graph-size",
        subject: "a graph",
        found: `maxTensors ${maxTensors}`,
        wanted: `an integer from ${MIN_TENSORS} to ${MAX_TENSORS}`,
        next: "Leave it out for the default, which fits about a hundred blocks.",
      });
    }
    void device.backend; // a closed device is an error here and not at the first allocation
    const { ggml } = device.library;
    this.#device = device;
    this.maxTensors = maxTensors;
    const bytes =
      maxTensors * (Number(ggml.ggml_tensor_overhead()) + SLACK_BYTES) +
      Number(ggml.ggml_graph_overhead_custom(maxTensors, false)) +
      65_536;
    this.#context = ggml.init(bytes);
    this.#graph = ggml.ggml_new_graph_custom(this.#context, maxTensors, false) as Pointer;
  }

  /** The context, if the graph and its device are still there. */
  #live(): Pointer {
    if (this.#context === null) {
      throw new NlaError({
        code: "engine.disposed",
        subject: "a graph",
        found: "a graph that was freed",
        wanted: "one in use",
        next: "Build the graph again, or free it later.",
      });
    }
    void this.#device.backend;
    return this.#context;
  }

  // ggml aborts when a context or the list of a graph is full, so the count is kept here.
  #count(tensors: number): Pointer {
    const context = this.#live();
    if (this.#tensors + tensors > this.maxTensors) {
      throw new NlaError({
        code: "engine.graph-size",
        subject: "a graph",
        found: `more than ${this.maxTensors} tensors`,
        wanted: `at most ${this.maxTensors}`,
        next: "Pass a larger maxTensors to the graph.",
      });
    }
    this.#tensors += tensors;
    return context;
  }

  /** A leaf whose content is set before each run and survives it (both flags: an input alone is recycled after use). */
  input(extent: Extent, dtype: Dtype): Pointer {
    const { ggml } = this.#device.library;
    const tensor = ggml.ggml_new_tensor_4d(this.#count(1), GGML_TYPE[dtype], ...extent) as Pointer;
    ggml.ggml_set_input(tensor);
    ggml.ggml_set_output(tensor);
    this.expand(tensor); // an input that no op uses would get no memory, and writing to it would abort
    return tensor;
  }

  /**
   * Adds a node.
   *
   * @param values the arguments of ggml's function after the context
   * @param outside how many of them are tensors of other contexts, used here for the first time
   */
  node(op: OpName, values: readonly (Pointer | number | null)[], outside = 0): Pointer {
    // Tensors from outside take places in the graph's lists, too.
    const context = this.#count(TENSORS_PER_NODE + outside);
    const build = this.#device.library.ggml.ops[op] as (...all: unknown[]) => Pointer;
    return build(context, ...values);
  }

  /**
   * Adds a node that one of nlakit's own kernels computes (native/*.c says what each takes). CPU devices only.
   *
   * @param sources at most eight, null where an optional one is left out
   * @param outside as for {@link NativeGraph.node}
   */
  kernel(
    name: KernelName,
    extent: Extent,
    sources: readonly (Pointer | null)[],
    { flags = 0, value = 0, outside = 0, dtype = "f32" }: KernelSettings = {},
  ): Pointer {
    const { kernels, kernelScratch } = this.#device;
    const context = this.#count(TENSORS_PER_NODE + outside + 1); // and the scratch, where this is its first use
    const { ggml } = this.#device.library;
    const all = BigUint64Array.from([kernelScratch, ...sources], (source) => source ?? 0n);
    this.#ownNode = ggml.ggml_custom_4d(
      context,
      GGML_TYPE[dtype],
      ...extent,
      all as unknown as Pointer,
      all.length,
      (kernels as Kernels).op(name),
      EVERY_THREAD,
      packSettings(flags, value),
    ) as Pointer;
    this.#names.set(this.#ownNode, name === "matmul" ? `matmul, ${extent[1]} x ${extent[0]}` : name);
    return this.#ownNode;
  }

  /** The same, writing over the first tensor. It has no scratch. */
  kernelInPlace(
    name: KernelName,
    target: Pointer,
    sources: readonly Pointer[],
    flags = 0,
    outside = 0,
  ): Pointer {
    const { kernels, library } = this.#device;
    const context = this.#count(TENSORS_PER_NODE + outside);
    const all = BigUint64Array.from(sources);
    const node = library.ggml.ggml_custom_inplace(
      context,
      target,
      all as unknown as Pointer,
      all.length,
      (kernels as Kernels).op(name),
      EVERY_THREAD,
      packSettings(flags, 0),
    ) as Pointer;
    this.#names.set(node, name);
    return node;
  }

  /** A part of a node's f32 memory as bf16: `extent` of those, whose rows are even. `start`: in bytes. CPU devices with kernels only. */
  viewBf16(node: Pointer, [n0, n1, n2, n3]: Extent, start: number): Pointer {
    const [row, plane, volume] = [n0 * 2, n0 * n1 * 2, n0 * n1 * n2 * 2];
    const view = this.node("view_4d", [node, n0 / 2, n1, n2, n3, row, plane, volume, start]);
    (this.#device.kernels as Kernels).viewBf16(view);
    return view;
  }

  /** How many elements ggml gives a node: a check on the shape that `tensor/` computed. */
  elements(tensor: Pointer): number {
    return Number(this.#device.library.ggml.ggml_nelements(tensor));
  }

  /** Whether the device can run a node. */
  supports(tensor: Pointer): boolean {
    const { ggml } = this.#device.library;
    return ggml.ggml_backend_dev_supports_op(ggml.ggml_backend_dev_get(this.#device.info.index), tensor);
  }

  /** Appends the node, and what it needs, to the order of execution. `outside` as for {@link NativeGraph.node}. */
  expand(tensor: Pointer, outside = 0): void {
    this.#count(outside);
    this.#device.library.ggml.ggml_build_forward_expand(this.#graph, tensor);
  }

  /** Keeps a node's result until it is read. @throws NlaError `engine.graph-size` for more than 200 of them */
  keep(tensor: Pointer): void {
    this.#live();
    this.#kept.add(tensor);
    if (this.#kept.size > MAX_KEPT) {
      throw new NlaError({
        code: "engine.graph-size",
        subject: "a graph",
        found: `more than ${MAX_KEPT} outputs`,
        wanted: `at most ${MAX_KEPT}`,
        next: "Read fewer results per run, or add them up in the graph.",
      });
    }
    this.#device.library.ggml.ggml_set_output(tensor);
  }

  /** Nodes in the order of execution so far. */
  get nodes(): number {
    this.#live();
    return this.#device.library.ggml.ggml_graph_n_nodes(this.#graph);
  }

  /** Whether the nodes have memory: no more nodes after that. */
  get allocated(): boolean {
    return this.#allocator !== null;
  }

  /**
   * Gives every node its memory.
   *
   * @returns bytes of working memory
   * @throws NlaError `engine.memory`
   */
  allocate(): number {
    this.#live();
    const { ggml } = this.#device.library;
    const subject = `a graph of ${this.nodes} nodes`;
    const allocator = ggml.ggml_gallocr_new(
      ggml.ggml_backend_get_default_buffer_type(this.#device.backend),
    ) as Pointer;
    try {
      requireRoom(this.#device, () => subject, ggml.plannedBytes(allocator, this.#graph));
      // Reserved by hand: the allocator takes a plan for a reservation, and would hand out addresses in no buffer.
      const reserved = ggml.ggml_gallocr_reserve(allocator, this.#graph);
      if (!reserved || !ggml.ggml_gallocr_alloc_graph(allocator, this.#graph)) {
        throw new NlaError({
          code: "engine.memory",
          subject: `${subject} on ${this.#device.info.name}`,
          found: "no room for its results",
          wanted: "that much free memory",
          next: "Use a smaller micro-batch or a shorter context.",
        });
      }
    } catch (error) {
      ggml.ggml_gallocr_free(allocator);
      throw error;
    }
    this.#askForLargePages();
    this.#allocator = allocator;
    return Number(ggml.ggml_gallocr_get_buffer_size(allocator, 0));
  }

  #askForLargePages(): void {
    const { kernels, library } = this.#device;
    const buffer = this.#ownNode === null ? null : kernels?.bufferOf(this.#ownNode);
    if (buffer) {
      askForLargePages(this.#device, buffer, Number(library.ggml.ggml_backend_buffer_get_size(buffer)));
    }
  }

  /** Runs the graph once, off the event loop. */
  async compute(): Promise<void> {
    this.#live();
    const { profile } = this.#device;
    if (profile) profile.graph(this.#graph, this.#names);
    else await this.#device.compute(this.#graph);
  }

  get disposed(): boolean {
    return this.#context === null;
  }

  [Symbol.dispose](): void {
    if (this.#context === null) return;
    const { ggml } = this.#device.library;
    const [allocator, context] = [this.#allocator, this.#context];
    this.#context = null;
    this.#allocator = null;
    this.#device.release(() => {
      if (allocator !== null) ggml.ggml_gallocr_free(allocator);
      ggml.ggml_free(context);
    });
  }
}
