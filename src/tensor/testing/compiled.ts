// Compiles the tensor layer into a temporary folder, for tests that need processes of their own: Node does not run
// TypeScript in every version that nlakit supports, and a test runner's process has a memory use of its own.
import { execFile } from "node:child_process";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = path.resolve(import.meta.dirname, "../../..");

/** Compiled programs of `testing/children/`. */
export interface Compiled {
  /** Runs a program with garbage collection at hand, and gives what it printed. Throws where its exit code is not 0. */
  readonly run: (program: string, ...values: readonly (string | number)[]) => Promise<string>;
  readonly remove: () => Promise<void>;
}

/** Compiles `testing/children/*.ts` and what they import. */
export async function compileChildren(): Promise<Compiled> {
  const directory = await mkdtemp(path.join(tmpdir(), "nlakit-test-"));
  const outDir = path.join(directory, "dist");
  const settings = {
    extends: path.join(root, "tsconfig.json"),
    compilerOptions: {
      noEmit: false,
      rootDir: path.join(root, "src"),
      outDir,
      typeRoots: [path.join(root, "node_modules/@types")],
    },
    include: [path.join(root, "src/tensor/testing/children/*.ts")],
  };
  await writeFile(path.join(directory, "tsconfig.json"), JSON.stringify(settings));
  await writeFile(path.join(directory, "package.json"), '{"type":"module"}');
  await symlink(path.join(root, "node_modules"), path.join(directory, "node_modules"), "junction");
  await symlink(path.join(root, "native"), path.join(directory, "native"), "junction"); // where the engine looks for its kernels
  await run(path.join(root, "node_modules/.bin/tsc"), ["-p", path.join(directory, "tsconfig.json")], {
    shell: process.platform === "win32",
  });
  return {
    run: async (program, ...values) => {
      const file = path.join(outDir, "tensor/testing/children", `${program}.js`);
      // glibc keeps a freed block of a megabyte at times, and gives it back at others: up to 30 MB of resident memory that
      // nobody leaks. With a fixed threshold each block is mapped, and returned when it is freed.
      const env = { ...process.env, MALLOC_MMAP_THRESHOLD_: "131072" };
      const { stdout } = await run(process.execPath, ["--expose-gc", file, ...values.map(String)], { env });
      return stdout.trim();
    },
    remove: () => rm(directory, { recursive: true, force: true }),
  };
}
