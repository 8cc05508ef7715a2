// Bringing weights from disk to a device, one parameter at a time: mapped, copied as stored, or converted.
import { f32ToBf16, f32ToF16 } from "../data/floats.js";
import { canMap, extentOf, isBlockDtype, mapFile, quantizeRows } from "../tensor/index.js";
import type { Device, Dtype, FileMapping, HostArray, Shape, TensorSpec } from "../tensor/index.js";
import { Decoder } from "./decoder.js";
import { checkFinite, checkStored, checkStoredAt } from "./finite.js";
import { parameterShapes } from "./parameters.js";
import type { Parts } from "./parameters.js";
import { bytesHeld, heldAs, requireMemory } from "./storage.js";
import type { Holding } from "./storage.js";
import type { WeightSource } from "./weight-source.js";

/**
 * A decoder of the weights of a source.
 *
 * @throws NlaError `model.memory` before anything is taken, `model.not-finite`
 */
export async function placeDecoder(
  source: WeightSource,
  device: Device,
  parts: Parts,
  holding: Holding,
): Promise<Decoder> {
  const { config } = source;
  const shapes = parameterShapes(config, parts);
  const specs = new Map<string, TensorSpec & { readonly dtype: Dtype }>();
  const mappings = new Map<string, FileMapping | null>();
  const release = () => mappings.forEach((each) => each?.[Symbol.dispose]());
  try {
    for (const [name, shape] of shapes) {
      const { dtype: stored, place } = source.stored(name);
      const dtype = heldAs(holding, name, shape, config, stored);
      // f32 to train is copied: an optimizer writes there. Vectors are, too: they are small, and some change.
      const mapped =
        holding === "stored" && shape.length > 1 && place
          ? mappedAt(device, mappings, place, shape, dtype)
          : null;
      const trainable = holding === "f32";
      specs.set(name, { shape, dtype, parameter: trainable, ...(mapped ? { mapped } : {}) });
    }
    const copied = [...specs.values()].filter(({ mapped }) => !mapped);
    const largest = Math.max(0, ...copied.map(({ shape }) => bytesHeld([{ shape, dtype: "f32" }])));
    requireMemory(source.path, bytesHeld(copied) + 2 * largest);
  } catch (thrown) {
    release();
    throw thrown;
  }
  const kept = [...mappings.values()].filter((each) => each !== null);
  const model = new Decoder(device, config, null, parts, { specs, mappings: kept });
  try {
    for (const [name, { shape, dtype, mapped }] of specs) {
      const { place } = source.stored(name);
      if (!mapped) model.get(name).write(await valuesOf(source, name, shape, dtype));
      else if (place) await checkStoredAt(place, name, dtype, bytesHeld([{ shape, dtype }]));
    }
    return model;
  } catch (thrown) {
    model[Symbol.dispose]();
    throw thrown;
  }
}

function mappedAt(
  device: Device,
  mappings: Map<string, FileMapping | null>,
  { path, offset }: { readonly path: string; readonly offset: number },
  shape: Shape,
  dtype: Dtype,
): TensorSpec["mapped"] | null {
  let file = mappings.get(path);
  if (file === undefined) mappings.set(path, (file = mapFile(path)));
  return file && canMap(device, file, offset, extentOf(shape, path), dtype) ? { file, offset } : null;
}

async function valuesOf(source: WeightSource, name: string, shape: Shape, dtype: Dtype): Promise<HostArray> {
  if (dtype !== "f32" && source.stored(name).dtype === dtype) {
    const bytes = await source.bytes(name);
    checkStored(source.path, name, dtype, bytes);
    return isBlockDtype(dtype)
      ? bytes
      : new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  }
  const values = await source.f32(name);
  checkFinite(source.path, name, values);
  return converted(values, dtype, shape);
}

/** Finite f32 values in the type of a matrix. */
export function converted(values: Float32Array, dtype: Dtype, shape: Shape): HostArray {
  if (dtype === "f16") return f32ToF16(values);
  if (dtype === "bf16") return f32ToBf16(values);
  return isBlockDtype(dtype) ? quantizeRows(dtype, values, shape.at(-1) as number) : values;
}
