// Compiles native/test/test.c with the kernels under AddressSanitizer and UBSan, and runs it. Exit code 0: all checks held.
import { spawnSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import path from "node:path";

const NATIVE = path.resolve(import.meta.dirname, "..");
const SOURCES = [
  "gemm.c",
  "gemm-bf16.c",
  "gemm-split.c",
  "products.c",
  "rows.c",
  "attention.c",
  "decode.c",
  "optimizer.c",
  "select.c",
  "test/test.c",
];
const FLAGS = [
  "-O1",
  "-g",
  "-std=gnu11",
  "-ffp-contract=fast",
  "-fno-math-errno",
  "-fopenmp-simd",
  "-Wall",
  "-Wextra",
];
const SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=all"]; // floats are read where they lie

const out = path.join(NATIVE, "build");
mkdirSync(out, { recursive: true });
const program = path.join(out, "test");
const compiler = process.env.CC ?? "cc";
const built = spawnSync(compiler, [...FLAGS, ...SANITIZERS, ...SOURCES, "-o", program, "-lm"], {
  cwd: NATIVE,
  stdio: "inherit",
});
if (built.status !== 0) process.exit(built.status ?? 1);
process.exit(spawnSync(program, [], { stdio: "inherit" }).status ?? 1);
