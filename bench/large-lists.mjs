// Reads a Parquet file whose list column holds more than 4 GiB of values, every value checked, in flat memory. The file is written first,
// by DuckDB in a process of its own, and removed afterwards. Prints a markdown table row. Needs `npm run build` and some disk.
//
//   node bench/large-lists.mjs [--rows 300000] [--width 4096] [--row-group 10240] [--folder DIR]
//
// --read FILE reads a file that is there instead, of the same values (row % 4096 + element / width), and leaves it.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { DuckDBInstance } from "@duckdb/node-api";
import { openParquet } from "../dist/data/parquet.js";

const { values: flags } = parseArgs({
  options: {
    rows: { type: "string", default: "300000" },
    width: { type: "string", default: "4096" },
    "row-group": { type: "string", default: "10240" },
    folder: { type: "string", default: tmpdir() },
    write: { type: "string" },
    read: { type: "string" },
  },
});
const rows = Number(flags.rows);
const width = Number(flags.width);
const PERIOD = 4096; // row % PERIOD + element / width is exact in float32 for any width that is a power of two up to 4096
const gib = (bytes) => (bytes / 2 ** 30).toFixed(2);
const valueOf = (row, element) => (row % PERIOD) + element / width;

if (flags.write !== undefined) {
  const instance = await DuckDBInstance.create(":memory:", {
    threads: "2",
    preserve_insertion_order: "true",
  });
  const connection = await instance.connect();
  const vector = `list_transform(range(${width}), x -> (i % ${PERIOD} + x / ${width})::FLOAT)`;
  await connection.run(
    `COPY (SELECT 'doc' || i AS doc_id, ${vector} AS activation_vector FROM range(${rows}) AS r(i))
     TO '${flags.write.replaceAll("'", "''")}' (FORMAT parquet, COMPRESSION uncompressed, ROW_GROUP_SIZE ${flags["row-group"]})`,
  );
  process.exit(0);
}

const folder = mkdtempSync(path.join(flags.folder, "large-lists-"));
try {
  const file = flags.read ?? path.join(folder, "large.parquet");
  let started = performance.now();
  const written = flags.read
    ? { status: 0 }
    : spawnSync(process.execPath, [...process.argv.slice(1), "--write", file], {
        stdio: "inherit",
      });
  if (written.status !== 0) throw new Error(`writing ended with ${written.status ?? written.signal}`);
  if (!flags.read) console.error(`written in ${((performance.now() - started) / 1000).toFixed(0)} s`);

  started = performance.now();
  const parquet = await openParquet(file);
  if (parquet.vectorWidth !== width || parquet.rowCount !== rows) throw new Error("another width or count");
  let read = 0;
  let wrong = 0;
  for await (const chunk of parquet.chunks()) {
    if (chunk.start !== read) throw new Error(`rows ${chunk.start} come after row ${read}`);
    const vectors = chunk.vectors();
    const names = chunk.strings("doc_id");
    for (let row = 0; row < chunk.rowCount; row++) {
      if (names[row] !== `doc${read + row}`) wrong++;
      for (let i = 0; i < width; i++) if (vectors[row * width + i] !== valueOf(read + row, i)) wrong++;
    }
    read += chunk.rowCount;
  }
  const seconds = (performance.now() - started) / 1000;
  // The end of the file by itself, as a resumed run reads it.
  for await (const chunk of parquet.chunks({ start: rows - 3 })) {
    const last = chunk.vectors().subarray(-width);
    if (chunk.start + chunk.rowCount === rows && last[width - 1] !== valueOf(rows - 1, width - 1)) wrong++;
  }
  parquet.close();
  console.log(
    "| rows | width | rows of a group | values, GiB | file, GiB | rows read | wrong values | seconds | peak memory, GiB |",
  );
  console.log("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  const peak = gib(1024 * process.resourceUsage().maxRSS);
  const cells = [
    rows,
    width,
    flags.read ? "" : flags["row-group"],
    gib(4 * rows * width),
    gib(statSync(file).size),
    read,
    wrong,
  ];
  console.log(`| ${[...cells, seconds.toFixed(0), peak].join(" | ")} |`);
  if (wrong > 0 || read !== rows) process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
