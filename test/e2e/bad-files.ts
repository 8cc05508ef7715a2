// Files with one fault each, made from whole ones: model folders from the bundled target, Parquet files from a run's own.
// What the fault is, is the test's to say; here are the tools to cut, edit and copy.
import { cp, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { DuckDBInstance } from "@duckdb/node-api";
import { REPOSITORY } from "./built-command.js";

/** The bundled target. */
export const TARGET = path.join(REPOSITORY, "assets/aidreams260K");

/** A safetensors header as its JSON has it. */
export type Header = Record<string, { dtype: string; shape: number[]; data_offsets: number[] }>;

/** Makes files under `root`. */
export class BadFiles {
  constructor(readonly root: string) {}

  /** A copy of a folder, the bundled target unless another is named, to be spoilt by `edit`. */
  async folder(name: string, edit: (folder: string) => Promise<unknown>, from = TARGET): Promise<string> {
    const folder = path.join(this.root, name);
    await cp(from, folder, { recursive: true });
    await edit(folder);
    return folder;
  }

  /** A copy of the target with keys of its config.json replaced. */
  config(name: string, keys: Readonly<Record<string, unknown>>): Promise<string> {
    return this.folder(name, (folder) =>
      editText(path.join(folder, "config.json"), (text) => JSON.stringify({ ...JSON.parse(text), ...keys })),
    );
  }

  /** A copy of the target with another header in its weights; `edit` changes it or returns its bytes, `length` is the stated one. */
  header(
    name: string,
    edit: (header: Header) => string | void,
    { length }: { readonly length?: bigint } = {},
  ): Promise<string> {
    return this.folder(name, async (folder) => {
      const file = path.join(folder, "model.safetensors");
      const bytes = await readFile(file);
      const end = 8 + Number(bytes.readBigUInt64LE(0));
      const header = JSON.parse(bytes.subarray(8, end).toString()) as Header & { __metadata__?: unknown };
      delete header.__metadata__;
      const text = Buffer.from(edit(header) ?? JSON.stringify(header));
      const stated = Buffer.alloc(8);
      stated.writeBigUInt64LE(length ?? BigInt(text.length));
      await writeFile(file, Buffer.concat([stated, text, bytes.subarray(end)]));
    });
  }

  /** A copy of a data file with its sidecar, its rows those of a SELECT with `{file}` for the file. */
  async parquet(name: string, from: string, select: string): Promise<string> {
    const file = path.join(this.root, `${name}.parquet`);
    const instance = await DuckDBInstance.create(":memory:", { threads: "1" });
    const connection = await instance.connect();
    await connection.run(`COPY (${select.replaceAll("{file}", `'${from}'`)}) TO '${file}' (FORMAT parquet)`);
    connection.closeSync();
    instance.closeSync();
    await cp(`${from}.nla_meta.yaml`, `${file}.nla_meta.yaml`);
    return file;
  }

  /** A file with these bytes. */
  async file(name: string, content: string | Uint8Array): Promise<string> {
    const file = path.join(this.root, name);
    await writeFile(file, content);
    return file;
  }
}

/** Rewrites a text file; an edit that changes nothing is a mistake in the test. */
export async function editText(file: string, edit: (text: string) => string): Promise<void> {
  const before = await readFile(file, "utf8");
  const after = edit(before);
  if (after === before) throw new Error(`nothing was changed in ${file}`);
  await writeFile(file, after);
}
