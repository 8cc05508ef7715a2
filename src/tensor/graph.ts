// A graph of operations: built once, given memory, run any number of times. It also keeps the tape from which gradients
// are made: each differentiable op records, for each operand, a function from the result's gradient to the operand's.
//
// Ops are plain functions beside this file (`matmul(g, a, b)`); this class only knows nodes, inputs, tape and memory.
import { bytesOf, NativeGraph, requireRoom } from "../engine/index.js";
import type { Device, Dtype, Handle, KernelName, KernelSettings, OpName } from "../engine/index.js";
import { NlaError } from "../error.js";
import {
  extentOf,
  formatShape,
  requireBlocks,
  requireDtypeName,
  sameShape,
  shapeError,
  sizeOf,
} from "./shape.js";
import type { Shape } from "./shape.js";
import { GraphInputs } from "./inputs.js";
import { requireOwner, Tensor } from "./tensor.js";
import type { HostArray, Owner } from "./tensor.js";

/**
 * An operand and how the gradient of a result becomes the gradient of that operand. `sum` is what other uses of the operand
 * have given so far: a rule that adds it to its own result says so with {@link Graph.summed}.
 */
export type Pullback = readonly [operand: Tensor, gradient: (dy: Tensor, sum: Tensor | null) => Tensor];

interface TapeEntry {
  readonly result: Tensor;
  readonly pullbacks: readonly Pullback[];
}

/** Options of {@link Graph}. */
export interface GraphOptions {
  /** Type that matrix products compute in; sums are f32 either way. Defaults to `"f32"`. */
  readonly compute?: "f32" | "bf16";
  /** Whether ops record gradients. Defaults to true. */
  readonly recording?: boolean;
  /** Room for tensors. Defaults to 32,768, enough for forward and backward of about a hundred blocks. */
  readonly maxTensors?: number;
}

// Why the values of a graph's tensor cannot be had.
const REFUSALS = {
  write: {
    found: "a write",
    wanted: "values given to the run, which checks them",
    next: "Declare it with input(name, shape) and call run({ name: values }).",
  },
  running: {
    found: "a run under way",
    wanted: "its end",
    next: "Await the promise of run() first.",
  },
  dropped: {
    found: "a result that is not kept: its memory is used again within the run",
    wanted: "an output",
    next: "Call graph.output(tensor) before the graph is compiled.",
  },
  before: {
    found: "no run so far",
    wanted: "a run before it",
    next: "Await graph.run() first.",
  },
} as const;

/** A graph under construction or compiled. `using g = new Graph(device)` frees all of it at the end of the scope. */
export class Graph implements Owner, Disposable {
  readonly device: Device;
  readonly label = "graph";
  readonly compute: "f32" | "bf16";
  /** Bytes of working memory, 0 before {@link Graph.compile}. */
  workingBytes = 0;
  #recording: boolean;
  readonly #native: NativeGraph;
  readonly #tape: TapeEntry[] = [];
  readonly #inputs = new GraphInputs();
  readonly #kept = new Set<Handle>();
  readonly #foreign = new Set<Tensor>(); // of arenas, which have to be there when the graph runs
  #runs = 0; // waiting or under way
  #ran = false;
  readonly #memo = new Map<Tensor, Map<string, Tensor>>();
  readonly #offers = new Map<Tensor, Map<string, () => Tensor>>();
  readonly #seeds = new WeakSet<Tensor>();
  readonly #summed = new WeakMap<Tensor, Tensor>();

  constructor(device: Device, { compute = "f32", recording = true, maxTensors = 32_768 }: GraphOptions = {}) {
    requireChoice("compute", compute, ["f32", "bf16"]);
    this.device = device;
    this.compute = compute;
    this.#recording = recording;
    this.#native = new NativeGraph(device, maxTensors);
  }

  /** Whether ops record gradients right now. */
  get recording(): boolean {
    return this.#recording;
  }

  /** Declares an input, whose values {@link Graph.run} takes by name. @throws NlaError `tensor.shape`, `tensor.input` */
  input(name: string, shape: Shape, dtype: Dtype = "f32"): Tensor {
    return this.#declare(name, shape, dtype, false);
  }

  /** Like {@link Graph.input}, differentiable: for gradient tests and learned inputs. */
  variable(name: string, shape: Shape): Tensor {
    return this.#declare(name, shape, "f32", true);
  }

  #declare(name: string, shape: Shape, dtype: Dtype, requiresGrad: boolean): Tensor {
    this.#requireOpen(`input ${name}`);
    this.#inputs.requireFree(name);
    requireDtypeName(`input ${name}`, dtype);
    requireBlocks(`input ${name}`, shape, dtype);
    const extent = extentOf(shape, `input ${name}`);
    requireRoom(this.device, () => `input ${name} ${formatShape(shape)}`, bytesOf(extent, dtype));
    const tensor = new Tensor(this, this.#native.input(extent, dtype), shape, dtype, name, requiresGrad);
    this.#inputs.declare(tensor);
    return tensor;
  }

