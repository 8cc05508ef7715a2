// The weights of a model folder: model.safetensors, or the shards that model.safetensors.index.json lists.
//
// Reads both through the one WeightsFile interface and writes a folder back in the layout it had. If a folder has both
// the single file and an index, the single file is the model, as Hugging Face's loader has it. One file's format is in
// safetensors-file.ts, whose names are passed on here: this is the door for other folders.
import { access, readFile } from "node:fs/promises";
import path from "node:path";

import { NlaError, messageOf } from "../error.js";
import { writeFileAtomic } from "./files.js";
import {
  type TensorEntry,
  type TensorToWrite,
  type WeightsFile,
  entryOf,
  openSafetensors,
  writeSafetensors,
} from "./safetensors-file.js";

export * from "./safetensors-file.js";

const SINGLE = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const MAX_SHARDS = 10_000; // the largest public models have under 200; each open shard holds a file handle

/** How a folder's tensors are laid out in files; what {@link saveWeights} needs to write the folder back byte for byte. */
export interface ShardLayout {
  /** In writing order: file name, its `__metadata__`, its tensors in the file's order. */
  readonly files: readonly {
    readonly name: string;
    readonly metadata: Readonly<Record<string, string>>;
    readonly tensors: readonly string[];
  }[];
  /** The index's `metadata` object and the order of its `weight_map`; null for a single file. */
  readonly index: {
    readonly metadata: Readonly<Record<string, unknown>>;
    readonly order: readonly string[];
  } | null;
}

/** A model folder's weights with their layout. */
export interface ModelWeights extends WeightsFile {
  readonly layout: ShardLayout;
}

/**
 * Opens the weights of a model folder, single or sharded. Close it.
 *
 * @throws NlaError `safetensors.no-weights`, `.index` (not such JSON), `.shard-missing`, `.shard-name` (a path that leaves
 * the folder), `.tensor-missing` (listed, not in its shard), `.duplicate-name` (in two shards), and openSafetensors' own.
 */
export async function openWeights(directory: string): Promise<ModelWeights> {
  if (await exists(path.join(directory, SINGLE))) {
    const file = await openSafetensors(path.join(directory, SINGLE));
    return new Shards(file.path, new Map([[SINGLE, file]]), null);
  }
  const indexPath = path.join(directory, INDEX);
  if (!(await exists(indexPath))) {
    throw new NlaError({
      code: "safetensors.no-weights",
      subject: directory,
      found: `neither ${SINGLE} nor ${INDEX}`,
      wanted: "a Hugging Face model folder with safetensors weights",
      next: "Check the path; weights in .bin or .gguf files have to be converted to safetensors first.",
    });
  }
  const index = await readIndex(indexPath);
  const files = new Map<string, WeightsFile>();
  try {
    for (const name of [...new Set(index.map.values())].sort()) {
      const shard = path.join(directory, name);
      if (!(await exists(shard))) throw missingShard(indexPath, name, index.map);
      files.set(name, await openSafetensors(shard));
    }
    for (const [tensor, shard] of index.map) checkListed(indexPath, tensor, shard, files);
    return new Shards(indexPath, files, { metadata: index.metadata, order: [...index.map.keys()] });
  } catch (thrown) {
    for (const file of files.values()) await file.close();
    throw thrown;
  }
}

class Shards implements ModelWeights {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly layout: ShardLayout;
  private readonly homes = new Map<string, WeightsFile>();

  constructor(
    readonly path: string,
    private readonly files: ReadonlyMap<string, WeightsFile>,
    index: ShardLayout["index"],
  ) {
    const entries = new Map<string, TensorEntry>();
    for (const file of files.values()) {
      for (const [name, entry] of file.entries) {
        if (entries.has(name)) throw inTwoShards(name, this.homes.get(name)?.path ?? "", file.path);
        entries.set(name, entry);
        this.homes.set(name, file);
      }
    }
    this.entries = entries;
    this.metadata = Object.assign({}, ...[...files.values()].map(({ metadata }) => metadata)) as Record<
      string,
      string
    >;
    this.layout = {
      files: [...files].map(([name, { metadata, entries }]) => ({
        name,
        metadata,
        tensors: [...entries.keys()],
      })),
      index,
    };
  }

  async read(name: string): Promise<Uint8Array> {
    entryOf(this, name);
    return (this.homes.get(name) as WeightsFile).read(name);
  }

  async readF32(name: string): Promise<Float32Array> {
    entryOf(this, name);
    return (this.homes.get(name) as WeightsFile).readF32(name);
  }

  async close(): Promise<void> {
    for (const file of this.files.values()) await file.close();
  }
}

interface Index {
  readonly metadata: Record<string, unknown>;
  readonly map: Map<string, string>; // tensor -> shard
}

