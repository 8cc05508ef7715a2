// A folder of golden values (see its README in ../shared/golden/models) as typed data for tests.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { openSafetensors } from "../../src/data/safetensors.js";

export interface GoldenJson {
  lengths: number[];
  sequences: number[][];
  targets: number[];
  loss: number;
  grad_norm: number;
  adamw: { lr: number; betas: [number, number]; eps: number; weight_decay: number; clip_grad_norm: number };
  generation: { prompt: number[]; tokens: number[] }[];
  inject: { position: number; sequence: number };
  truncated: { block: number; sequence: number };
}

export interface Golden {
  readonly directory: string;
  readonly model: string;
  readonly json: GoldenJson;
  readonly names: readonly string[];
  tensor(name: string): Promise<Float32Array>;
}

export async function openGolden(directory: string, model = directory): Promise<Golden> {
  const file = await openSafetensors(path.join(directory, "golden.safetensors"));
  return {
    directory,
    model,
    json: JSON.parse(readFileSync(path.join(directory, "golden.json"), "utf8")) as GoldenJson,
    names: [...file.entries.keys()],
    tensor: (name) => file.readF32(name),
  };
}

/** |a - b| / |b| over all elements. */
export function relativeL2(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Infinity;
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i++) {
    difference += ((a[i] as number) - (b[i] as number)) ** 2;
    norm += (b[i] as number) ** 2;
  }
  return Math.sqrt(difference / norm);
}

export const hasConfigV5 = (directory: string) => existsSync(path.join(directory, "config.v5.json"));
