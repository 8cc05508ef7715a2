// What every build of the kernels shares: the files, the flags, and where a library for a platform lies. No build is done here.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";

export const NATIVE = import.meta.dirname;
/** Every C file of the library, relative to this folder. */
export const SOURCES = readdirSync(NATIVE)
  .filter((name) => name.endsWith(".c"))
  .toSorted();
/** Flags of any build, tests too. */
export const LANGUAGE = [
  "-std=gnu11",
  "-ffp-contract=fast", // a * b + c in one instruction where the processor has it
  "-fno-math-errno", // square roots in vectors
  "-fopenmp-simd", // vector hints in comments of loops; no OpenMP at run time
];

/** Flags of the library for a platform in Node's names. */
export function libraryFlags(platform = process.platform) {
  const position = platform === "win32" ? [] : ["-fPIC"];
  return ["-O3", ...LANGUAGE, "-fvisibility=hidden", "-shared", ...position];
}

/** What the linker is told after the sources. */
export function linkFlags(platform = process.platform) {
  return platform === "win32" ? [] : ["-lm"];
}

/** The library's file name; src/engine/kernels.ts has the same. */
export function libraryName(platform = process.platform) {
  return (
    { win32: "nlakit-kernels.dll", darwin: "libnlakit-kernels.dylib" }[platform] ?? "libnlakit-kernels.so"
  );
}

/** Prebuilt libraries, `<platform>-<arch>/<file>` in Node's names, and their checksums as sha256sum prints them. */
export const PREBUILT = path.join(NATIVE, "prebuilt");
export const CHECKSUMS = "SHA256SUMS";

export function sha256(file) {
  return createHash("sha256").update(readFileSync(file)).digest("hex");
}

/** The prebuilt library of this platform: its path, or why it is not used. Null where the package has none. */
export function prebuilt(platform = process.platform, arch = process.arch) {
  const name = `${platform}-${arch}/${libraryName(platform)}`;
  const file = path.join(PREBUILT, name);
  if (!existsSync(file)) return null;
  const sums = path.join(PREBUILT, CHECKSUMS);
  const lines = existsSync(sums) ? readFileSync(sums, "utf8").split("\n") : [];
  const wanted = lines.map((line) => line.trim().split(/\s+/)).find(([, of]) => of === name)?.[0];
  if (wanted === undefined) return { refused: `prebuilt/${name} has no checksum in prebuilt/${CHECKSUMS}` };
  if (sha256(file) === wanted) return { file };
  return { refused: `prebuilt/${name} is not the file that prebuilt/${CHECKSUMS} describes` };
}
