// For end-to-end tests: the package as users get it, built into a temporary folder (never into dist/, which others may be
// using), and its `nla` command in child processes that can be watched, interrupted and killed.
import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { copyFile, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

/** The checkout. */
export const REPOSITORY = path.resolve(import.meta.dirname, "../..");

/** How a command ended. */
export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Options of {@link BuiltCommand.run}. */
export interface RunOptions {
  /** Called with the process as soon as it is there: to send it signals. */
  readonly onStart?: (child: ChildProcess) => void;
  /** Called with each object of the progress that `--json` writes to standard error. */
  readonly onProgress?: (event: Readonly<Record<string, unknown>>, child: ChildProcess) => void;
  /** Shell words before the command, such as a `ulimit`; POSIX only. */
  readonly shellPrefix?: string;
}

/** A built package with its command. */
export interface BuiltCommand extends AsyncDisposable {
  /** A folder for files of the test; the package is in `package` in it. */
  readonly folder: string;
  readonly packageFolder: string;
  /** Runs `nla` in `folder`, with one fixed time for `created_at`. */
  run(args: readonly string[], options?: RunOptions): Promise<Ended>;
  /** Runs another script of the package with Node. */
  script(file: string, args?: readonly string[]): Promise<Ended>;
}

/** What every child gets: the same time in every file, no colours. */
const ENVIRONMENT = { ...process.env, SOURCE_DATE_EPOCH: "1700000000", NO_COLOR: "1" };

/** Runs the TypeScript compiler on a project file; the build's own, types checked. */
export async function compile(project: string, args: readonly string[] = []): Promise<void> {
  const tsc = path.join(REPOSITORY, "node_modules/typescript/bin/tsc");
  try {
    await promisify(execFile)(process.execPath, [tsc, "-p", project, ...args], { cwd: REPOSITORY });
  } catch (thrown) {
    throw new Error(`the sources do not compile: ${(thrown as { stdout?: string }).stdout}`, {
      cause: thrown,
    });
  }
}

/** Builds the package into a temporary folder. */
export async function buildCommand(): Promise<BuiltCommand> {
  const folder = await mkdtemp(path.join(os.tmpdir(), "nla-e2e-"));
  const packageFolder = path.join(folder, "package");
  try {
    await compile("tsconfig.build.json", ["--outDir", path.join(packageFolder, "dist")]);
    await copyFile(path.join(REPOSITORY, "package.json"), path.join(packageFolder, "package.json"));
    for (const name of ["node_modules", "assets", "configs"]) {
      await symlink(path.join(REPOSITORY, name), path.join(packageFolder, name), "junction");
    }
  } catch (thrown) {
    await rm(folder, { recursive: true, force: true });
    throw thrown;
  }
  const main = path.join(packageFolder, "dist/cli/main.js");
  return {
    folder,
    packageFolder,
    run: (args, options = {}) => runNode(main, args, folder, options),
    script: (file, args = []) => runNode(file, args, folder, {}),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

function runNode(
  file: string,
  args: readonly string[],
  cwd: string,
  { onStart, onProgress, shellPrefix }: RunOptions,
): Promise<Ended> {
  const command = [process.execPath, file, ...args];
  const [program, words] =
    shellPrefix === undefined
      ? [process.execPath, command.slice(1)]
      : ["sh", ["-c", `${shellPrefix}; exec "$@"`, "sh", ...command]];
  const child = spawn(program, words, { cwd, env: ENVIRONMENT, stdio: ["ignore", "pipe", "pipe"] });
  const text = { stdout: "", stderr: "" };
  let line = "";
  child.stdout.on("data", (chunk: Buffer) => void (text.stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => {
    text.stderr += chunk.toString();
    const lines = (line + chunk.toString()).split("\n");
    line = lines.pop() ?? "";
    for (const each of lines) {
      if (each.startsWith("{")) onProgress?.(JSON.parse(each) as Record<string, unknown>, child);
    }
  });
  onStart?.(child);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, ...text }));
  });
}

/** Lines of a config that runs through every stage in two seconds; `corpus.txt` beside it has its text. */
const TINY_CONFIG = `
target: aidreams260K
layer: 2
corpus: { path: corpus.txt, cut: 200 }
positions: { per_document: 2, min_position: 8, max_length: 60 }
splits: { ar_sft: 0.3, av_sft: 0.3, rl: 0.3, eval: 0.1 }
labels: { words_before: 1, words_after: 0 }
reconstructor: { steps: 7, batch: 8, micro_batch: 4, lr: 5.0e-4, warmup: 2 }
verbalizer: { steps: 7, batch: 8, micro_batch: 4, lr: 3.0e-3, warmup: 2 }
rl:
  steps: 6
  prompts: 4
  group: 4
  micro_batch: 8
  max_new_tokens: 6
  lr_verbalizer: 1.0e-4
  lr_reconstructor: 3.0e-4
log: { eval_every: 3, eval_rows: 8, sample_every: 3, samples: 2, checkpoint_every: 2 }
compute: f32
threads: 1
`;

/** Steps of each training stage in {@link writeTinyConfig}'s config. */
export const TINY_STEPS = { ar_sft: 7, av_sft: 7, rl: 6 } as const;

/** Writes a tiny config, with 60 documents of 200 characters, and returns its path. */
export async function writeTinyConfig(folder: string): Promise<string> {
  const text = await readFile(path.join(REPOSITORY, "assets/text/shakespeare.txt"), "utf8");
  await writeFile(path.join(folder, "corpus.txt"), text.slice(0, 60 * 200));
  const file = path.join(folder, "tiny.yaml");
  await writeFile(file, TINY_CONFIG);
  return file;
}
