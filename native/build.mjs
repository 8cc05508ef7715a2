// Compiles the native kernels when the package is installed: `npm run build:native`, and by npm's own postinstall. It tries the
// compilers it can find, writes nothing outside native/build, and always ends with exit code 0: without the library everything
// runs on ggml's own kernels, and `nla doctor` says so.
//
//   NLA_KERNELS=off  leaves it out        CC=...  tries that compiler first
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

const HERE = import.meta.dirname;
const OUT = path.join(HERE, "build");
const SOURCES = ["gemm.c", "gemm-bf16.c", "gemm-split.c", "products.c", "rows.c", "attention.c", "decode.c", "optimizer.c", "select.c"];
const LIBRARY =
  { win32: "nlakit-kernels.dll", darwin: "libnlakit-kernels.dylib" }[process.platform] ??
  "libnlakit-kernels.so";
const FLAGS = [
  "-O3",
  "-std=gnu11",
  "-ffp-contract=fast", // a * b + c in one instruction where the processor has it
  "-fno-math-errno", // square roots in vectors
  "-fopenmp-simd", // vector hints in comments of loops; no OpenMP at run time
  "-fvisibility=hidden",
  "-shared",
  ...(process.platform === "win32" ? [] : ["-fPIC"]),
];
// All compilers together; npm install must not hang on one that waits for something.
const DEADLINE_MS = 28_000;

/** Compilers to try, as command and first arguments. */
function compilers() {
  const named = process.env.CC ? [process.env.CC.split(" ").filter(Boolean)] : [];
  return [
    ...named,
    ["cc"],
    ["gcc"],
    ["clang"],
    ["zig", "cc"],
    [process.platform === "win32" ? "python" : "python3", "-m", "ziglang", "cc"],
  ];
}

function build() {
  rmSync(OUT, { recursive: true, force: true });
  mkdirSync(OUT, { recursive: true });
  const tried = [];
  if ((process.env.NLA_KERNELS ?? "").toLowerCase() === "off")
    return { built: null, tried, reason: "NLA_KERNELS=off" };
  const started = Date.now();
  for (const [command, ...first] of compilers()) {
    const left = DEADLINE_MS - (Date.now() - started);
    if (left <= 0) return { built: null, tried, reason: "no time left" };
    const temporary = path.join(OUT, `.${LIBRARY}.${process.pid}`);
    const args = [
      ...first,
      ...FLAGS,
      ...SOURCES,
      "-o",
      temporary,
      ...(process.platform === "win32" ? [] : ["-lm"]),
    ];
    const result = spawnSync(command, args, {
      cwd: HERE,
      timeout: left,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      // Compilers that cache or keep temporary files do it in the package, too.
      env: {
        ...process.env,
        TMPDIR: OUT,
        TMP: OUT,
        TEMP: OUT,
        ZIG_GLOBAL_CACHE_DIR: path.join(OUT, "cache"),
        ZIG_LOCAL_CACHE_DIR: path.join(OUT, "cache"),
      },
    });
    if (result.status === 0) {
      renameSync(temporary, path.join(OUT, LIBRARY));
      rmSync(path.join(OUT, "cache"), { recursive: true, force: true });
      return {
        built: LIBRARY,
        compiler: [command, ...first].join(" "),
        seconds: (Date.now() - started) / 1000,
        tried,
      };
    }
    rmSync(temporary, { force: true });
    const missing = result.error?.code === "ENOENT";
    const why = missing
      ? "not found"
      : (result.error?.message ?? result.stderr?.trim().split("\n").slice(0, 3).join(" | ") ?? "failed");
    tried.push({ compiler: [command, ...first].join(" "), why });
  }
  return { built: null, tried, reason: "no compiler made it" };
}

let report;
try {
  report = build();
} catch (error) {
  report = { built: null, tried: [], reason: String(error?.message ?? error) };
}
try {
  // What happened here, for `nla doctor`.
  const { version } = JSON.parse(readFileSync(path.join(HERE, "../package.json"), "utf8"));
  writeFileSync(path.join(OUT, "report.json"), `${JSON.stringify({ ...report, version }, null, 2)}\n`);
} catch {
  // A folder that cannot be written to: the library is not there either, and doctor says that.
}
const line = report.built
  ? `nlakit: native kernels built with ${report.compiler} in ${report.seconds.toFixed(1)} s`
  : `nlakit: no native kernels (${report.reason}); everything runs on ggml's own. \`nla doctor\` says how to get them.`;
console.log(line);
process.exit(0);
