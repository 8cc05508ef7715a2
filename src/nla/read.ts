// Reading: what a text's activations say at each token, and how faithful each explanation is. The library's main door.
import { stat } from "node:fs/promises";
import path from "node:path";
import { NlaError } from "../error.js";
import { Device } from "../tensor/index.js";
import { reconstructionScores } from "./fidelity.js";
import { isGguf } from "../model/index.js";
import { loadReconstructor, loadVerbalizer } from "./pair-files.js";
import type { LoadCheckpointOptions } from "./pair-files.js";
import type { Reconstructor } from "./reconstructor.js";
import { activationsOf } from "./target.js";
import type { Target } from "./target.js";
import type { ExplainOptions, Verbalizer } from "./verbalizer.js";

/** A verbalizer and a reconstructor of one target and layer. */
export interface Nla extends Disposable {
  readonly verbalizer: Verbalizer;
  readonly reconstructor: Reconstructor;
  readonly layer: number;
  /** The target as the sidecar names it. */
  readonly target: string | null;
}

/** What {@link read} needs of a pair: the verbalizer may run elsewhere. */
export interface ReadingPair {
  readonly verbalizer: Pick<Verbalizer, "contract" | "explain">;
  readonly reconstructor: Pick<Reconstructor, "contract" | "reconstructSome">;
  readonly layer: number;
  readonly target: string | null;
}

/** Folders of a pair in a run folder. */
export const PAIR_FOLDERS = { verbalizer: "verbalizer", reconstructor: "reconstructor" } as const;

/** Options of {@link loadNla}. */
export interface LoadNlaOptions extends Omit<LoadCheckpointOptions, "contract"> {
  /** The reconstructor's folder or GGUF file, where the pair lies apart. */
  readonly reconstructor?: string | undefined;
  /** A sidecar in the place of the verbalizer's own. */
  readonly contract?: string | undefined;
  /** A sidecar in the place of the reconstructor's own. */
  readonly reconstructorContract?: string | undefined;
}

/**
 * Loads a pair.
 *
 * @param directory a run folder, or the verbalizer's folder or GGUF file if `reconstructor` names the other
 * @throws NlaError `nla.directory`, `nla.pair` where the two do not belong together, and those of the loaders
 */
export async function loadNla(directory: string, device: Device, options: LoadNlaOptions = {}): Promise<Nla> {
  const whole = options.reconstructor === undefined;
  const av = whole ? path.join(directory, PAIR_FOLDERS.verbalizer) : directory;
  const ar = options.reconstructor ?? path.join(directory, PAIR_FOLDERS.reconstructor);
  if (whole && !(await isFolder(av))) {
    throw new NlaError({
      code: "nla.directory",
      subject: directory,
      found: (await isFolder(directory))
        ? `no folder ${PAIR_FOLDERS.verbalizer} in it`
        : isGguf(directory)
          ? "one model, and no reconstructor"
          : "no such folder",
      wanted: `a run folder with ${PAIR_FOLDERS.verbalizer}/ and ${PAIR_FOLDERS.reconstructor}/`,
      next: "Finish the training (`nla train CONFIG` goes on where it stopped), or name both parts of a pair (--nla and --ar).",
    });
  }
  const { holding } = options;
  const reconstructor = await loadReconstructor(ar, device, {
    holding,
    contract: options.reconstructorContract,
  });
  try {
    const { layer } = reconstructor.model.contract;
    const verbalizer = await loadVerbalizer(av, device, { layer, holding, contract: options.contract });
    const nla: Nla = {
      verbalizer: verbalizer.model,
      reconstructor: reconstructor.model,
      layer: verbalizer.model.contract.layer,
      target: verbalizer.sidecar.baseCheckpoint,
      [Symbol.dispose]() {
        verbalizer.model[Symbol.dispose]();
        reconstructor.model[Symbol.dispose]();
      },
    };
    if (!agree(nla)) {
      verbalizer.model[Symbol.dispose]();
      throw pairError(nla, av, ar);
    }
    return nla;
  } catch (thrown) {
    reconstructor.model[Symbol.dispose]();
    throw thrown;
  }
}

async function isFolder(file: string): Promise<boolean> {
  return stat(file).then(
    (found) => found.isDirectory(),
    (thrown: NodeJS.ErrnoException) => {
      if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return false;
      throw thrown;
    },
  );
}

function agree({ verbalizer, reconstructor }: Nla): boolean {
  const a = verbalizer.contract;
  const b = reconstructor.contract;
  return a.layer === b.layer && a.dim === b.dim && a.format === b.format;
}

function pairError({ verbalizer, reconstructor }: Nla, av: string, ar: string): NlaError {
  const [a, b] = [verbalizer.contract, reconstructor.contract].map(
    ({ layer, dim, format }) => `layer ${layer}, width ${dim}, format ${format}`,
  );
  return new NlaError({
    code: "nla.pair",
    subject: `${av} and ${ar}`,
    found: `${a}; and ${b}`,
    wanted: "a verbalizer and a reconstructor of one pair",
    next: "Name the two folders of the same run.",
  });
}

