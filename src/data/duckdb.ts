// DuckDB as this package uses it: in memory, bounded, offline, one thread unless told otherwise, and its errors as ours.
//
// The only file that makes a DuckDB instance. SQL is written where it is needed (parquet*.ts); quoting of names, texts and
// paths is done with the functions here, because a path or a column name can hold anything.
import { type DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";

import { NlaError, messageOf } from "../error.js";
import { isDiskFull } from "./files.js";

/** Bounds for DuckDB. One thread keeps the order of rows, and so the bytes of what is written, fixed. */
export interface DuckOptions {
  /** MiB that DuckDB may hold. What does not fit is spilled if there is a folder for it. Defaults to 512. */
  readonly memoryLimitMb?: number;
  /** Defaults to 1. */
  readonly threads?: number;
}

/** Opens an in-memory database. Without `spillFolder` it never writes to the disk by itself. */
export async function openDuck(
  { memoryLimitMb = 512, threads = 1 }: DuckOptions,
  spillFolder: string | null = null,
): Promise<DuckDBInstance> {
  return DuckDBInstance.create(":memory:", {
    memory_limit: `${memoryLimitMb}MiB`,
    threads: String(threads),
    temp_directory: spillFolder ?? "",
    preserve_insertion_order: "true",
    // Both would reach for the network when a file needs an extension that is not there.
    autoinstall_known_extensions: "false",
    autoload_known_extensions: "false",
  });
}

/** Opens a database that may spill into `spillFolder`, gives `use` a connection, and closes both. */
export async function withDuck<T>(
  options: DuckOptions,
  spillFolder: string | null,
  use: (connection: DuckDBConnection) => Promise<T>,
): Promise<T> {
  const instance = await openDuck(options, spillFolder);
  try {
    const connection = await instance.connect();
    try {
      return await use(connection);
    } finally {
      connection.closeSync();
    }
  } finally {
    instance.closeSync();
  }
}

/** A SQL string literal. */
export function sqlText(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

/** A quoted SQL name. */
export function sqlName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** A SQL literal for one file to read: `*`, `?` and `[` in a path would otherwise be patterns. */
export function sqlPath(file: string): string {
  return sqlText(file.replaceAll(/[*?[]/g, (c) => `[${c}]`));
}

/**
 * An error from DuckDB, as ours, while it read (`parquet.corrupt`) or wrote (`parquet.write`) the file `subject`. A full
 * disk is passed on for files.ts to word.
 */
export function duckError(
  thrown: unknown,
  subject: string,
  code: "parquet.corrupt" | "parquet.write",
): unknown {
  if (thrown instanceof NlaError || isDiskFull(thrown)) return thrown;
  const [found = ""] = messageOf(thrown).split("\n");
  const parts = { subject, found, cause: thrown };
  if (found.startsWith("Out of Memory")) {
    const next = "Raise memoryLimitMb or use smaller row groups.";
    return new NlaError({
      ...parts,
      code: "parquet.memory",
      wanted: "to work within the memory limit",
      next,
    });
  }
  if (code === "parquet.write") {
    return new NlaError({
      ...parts,
      code,
      wanted: "the file written",
      next: "Nothing was replaced. See the message.",
    });
  }
  return new NlaError({
    ...parts,
    code,
    wanted: "a sound Parquet file",
    next: "Write or fetch the file again.",
  });
}