  /**
   * Notes that an input holds row numbers below `rows`: {@link Graph.run} refuses others, which ggml would answer with abort().
   *
   * @param distinct whether it also refuses a number that occurs twice
   * @throws NlaError `tensor.index` where the tensor is not an i32 input of this graph
   */
  boundIndices(op: string, indices: Tensor, rows: number, distinct = false): void {
    if (indices.dtype !== "i32" || !this.#inputs.has(indices)) {
      throw new NlaError({
        code: "tensor.index",
        subject: op,
        found: `indices ${indices.name} ${formatShape(indices.shape)} of type ${indices.dtype}`,
        wanted: `an i32 input of this graph with row numbers below ${rows}`,
        next: "Declare them with graph.input(name, shape, 'i32').",
      });
    }
    this.#inputs.bound(indices, { rows, distinct });
  }

  /**
   * Adds a node. For ops: it checks owners and the element count, not the meaning of the shapes.
   *
   * @param shape of the result
   */
  emit(op: OpName, shape: Shape, dtype: Dtype, ...operands: readonly (Tensor | number | null)[]): Tensor {
    this.#requireOpen(op);
    requireRoom(this.device, () => `${op} ${formatShape(shape)}`, bytesOf(extentOf(shape, op), dtype));
    const before = this.#foreign.size;
    const values = operands.map((operand) => {
      if (!(operand instanceof Tensor)) return operand;
      this.#checkOwner(op, operand);
      return operand.handle;
    });
    const handle = this.#native.node(op, values, this.#foreign.size - before);
    const elements = this.#native.elements(handle);
    if (elements !== sizeOf(shape)) {
      throw shapeError(
        `${op} (a fault of nlakit: please report it)`,
        [shape, [elements]],
        "as many elements as ggml says",
      );
    }
    return new Tensor(this, handle, shape, dtype, op);
  }

  /** Whether nlakit's own kernels compute ops of this graph: CPU devices, unless they are missing or switched off. */
  get native(): boolean {
    return this.device.kernels !== null;
  }

  /**
   * Adds a node that a kernel of nlakit's own computes; only where {@link Graph.native} is true. Like {@link Graph.emit}, it
   * checks no shapes: native/*.c says what each kernel takes, and which give bf16 as well as f32.
   */
  emitKernel(
    name: KernelName,
    shape: Shape,
    operands: readonly (Tensor | null)[],
    settings: Omit<KernelSettings, "outside"> = {},
  ): Tensor {
    this.#requireOpen(name);
    const { dtype = "f32" } = settings;
    const extent = extentOf(shape, name);
    requireRoom(this.device, () => `${name} ${formatShape(shape)}`, bytesOf(extent, dtype));
    const [handles, outside] = this.#handles(name, operands);
    return new Tensor(
      this,
      this.#native.kernel(name, extent, handles, { ...settings, outside }),
      shape,
      dtype,
      name,
    );
  }

  /** The same, writing over `target`, whose new value is the result. */
  emitKernelInPlace(name: KernelName, target: Tensor, operands: readonly Tensor[], flags = 0): Tensor {
    this.#requireOpen(name);
    const [[first, ...handles], outside] = this.#handles(name, [target, ...operands]);
    const handle = this.#native.kernelInPlace(name, first as Handle, handles as Handle[], flags, outside);
    return new Tensor(this, handle, target.shape, target.dtype, name);
  }

  /**
   * For ops whose kernel leaves bf16 beside f32 in one result: those from element `start` of its f32 on, in a shape of their own with an
   * even last dimension; memory is shared, no gradient. Only where {@link Graph.native} is true.
   */
  viewBf16(x: Tensor, start: number, shape: Shape): Tensor {
    this.#requireOpen("view");
    this.#checkOwner("view", x);
    const extent = extentOf(shape, "view");
    if (extent[0] % 2 !== 0 || start + sizeOf(shape) / 2 > x.size) {
      throw shapeError(
        "view",
        [x.shape, shape],
        "an even last dimension, and a part that lies within the tensor",
      );
    }
    return new Tensor(this, this.#native.viewBf16(x.handle, extent, start * 4), shape, "bf16", "view");
  }

  #handles(op: string, operands: readonly (Tensor | null)[]): [handles: (Handle | null)[], outside: number] {
    const before = this.#foreign.size;
    const handles = operands.map((operand) => {
      if (operand) this.#checkOwner(op, operand);
      return operand?.handle ?? null;
    });
    return [handles, this.#foreign.size - before];
  }

  #checkOwner(op: string, operand: Tensor): void {
    if (operand.owner === this) return;
    if (operand.device === this.device && !(operand.owner instanceof Graph)) {
      this.#foreign.add(operand);
      return;
    }
    const other =
      operand.device === this.device ? "another graph" : `another device (${operand.device.info.name})`;
    throw new NlaError({
      code: "tensor.owner",
      subject: op,
      found: `operand ${operand.name} ${formatShape(operand.shape)} of ${other}`,
      wanted: `a tensor of this graph ${formatShape(operand.shape)}, or of an arena on ${this.device.info.name}`,
      next: "Read its values and pass them as an input.",
    });
  }

