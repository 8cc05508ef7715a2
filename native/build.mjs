// Compiles the native kernels when the package is installed: `npm run build:native`, and by npm's own postinstall. It tries the
// compilers it can find, writes nothing outside native/build, and always ends with exit code 0: without a compiler the prebuilt
// library of this platform is used where the package has one, and without that everything runs on ggml's own kernels, and
// `nla doctor` says so.
//
//   NLA_KERNELS=off  leaves it out        CC=...  tries that compiler first, as in CC=clang or CC="zig cc"
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { libraryFlags, libraryName, linkFlags, NATIVE, prebuilt, SOURCES } from "./sources.mjs";

const OUT = path.join(NATIVE, "build");
const LIBRARY = libraryName();
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

/** Zig compiles for the very processor it runs on unless it is told not to; the library chooses among processors itself. */
function processor(command) {
  return command.some((word) => /zig/.test(path.basename(word))) ? ["-mcpu=baseline"] : [];
}

/** Runs a compiler: null where it did its work in time, else why not. */
function attempt(command, args, left) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: NATIVE,
      timeout: Math.max(left, 1),
      stdio: ["ignore", "ignore", "pipe"],
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
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text) => (said += text));
    child.on("error", ({ code, message }) => resolve(code === "ENOENT" ? "not found" : message));
    child.on("close", (status, signal) => {
      if (status === 0) return resolve(null);
      resolve(signal ? "no time left" : said.trim().split("\n").slice(0, 3).join(" | ") || "failed");
    });
  });
}

/** Compiles the files side by side and links them; null, or why it failed. */
async function compile([command, ...first], temporary, left) {
  const started = Date.now();
  const rest = () => left - (Date.now() - started);
  const base = [...first, ...processor([command, ...first])];
  const objects = SOURCES.map((source) => path.join(OUT, `${source}.o`));
  const flags = libraryFlags().filter((flag) => flag !== "-shared");
  const waiting = SOURCES.map((source, i) => base.concat(flags, "-c", source, "-o", objects[i]));
  let failure = null;
  const work = async () => {
    for (let args = waiting.shift(); args && failure === null; args = waiting.shift())
      failure ??= await attempt(command, args, rest());
  };
  await Promise.all(Array.from({ length: Math.max(2, availableParallelism()) }, work));
  failure ??= await attempt(
    command,
    [...base, ...libraryFlags(), ...objects, "-o", temporary, ...linkFlags()],
    rest(),
  );
  for (const object of objects) rmSync(object, { force: true });
  rmSync(path.join(OUT, "cache"), { recursive: true, force: true });
  return failure;
}

async function build() {
  rmSync(OUT, { recursive: true, force: true });
  mkdirSync(OUT, { recursive: true });
  const tried = [];
  if ((process.env.NLA_KERNELS ?? "").toLowerCase() === "off")
    return { built: null, tried, reason: "NLA_KERNELS=off" };
  const started = Date.now();
  for (const compiler of compilers()) {
    const left = DEADLINE_MS - (Date.now() - started);
    if (left <= 0) return { built: null, tried, reason: "no time left" };
    const temporary = path.join(OUT, `.${LIBRARY}.${process.pid}`);
    const why = await compile(compiler, temporary, left);
    if (why === null) {
      renameSync(temporary, path.join(OUT, LIBRARY));
      return {
        built: LIBRARY,
        compiler: compiler.join(" "),
        seconds: (Date.now() - started) / 1000,
        tried,
      };
    }
    rmSync(temporary, { force: true });
    tried.push({ compiler: compiler.join(" "), why });
  }
  return { built: null, tried, reason: "no compiler made it" };
}

let report;
try {
  report = await build();
} catch (error) {
  report = { built: null, tried: [], reason: String(error?.message ?? error) };
}
let ready = null;
try {
  if (!report.built) ready = prebuilt();
} catch (error) {
  ready = { refused: String(error?.message ?? error) };
}
try {
  // What happened here, for `nla doctor`.
  const { version } = JSON.parse(readFileSync(path.join(NATIVE, "../package.json"), "utf8"));
  writeFileSync(path.join(OUT, "report.json"), `${JSON.stringify({ ...report, version }, null, 2)}\n`);
} catch {
  // A folder that cannot be written to: the library is not there either, and doctor says that.
}
function line() {
  if (report.built) return `native kernels built with ${report.compiler} in ${report.seconds.toFixed(1)} s`;
  const off = report.reason === "NLA_KERNELS=off";
  if (ready?.file && !off) return `no native kernels built (${report.reason}); the prebuilt library is used.`;
  const reason = ready?.refused && !off ? `${report.reason}; ${ready.refused}` : report.reason;
  return `no native kernels (${reason}); everything runs on ggml's own. \`nla doctor\` says how to get them.`;
}
console.log(`nlakit: ${line()}`);
process.exit(0);
