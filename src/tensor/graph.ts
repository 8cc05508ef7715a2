// A graph of operations: built once, given memory, run any number of times. It also keeps the tape from which gradients
// are made: each differentiable op records, for each operand, a function from the result's gradient to the operand's.
//
// Ops are plain functions beside this file (`matmul(g, a, b)`); this class only knows nodes, inputs, tape and memory.
import { NativeGraph } from "../engine/index.js";
import type { Device, Dtype, Handle, OpName } from "../engine/index.js";
import { NlaError } from "../error.js";
import { extentOf, formatShape, sameShape, shapeError, sizeOf } from "./shape.js";
import type { Shape } from "./shape.js";
import { Tensor } from "./tensor.js";
import type { HostArray, Owner } from "./tensor.js";

/** An operand and how the gradient of a result becomes the gradient of that operand. */
export type Pullback = readonly [operand: Tensor, gradient: (dy: Tensor) => Tensor];

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

// Adding up more than this in an index input is a mistake in the caller (ids are vocabulary entries, rows, positions).
const MAX_INDEX = 2 ** 31 - 1;

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
  readonly #inputs = new Map<string, Tensor>();
  readonly #written = new Set<string>();
  readonly #indexBounds = new Map<Tensor, number>();
  readonly #memo = new Map<Tensor, Map<string, Tensor>>();
  readonly #seeds = new WeakSet<Tensor>();

  constructor(device: Device, { compute = "f32", recording = true, maxTensors = 32_768 }: GraphOptions = {}) {
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
    if (this.#inputs.has(name)) {
      throw new NlaError({
        code: "tensor.input",
        subject: `input ${name}`,
        found: "a second input of that name",
        wanted: "one input per name",
        next: "Use the tensor that the first call returned.",
      });
    }
    const handle = this.#native.input(extentOf(shape, `input ${name}`), dtype);
    const tensor = new Tensor(this, handle, shape, dtype, name);
    this.#inputs.set(name, tensor);
    return tensor;
  }

  /** Like {@link Graph.input}, differentiable: for gradient tests and learned inputs. */
  variable(name: string, shape: Shape): Tensor {
    const plain = this.input(name, shape);
    const tensor = new Tensor(this, plain.handle, shape, "f32", name, true);
    this.#inputs.set(name, tensor);
    return tensor;
  }

  /**
   * Notes that an input holds row numbers below `rows`: {@link Graph.run} refuses others, which ggml would answer with abort().
   *
   * @throws NlaError `tensor.index` where the tensor is not an i32 input of this graph
   */
  boundIndices(op: string, indices: Tensor, rows: number): void {
    if (indices.dtype !== "i32" || this.#inputs.get(indices.name) !== indices) {
      throw new NlaError({
        code: "tensor.index",
        subject: op,
        found: `indices ${indices.name} ${formatShape(indices.shape)} of type ${indices.dtype}`,
        wanted: `an i32 input of this graph with row numbers below ${rows}`,
        next: "Declare them with graph.input(name, shape, 'i32').",
      });
    }
    this.#indexBounds.set(indices, Math.min(rows, this.#indexBounds.get(indices) ?? MAX_INDEX));
  }

  /**
   * Adds a node. For ops: it checks owners and the element count, not the meaning of the shapes.
   *
   * @param shape of the result
   */
  emit(op: OpName, shape: Shape, dtype: Dtype, ...operands: readonly (Tensor | number | null)[]): Tensor {
    extentOf(shape, op);
    const values = operands.map((operand) => {
      if (!(operand instanceof Tensor)) return operand;
      this.#checkOwner(op, operand);
      return operand.handle;
    });
    const handle = this.#native.node(op, values);
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

  #checkOwner(op: string, operand: Tensor): void {
    if (operand.owner === this || (operand.device === this.device && !(operand.owner instanceof Graph)))
      return;
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
    if (!tensor) derived.set(what, (tensor = make()));
    return tensor;
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
        const piece = gradient(dy);
        if (!sameShape(piece.shape, operand.shape)) {
          throw shapeError(`gradient of ${result.name}`, [piece.shape, operand.shape], "the operand's shape");
        }
        const sum = gradients.get(operand);
        gradients.set(operand, sum ? this.emit("add", operand.shape, "f32", sum, piece) : piece);
      }
      // The order of execution is the order of expansion: fix it here, so that a gradient is complete before it is used.
      for (const [operand] of pullbacks) this.expand(gradients.get(operand) as Tensor);
    }
    return gradients;
  }

  /** Whether a gradient is the seed of {@link Graph.backward}, the number one: multiplying by it can be left out. */
  isSeed(gradient: Tensor): boolean {
    return this.#seeds.has(gradient);
  }

  /** Fixes that `tensor` and what it needs run after everything expanded so far. */
  expand(tensor: Tensor): Tensor {
    this.#native.expand(tensor.handle);
    return tensor;
  }

  /** Keeps a result for reading after the run, and includes it in the run. */
  output(tensor: Tensor): Tensor {
    this.#native.keep(tensor.handle);
    return this.expand(tensor);
  }

  /** Nodes in the order of execution. */
  get nodes(): number {
    return this.#native.nodes;
  }

  /** Allocates working memory; no ops after that. @throws NlaError `engine.memory` */
  compile(): this {
    this.workingBytes = this.#native.allocate();
    return this;
  }

  /**
   * Runs the graph off the event loop. Inputs that are not given keep their last values.
   *
   * @throws NlaError `tensor.input` for an unknown, missing or misshaped input, `tensor.index` for a row number out of
   *   range; the signal's reason where it was aborted before the turn came
   */
  run(inputs: Readonly<Record<string, HostArray>> = {}, signal?: AbortSignal): Promise<void> {
    for (const [name, data] of Object.entries(inputs)) {
      const tensor = this.#inputs.get(name);
      if (!tensor)
        throw this.#inputError(
          name,
          "no input of that name",
          `one of ${[...this.#inputs.keys()].join(", ")}`,
        );
      tensor.check(data);
      this.#checkIndices(tensor, data);
    }
    for (const name of this.#inputs.keys()) {
      if (!(name in inputs) && !this.#written.has(name))
        throw this.#inputError(name, "no values", "values before the first run");
    }
    if (this.workingBytes === 0 && this.nodes > 0) this.compile();
    return this.device.exclusive(async () => {
      for (const [name, data] of Object.entries(inputs)) {
        (this.#inputs.get(name) as Tensor).write(data);
        this.#written.add(name);
      }
      await this.#native.compute();
    }, signal);
  }

  #inputError(name: string, found: string, wanted: string): NlaError {
    return new NlaError({
      code: "tensor.input",
      subject: `input ${name}`,
      found,
      wanted,
      next: "Pass it to run({ name: values }).",
    });
  }

  #checkIndices(tensor: Tensor, data: HostArray): void {
    const rows = this.#indexBounds.get(tensor);
    if (rows === undefined) return;
    for (let i = 0; i < data.length; i++) {
      const value = Number(data[i]);
      if (value >= 0 && value < rows) continue;
      throw new NlaError({
        code: "tensor.index",
        subject: `input ${tensor.name} ${formatShape(tensor.shape)}, element ${i}`,
        found: String(value),
        wanted: `a row number from 0 to ${rows - 1}, of a tensor with [${rows}, ...] rows`,
        next: "A token id beyond the vocabulary is the usual reason: is this the model's own tokenizer?",
      });
    }
  }

  get disposed(): boolean {
    return this.#native.disposed;
  }

  [Symbol.dispose](): void {
    this.#native[Symbol.dispose]();
  }
}

/** For ops: a node's handle type, re-exported so that op files need only this module. */
export type { Handle };