/** Options of {@link read}. */
export interface ReadOptions extends Omit<ExplainOptions, "samples"> {
  /** Tokens to read, from 0; negative ones count from the end. Defaults to all. */
  readonly positions?: readonly number[];
  /** Activations per pass. Defaults to 64. */
  readonly batch?: number;
  /** Called as readings come, in the order of positions. */
  readonly onReading?: (reading: TokenReading) => void;
}

/** What one token's activation says. */
export interface TokenReading {
  readonly position: number;
  /** The token as text. */
  readonly token: string;
  readonly tokenId: number;
  /** Length of the activation. */
  readonly l2Norm: number;
  /** The explanation; null where the verbalizer gave none. */
  readonly description: string | null;
  /**
   * Error of the direction that the reconstructor makes of it, 0 to 4; null without an explanation that it can take.
   */
  readonly mse: number | null;
  /** Cosine between reconstruction and activation; null as `mse`, NaN where one of the two is zero. */
  readonly cosineSimilarity: number | null;
}

/** A text, read. */
export interface Reading {
  readonly model: string;
  readonly layer: number;
  readonly tokens: readonly TokenReading[];
}

/**
 * Reads a text token by token: the target's activation at the NLA's layer, explained, and reconstructed from the explanation.
 *
 * @throws NlaError `read.empty`, `read.position`, `read.width` where NLA and target do not fit, `read.length` for a text
 *   longer than the target's context
 */
export async function read(
  target: Target,
  nla: ReadingPair,
  text: string,
  options: ReadOptions = {},
): Promise<Reading> {
  const { batch = 64, onReading, positions: wanted, ...explain } = options;
  checkFit(target, nla);
  const ids = target.tokenizer.encode(text, { addSpecialTokens: true });
  if (text === "" || ids.length === 0) {
    throw new NlaError({
      code: "read.empty",
      subject: "the text to read",
      found: "nothing",
      wanted: "at least one token",
      next: "Give some text, or --file with some in it.",
    });
  }
  const { contextLength } = target.model.config;
  if (ids.length > contextLength) {
    throw new NlaError({
      code: "read.length",
      subject: "the text to read",
      found: `${ids.length} tokens`,
      wanted: `at most ${contextLength}, the context of ${target.name}`,
      next: "Cut the text, or read it in parts.",
    });
  }
  const positions = resolvePositions(wanted, ids.length);
  const pieces = target.tokenizer.pieces(ids);
  const [activations] = (await activationsOf(target, nla.layer, [ids], explain)) as [Float32Array];
  const { dim } = target.model.config;
  const tokens: TokenReading[] = [];
  for (let start = 0; start < positions.length; start += batch) {
    const part = positions.slice(start, start + batch);
    const vectors = part.map((position) => activations.slice(position * dim, (position + 1) * dim));
    // A sample's seed goes with its place in the text, so that the size of a pass changes nothing.
    const seed = (explain.seed ?? 0) + start;
    const explanations = await nla.verbalizer.explain(vectors, { ...explain, seed });
    const texts = explanations.map(({ text }) => text);
    const rebuilt = await nla.reconstructor.reconstructSome(texts, explain);
    part.forEach((position, i) => {
      const vector = vectors[i] as Float32Array;
      const prediction = rebuilt[i] ?? null;
      const { mseScale } = nla.reconstructor.contract;
      const scores = prediction && reconstructionScores(prediction, vector, { mseScale });
      const reading: TokenReading = {
        position,
        token: pieces[position] as string,
        tokenId: ids[position] as number,
        l2Norm: Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0)),
        description: texts[i] ?? null,
        mse: scores && scores.mse,
        cosineSimilarity: scores && scores.cosine,
      };
      tokens.push(reading);
      onReading?.(reading);
    });
  }
  return { model: target.name, layer: nla.layer, tokens };
}

function checkFit(target: Target, nla: ReadingPair): void {
  const { dim, layers } = target.model.config;
  const { contract } = nla.verbalizer;
  if (dim === contract.dim && contract.layer < layers) return;
  throw new NlaError({
    code: "read.width",
    subject: `the target ${target.name}`,
    found: `a model of width ${dim} and ${layers} blocks`,
    wanted: `width ${contract.dim} and a block ${contract.layer}, which the NLA was trained for`,
    next: `The NLA's sidecar names its target: ${nla.target ?? "none"}.`,
  });
}

function resolvePositions(wanted: readonly number[] | undefined, length: number): number[] {
  if (wanted === undefined) return Array.from({ length }, (_, i) => i);
  return wanted.map((position) => {
    const resolved = position < 0 ? length + position : position;
    if (Number.isInteger(resolved) && resolved >= 0 && resolved < length) return resolved;
    throw new NlaError({
      code: "read.position",
      subject: `position ${position}`,
      found: `a text of ${length} tokens`,
      wanted: `a position from ${-length} to ${length - 1}`,
      next: "Positions count tokens, BOS included; negative ones count from the end.",
    });
  });
}
