// For kill tests: compiles a few source files into a temporary folder, so that a plain Node process can import them, and
// runs a script there that can be killed. Not part of the package (tsconfig.build.json leaves `testing/` out).
import { execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const repository = path.resolve(import.meta.dirname, "../../..");

/** Source files as JavaScript in a temporary folder. */
export interface Compiled {
  readonly folder: string;
  /** Writes a script that imports from `./dist/train/...` and returns its path. */
  script(name: string, text: string): Promise<string>;
  remove(): Promise<void>;
}

/** Compiles `files` (relative to `src/`) and what they import. */
export async function compileSources(files: readonly string[]): Promise<Compiled> {
  const folder = await mkdtemp(path.join(os.tmpdir(), "nla-kill-"));
  await mkdir(path.join(folder, "dist"));
  await symlink(path.join(repository, "node_modules"), path.join(folder, "node_modules"), "junction");
  await writeFile(path.join(folder, "package.json"), JSON.stringify({ type: "module" }));
  await writeFile(
    path.join(folder, "tsconfig.json"),
    JSON.stringify({
      extends: path.join(repository, "tsconfig.json"),
      compilerOptions: {
        noEmit: false,
        rootDir: path.join(repository, "src"),
        outDir: path.join(folder, "dist"),
        typeRoots: [path.join(repository, "node_modules/@types")],
      },
      include: [],
      files: files.map((file) => path.join(repository, "src", file)),
    }),
  );
  const tsc = path.join(repository, "node_modules/typescript/bin/tsc");
  try {
    await promisify(execFile)(process.execPath, [tsc, "-p", folder]);
  } catch (thrown) {
    await rm(folder, { recursive: true, force: true });
    throw new Error(`the sources do not compile: ${(thrown as { stdout?: string }).stdout}`, {
      cause: thrown,
    });
  }
  return {
    folder,
    script: async (name, text) => {
      const file = path.join(folder, name);
      await writeFile(file, text);
      return file;
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

/** How a script ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
}

/** Runs a script; with `killAfterMs` it gets SIGKILL that long after its first line of output. */
export function runScript(
  file: string,
  args: readonly string[],
  killAfterMs: number | null = null,
): Promise<Ended> {
  const child = spawn(process.execPath, [file, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  let timer: NodeJS.Timeout | undefined;
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString();
    if (killAfterMs !== null) timer ??= setTimeout(() => child.kill("SIGKILL"), killAfterMs);
  });
  child.stderr.on("data", (chunk: Buffer) => void (output += chunk.toString()));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, output });
    });
  });
}
