// A folder of golden values: golden.json (token ids, settings, numbers) and golden.safetensors (tensors), beside a model or
// an adapter or naming one. Its format is described in docs/models.md. This file reads it; conformance.ts judges by it.
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { NlaError, messageOf } from "../error.js";
import { openSafetensors } from "../data/safetensors.js";
import type { WeightsFile } from "../data/safetensors.js";
import { ADAPTER_CONFIG } from "./lora-files.js";

/** The two files of such a folder. */
export const GOLDEN_JSON = "golden.json";
export const GOLDEN_TENSORS = "golden.safetensors";

const ids = z.array(z.int().min(0)).min(1);

const settings = z.object({
  lr: z.number().positive(),
  betas: z.tuple([z.number(), z.number()]),
  eps: z.number().positive(),
  weight_decay: z.number().min(0),
  clip_grad_norm: z.number().positive(),
});

const continuations = z.array(z.object({ prompt: ids, tokens: ids }));

/** What of golden.json is used. An adapter's may leave out the inputs, which are then those of its base. */
const goldenJson = z.object({
  model: z.string().optional(),
  base: z.string().optional(),
  sequences: z.array(ids).min(1).optional(),
  targets: z.array(z.int()).optional(),
  loss: z.number().optional(),
  grad_norm: z.number().optional(),
  adamw: settings.optional(),
  generation: z.union([continuations, z.record(z.string(), z.union([continuations, z.number()]))]).optional(),
  rounding: z.record(z.string(), z.union([z.number().positive(), z.string()])).optional(),
  inject: z.object({ position: z.int().min(0), sequence: z.int().min(0) }).optional(),
  truncated: z.object({ block: z.int().min(0), sequence: z.int().min(0) }).optional(),
});

/** The values of golden.json. */
export type GoldenValues = Omit<z.output<typeof goldenJson>, "generation"> & {
  readonly generation: z.output<typeof continuations> | undefined;
  readonly sequences: readonly (readonly number[])[];
};

/** An open folder. Close it. */
export interface GoldenFolder {
  readonly directory: string;
  /** The folder of the model that the values are of. */
  readonly model: string;
  readonly values: GoldenValues;
  /** Names of the tensors in the folder itself. */
  readonly names: ReadonlySet<string>;
  /** @throws NlaError of the safetensors reader where there is no such tensor, here or in the base's folder */
  tensor(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

/**
 * Opens a folder of golden values.
 *
 * @param model the folder of the model. Defaults to the folder itself where it holds a config or adapter, else to the one that
 *   golden.json names
 * @param type of the file whose values are meant, in a folder of GGUF files
 * @throws NlaError `model.golden` where golden.json is not of that format, and those of the safetensors reader
 */
export async function openGoldenFolder(
  directory: string,
  model: string | null = null,
  type: string | null = null,
): Promise<GoldenFolder> {
  const own = await readValues(directory);
  const base = own.base === undefined ? null : path.resolve(directory, own.base);
  const inputs = own.sequences ? own : base === null ? null : await readValues(base);
  if (!inputs?.sequences) throw goldenError(directory, "no sequences", "sequences, or a base that has them");
  const files: WeightsFile[] = [await openSafetensors(path.join(directory, GOLDEN_TENSORS))];
  try {
    if (base !== null) files.push(await openSafetensors(path.join(base, GOLDEN_TENSORS)));
    const [file] = files as [WeightsFile];
    return {
      directory,
      model: model ?? (await modelOf(directory, own)),
      values: {
        ...own,
        generation: generationOf(own, type),
        sequences: inputs.sequences,
        targets: own.targets ?? inputs.targets,
      },
      names: namesOf(file, type),
      tensor: (bare) => {
        const name = type === null ? bare : `${type}.${bare}`;
        return (files.find(({ entries }) => entries.has(name)) ?? file).readF32(name);
      },
      close: async () => void (await Promise.all(files.map((each) => each.close()))),
    };
  } catch (thrown) {
    await Promise.all(files.map((each) => each.close()));
    throw thrown;
  }
}

function namesOf({ entries }: WeightsFile, type: string | null): Set<string> {
  if (type === null) return new Set(entries.keys());
  const prefix = `${type}.`;
  const names = [...entries.keys()].filter((name) => name.startsWith(prefix));
  return new Set(names.map((name) => name.slice(prefix.length)));
}

function generationOf(
  { generation }: z.output<typeof goldenJson>,
  type: string | null,
): z.output<typeof continuations> | undefined {
  if (generation === undefined || Array.isArray(generation)) return generation;
  const own = type === null ? undefined : generation[type];
  return typeof own === "number" ? undefined : own; // numbers there say how far other readers are
}

/** One GGUF file of a golden folder. */
export interface GgufValues {
  readonly file: string;
  /** Under which its values stand: `model-q8_0.gguf` has `q8_0`. */
  readonly type: string;
  /** How far rounding the matrices moved the logits, relative L2: as far may products of rounded activations be off. */
  readonly rounding: number;
}

/** The GGUF files of a folder, by name. @throws NlaError `model.golden` where one has no values */
export async function ggufFilesOf(directory: string): Promise<GgufValues[]> {
  const names = await readdir(directory).catch((thrown: unknown) => {
    throw goldenError(directory, messageOf(thrown), "a folder with golden values", thrown);
  });
  const files = names.filter((name) => name.endsWith(".gguf")).sort();
  if (files.length === 0) return [];
  const { rounding = {} } = await readValues(directory);
  return files.map((name) => {
    const type = /^model-(.+)\.gguf$/.exec(name)?.[1] ?? "";
    const moved = rounding[type];
    if (typeof moved === "number") return { file: path.join(directory, name), type, rounding: moved };
    throw goldenError(
      directory,
      `no rounding of ${type || name}`,
      "for each model-TYPE.gguf what rounding to TYPE does",
    );
  });
}

async function readValues(directory: string): Promise<z.output<typeof goldenJson>> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(await readFile(path.join(directory, GOLDEN_JSON), "utf8"));
  } catch (cause) {
    throw goldenError(directory, messageOf(cause), "a folder with golden values", cause);
  }
  const result = goldenJson.safeParse(parsed);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw goldenError(directory, `${issue?.path.join(".")}: ${issue?.message}`, "values in the golden format");
}

async function modelOf(directory: string, { model }: { model?: string | undefined }): Promise<string> {
  for (const file of ["config.json", ADAPTER_CONFIG])
    if (await isThere(path.join(directory, file))) return directory;
  if (model !== undefined) return path.resolve(directory, model);
  throw goldenError(
    directory,
    "neither config.json nor an adapter, and no model named",
    "the model of the values",
  );
}

/** Whether a file is there. @throws what is no absence */
export async function isThere(file: string): Promise<boolean> {
  try {
    await readFile(file);
    return true;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw thrown;
  }
}

/** @param cause what was thrown by a reader, if anything */
export function goldenError(directory: string, found: string, wanted: string, cause?: unknown): NlaError {
  return new NlaError({
    code: "model.golden",
    subject: path.join(directory, GOLDEN_JSON),
    found,
    wanted,
    next: "docs/models.md describes the format; `nla conformance DIR --write` makes such a folder of a model.",
    cause,
  });
}