  /** A tensor that this graph derives from another once: `derive(w, "transposed", () => ...)`. */
  derive(from: Tensor, what: string, make: () => Tensor): Tensor {
    // Per graph and not on the tensor: weights outlive graphs, and a node of a freed graph must not be found again.
    let derived = this.#memo.get(from);
    if (!derived) this.#memo.set(from, (derived = new Map()));
    let tensor = derived.get(what);
    if (!tensor) derived.set(what, (tensor = (this.#offers.get(from)?.get(what) ?? make)()));
    return tensor;
  }

  /**
   * For ops that can make their result in another form as cheaply as in the first one: {@link Graph.derive} then calls this.
   * Where nothing else reads the first form, it is never computed.
   */
  offer(from: Tensor, what: string, make: () => Tensor): Tensor {
    this.#offers.set(from, new Map([[what, make]]));
    return from;
  }

  /** Whether {@link Graph.offer} was called for that form of a tensor. */
  offers(from: Tensor, what: string): boolean {
    return this.#offers.get(from)?.has(what) ?? false;
  }

  /**
   * For ops, or operands, that have no gradient rule: a gradient that is left out without a word is a wrong gradient.
   *
   * @throws NlaError `tensor.gradient` where the graph records and an operand wants one
   */
  refuseGradient(op: string, ...operands: readonly Tensor[]): void {
    const wanting = operands.find((operand) => operand.requiresGrad);
    if (!this.#recording || !wanting) return;
    throw new NlaError({
      code: "tensor.gradient",
      subject: `${op}, operand ${wanting.name} ${formatShape(wanting.shape)}`,
      found: "a tensor that wants a gradient",
      wanted: "one that does not, because the op has none for it",
      next: "Build the graph with recording: false, or use another op.",
    });
  }

  /** Whether the graph records and any of these tensors wants a gradient: what only that needs can otherwise be left out. */
  wantsGradient(...operands: readonly Tensor[]): boolean {
    return this.#recording && operands.some((operand) => operand.requiresGrad);
  }

  /** Records how gradients flow through `result`, and returns it, marked where any operand wants one. */
  record(result: Tensor, ...pullbacks: readonly Pullback[]): Tensor {
    const wanted = pullbacks.filter(([operand]) => operand.requiresGrad);
    if (!this.#recording || wanted.length === 0) return result;
    const { handle, shape, dtype, name } = result;
    const marked = new Tensor(this, handle, shape, dtype, name, true);
    this.#tape.push({ result: marked, pullbacks: wanted });
    return marked;
  }

  /**
   * Appends the reverse pass of a scalar loss.
   *
   * @param loss one element
   * @returns the gradient of every differentiable tensor that the loss depends on
   * @throws NlaError `tensor.shape` where the loss has more than one element, `tensor.gradient` where it depends on nothing
   */
  backward(loss: Tensor): Map<Tensor, Tensor> {
    this.#requireOpen("backward");
    this.#checkOwner("backward", loss);
    if (loss.size !== 1) throw shapeError("backward", [loss.shape, [1]], "a loss of one element");
    if (!loss.requiresGrad) {
      throw new NlaError({
        code: "tensor.gradient",
        subject: `backward from ${loss.name} ${formatShape(loss.shape)}`,
        found: "a loss that depends on no parameter or variable",
        wanted: "one that does, in a graph that records",
        next: "Mark parameters in their arena, and do not build the graph with recording: false.",
      });
    }
    this.expand(loss);
    this.#recording = false; // the rules emit ops, whose own gradients nobody wants
    const gradients = new Map<Tensor, Tensor>();
    const seed = this.emit("scale_bias", loss.shape, "f32", loss, 0, 1);
    this.#seeds.add(seed);
    gradients.set(loss, seed);
    for (const { result, pullbacks } of this.#tape.toReversed()) {
      const dy = gradients.get(result);
      if (!dy) continue;
      for (const [operand, gradient] of pullbacks) {
        const sum = gradients.get(operand) ?? null;
        const piece = gradient(dy, sum);
        if (!sameShape(piece.shape, operand.shape)) {
          throw shapeError(`gradient of ${result.name}`, [piece.shape, operand.shape], "the operand's shape");
        }
        // Which sum is asked, not whether there is one: a residual hands on a gradient that has another sum in it.
        const separate = sum !== null && this.#summed.get(piece) !== sum;
        gradients.set(operand, separate ? this.emit("add", operand.shape, "f32", sum, piece) : piece);
      }
      // The order of execution is the order of expansion: fix it here, so that a gradient is complete before it is used.
      for (const [operand] of pullbacks) {
        const gradient = gradients.get(operand) as Tensor;
        // One that is offered in another form, too: whoever reads it says which of them is computed.
        if (!this.#offers.has(gradient)) this.expand(gradient);
      }
    }
    return gradients;
  }

  /** Whether a gradient is the seed of {@link Graph.backward}, the number one: multiplying by it can be left out. */
  isSeed(gradient: Tensor): boolean {
    return this.#seeds.has(gradient);
  }

  /** For rules: marks a gradient as holding the `sum` that the rule was given, so that {@link Graph.backward} does not add it again. */
  summed(gradient: Tensor, sum: Tensor): Tensor {
    this.#summed.set(gradient, sum);
    return gradient;
  }

  /** Fixes that `tensor` and what it needs run after everything expanded so far. */
  expand(tensor: Tensor): Tensor {
    this.#requireOpen("expand", tensor);
    const before = this.#foreign.size;
    this.#checkOwner("expand", tensor);
    this.#native.expand(tensor.handle, this.#foreign.size - before);
    return tensor;
  }

  /** Keeps a result for reading after the run, and includes it in the run. */
  output(tensor: Tensor): Tensor {
    this.expand(tensor);
    this.#native.keep(tensor.handle);
    this.#kept.add(tensor.handle);
    return tensor;
  }

  /** Nodes in the order of execution. */
  get nodes(): number {
    return this.#native.nodes;
  }

  /**
   * Allocates working memory; no ops after that. A second call does nothing.
   *
   * @throws NlaError `engine.memory`
   */
  compile(): this {
    if (!this.#native.allocated) this.workingBytes = this.#native.allocate();
    return this;
  }

  /**
   * Runs the graph off the event loop, when every run before it on the device has ended. Inputs that are not given keep
   * their last values; do not change the given arrays before the promise is settled.
   *
   * @throws NlaError (as a rejection) `tensor.input` for an unknown or missing input, `tensor.data` for a misshaped one,
   *   `tensor.index` for a row number out of range, `tensor.disposed` where an arena that the graph uses was freed; the
   *   signal's reason where it was aborted before the turn came
   */
  async run(inputs: Readonly<Record<string, HostArray>> = {}, signal?: AbortSignal): Promise<void> {
    this.compile();
    this.#runs++;
    try {
      await this.device.exclusive(async () => {
        const owners = new Set(Array.from(this.#foreign, ({ owner }) => owner));
        for (const owner of owners) {
          requireOwner(owner, "a tensor that the graph uses");
          owner.requireFiles?.();
        }
        // Checked here and not before the wait: what was written then, or freed, is known only now.
        this.#inputs.check(inputs);
        this.#inputs.write(inputs);
        await this.#native.compute();
        this.#ran = true;
      }, signal);
    } finally {
      this.#runs--;
    }
  }

  /** For tensors of this graph: {@link Tensor.write} is refused, {@link Tensor.read} needs a kept result of a run. */
  requireAccess(tensor: Tensor, handle: Handle, access: "read" | "write"): void {
    const refusal = access === "write" ? "write" : this.#refusal(handle);
    if (refusal === null) return;
    throw new NlaError({
      code: "tensor.access",
      subject: `${access} of tensor ${tensor.name} ${formatShape(tensor.shape)} of a graph`,
      ...REFUSALS[refusal],
    });
  }

  #refusal(handle: Handle): keyof typeof REFUSALS | null {
    if (this.#runs > 0) return "running";
    if (this.#inputs.filled(handle)) return null;
    if (!this.#kept.has(handle)) return "dropped";
    return this.#ran ? null : "before";
  }

  #requireOpen(what: string, tensor: Tensor | null = null): void {
    if (!this.#native.allocated) return;
    throw new NlaError({
      code: "tensor.compiled",
      subject: tensor ? `${what} of ${tensor.name} ${formatShape(tensor.shape)}` : what,
      found: "a graph that is compiled",
      wanted: "one under construction",
      next: "Add ops and outputs before compile() and the first run().",
    });
  }

  get disposed(): boolean {
    return this.#native.disposed;
  }

  [Symbol.dispose](): void {
    this.#native[Symbol.dispose]();
  }
}

function requireChoice(what: string, found: string, choices: readonly string[]): void {
  if (choices.includes(found)) return;
  throw new NlaError({
    code: "tensor.argument",
    subject: `graph option ${what}`,
    found: String(found),
    wanted: choices.join(" or "),
    next: "Correct the option.",
  });
}