async function readIndex(indexPath: string): Promise<Index> {
  let index: unknown;
  try {
    index = JSON.parse(await readFile(indexPath, "utf8"));
  } catch (thrown) {
    throw indexError(indexPath, "index", messageOf(thrown), "JSON", thrown);
  }
  const { metadata = {}, weight_map: map } = (index ?? {}) as { metadata?: unknown; weight_map?: unknown };
  if (!isRecord(index) || !isRecord(metadata) || !isRecord(map) || Object.keys(map).length === 0) {
    throw indexError(
      indexPath,
      "index",
      JSON.stringify(index).slice(0, 80),
      "{metadata, weight_map: {tensor: file}}",
    );
  }
  for (const [tensor, shard] of Object.entries(map)) {
    // A shard is a plain name beside the index: nothing may lead out of the folder.
    if (typeof shard !== "string" || !/^[\w.-]+\.safetensors$/.test(shard)) {
      throw indexError(
        indexPath,
        "shard-name",
        `${JSON.stringify(shard)} for ${tensor}`,
        "a plain *.safetensors name",
      );
    }
  }
  const shards = new Set(Object.values(map));
  if (shards.size > MAX_SHARDS) {
    throw indexError(indexPath, "index", `${shards.size} shards`, `at most ${MAX_SHARDS}`);
  }
  return { metadata, map: new Map(Object.entries(map as Record<string, string>)) };
}

function checkListed(
  indexPath: string,
  tensor: string,
  shard: string,
  files: Map<string, WeightsFile>,
): void {
  if (files.get(shard)?.entries.has(tensor) === true) return;
  const elsewhere = [...files].find(([, file]) => file.entries.has(tensor))?.[0];
  const found = elsewhere === undefined ? `no "${tensor}" in it` : `"${tensor}" in ${elsewhere} instead`;
  throw indexError(`${indexPath}: ${shard}`, "tensor-missing", found, `"${tensor}", as the index lists`);
}

function missingShard(indexPath: string, shard: string, map: Map<string, string>): NlaError {
  const count = [...map.values()].filter((name) => name === shard).length;
  return indexError(
    indexPath,
    "shard-missing",
    `no file ${shard} (${count} tensors)`,
    "every shard that it lists",
  );
}

function inTwoShards(name: string, first: string, second: string): NlaError {
  return indexError(
    second,
    "duplicate-name",
    `"${name}", which ${first} has too`,
    "each tensor in one shard",
  );
}

function indexError(subject: string, what: string, found: string, wanted: string, cause?: unknown): NlaError {
  return new NlaError({
    code: `safetensors.${what}`,
    subject,
    found,
    wanted,
    next: "Fetch the model folder again; every shard must come from one export.",
    ...(cause === undefined ? {} : { cause }),
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

async function exists(file: string): Promise<boolean> {
  try {
    await access(file);
    return true;
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw thrown;
  }
}

/**
 * Writes a model folder's weights. With `shards` (an opened folder's `layout`) into the same files in the same order, so that
 * unchanged tensors give the same bytes, index included; otherwise into one `model.safetensors` in the order given, with
 * `metadata` (defaults to {format: "pt"}, which Hugging Face's loader asks for). The folder must exist; to replace a whole
 * checkpoint call it inside writeDirectoryAtomic.
 *
 * @throws NlaError `safetensors.layout` if `tensors` are not exactly those of the layout; writeSafetensors' own.
 */
export async function saveWeights(
  directory: string,
  tensors: readonly TensorToWrite[],
  {
    shards,
    metadata = { format: "pt" },
  }: { shards?: ShardLayout; metadata?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  if (shards === undefined) {
    await writeSafetensors(path.join(directory, SINGLE), tensors, { metadata });
    return;
  }
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const placed = new Set(shards.files.flatMap((file) => file.tensors));
  const absent = [...placed].filter((name) => !byName.has(name));
  const homeless = [...byName.keys()].filter((name) => !placed.has(name));
  if (absent.length > 0 || homeless.length > 0) {
    throw new NlaError({
      code: "safetensors.layout",
      subject: directory,
      found: `${absent.length} tensors of the layout not given, ${homeless.length} given without a place`,
      wanted: `exactly the layout's ${placed.size} tensors`,
      next: `First of them: ${absent[0] ?? homeless[0]}. Leave "shards" out to write one file.`,
    });
  }
  for (const file of shards.files) {
    const content = file.tensors.map((name) => byName.get(name) as TensorToWrite);
    await writeSafetensors(path.join(directory, file.name), content, { metadata: file.metadata });
  }
  if (shards.index === null) return;
  const home = new Map(shards.files.flatMap(({ name, tensors }) => tensors.map((tensor) => [tensor, name])));
  const index = {
    metadata: shards.index.metadata,
    weight_map: Object.fromEntries(shards.index.order.map((name) => [name, home.get(name)])),
  };
  await writeFileAtomic(path.join(directory, INDEX), `${JSON.stringify(index, null, 2)}\n`);
}
