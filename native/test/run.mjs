// Compiles the C files of native/test with the kernels and runs it: on this machine under AddressSanitizer and UBSan, and for arm64 under
// qemu-user where that and a cross compiler are installed (NEON has no machine of its own here). Exit code 0: all checks held.
//
//   node native/test/run.mjs [--prebuilt]     --prebuilt: against the libraries in native/prebuilt instead of the sources
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import path from "node:path";
import { LANGUAGE, NATIVE, prebuilt, SOURCES } from "../sources.mjs";

const TESTS = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith(".c"))
  .map((name) => `test/${name}`);
const WARNINGS = ["-Wall", "-Wextra"];
const SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=all"]; // floats are read where they lie
const CROSS = "aarch64-linux-gnu-gcc"; // of the Debian package gcc-aarch64-linux-gnu
const QEMU = "qemu-aarch64"; // of qemu-user
const SYSROOT = "/usr/aarch64-linux-gnu";

const out = path.join(NATIVE, "build");
mkdirSync(out, { recursive: true });
const compiler = process.env.CC ?? "cc";
const ready = process.argv.includes("--prebuilt");

function run(command, args) {
  return spawnSync(command, args, { cwd: NATIVE, stdio: "inherit" }).status ?? 1;
}
const there = (command) => spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;

/** Compiles with `command` into `program`, then runs that; `inputs` are sources or a library. */
function compileAndRun(title, command, flags, inputs, program, runner = []) {
  console.log(`${title}:`);
  const file = path.join(out, program);
  const built = run(command, [
    "-g",
    ...LANGUAGE,
    ...WARNINGS,
    ...flags,
    ...TESTS,
    ...inputs,
    "-o",
    file,
    "-lm",
  ]);
  const [first, ...rest] = [...runner, file];
  return built || run(first, rest);
}

function native() {
  if (!ready) return compileAndRun("sanitized", compiler, ["-O1", ...SANITIZERS], SOURCES, "test");
  const library = prebuilt();
  if (!library?.file) return missing(library);
  return compileAndRun("prebuilt", compiler, ["-O1"], [library.file], "test-prebuilt");
}

function arm64() {
  if (process.arch === "arm64") return 0; // the run above was it
  const absent = [CROSS, QEMU].filter((command) => !there(command));
  if (absent.length > 0) {
    console.log(
      `arm64: not run, no ${absent.join(", no ")} (Debian: qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross)`,
    );
    return 0;
  }
  const runner = [QEMU, "-L", SYSROOT];
  if (!ready) return compileAndRun("arm64 under qemu", CROSS, ["-O2"], SOURCES, "test-arm64", runner);
  const library = prebuilt("linux", "arm64");
  if (!library?.file) return missing(library);
  return compileAndRun(
    "prebuilt arm64 under qemu",
    CROSS,
    ["-O1"],
    [library.file],
    "test-arm64-prebuilt",
    runner,
  );
}

function missing(library) {
  console.error(`no prebuilt library: ${library?.refused ?? "run node native/release.mjs"}`);
  return 1;
}

process.exit(native() || arm64());
