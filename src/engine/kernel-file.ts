// Where the library of native kernels lies: the one compiled at install (native/build), else a prebuilt one of this platform
// (native/prebuilt, made by native/release.mjs), which must be the file that its checksum describes.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { messageOf } from "../error.js";

const NATIVE = path.resolve(import.meta.dirname, "../../native"); // of the package, from src/engine as from dist/engine
const FILES: Readonly<Record<string, string>> = {
  win32: "nlakit-kernels.dll",
  darwin: "libnlakit-kernels.dylib",
};

/** A library, or why there is none. */
export type KernelFile =
  { readonly file: string; readonly prebuilt: boolean } | { readonly file: null; readonly reason: string };

/** Looks for the library. @param native the folder `native` of the package */
export function findKernels(native = NATIVE): KernelFile {
  const name = FILES[process.platform] ?? "libnlakit-kernels.so";
  const built = path.join(native, "build", name);
  if (existsSync(built)) return { file: built, prebuilt: false };
  const platform = `${process.platform}-${process.arch}`;
  const file = path.join(native, "prebuilt", platform, name);
  if (!existsSync(file)) return { file: null, reason: buildFailure(native) };
  const wrong = mismatch(path.join(native, "prebuilt/SHA256SUMS"), `${platform}/${name}`, file);
  if (wrong === null) return { file, prebuilt: true };
  return { file: null, reason: `${buildFailure(native)}; ${file} is refused: ${wrong}` };
}

/** Null where the file is what the list of checksums says; otherwise what is wrong. */
function mismatch(list: string, name: string, file: string): string | null {
  try {
    const lines = readFileSync(list, "utf8").split("\n");
    const wanted = lines.map((line) => line.trim().split(/\s+/)).find(([, of]) => of === name)?.[0];
    if (wanted === undefined) return `${list} has no checksum for it`;
    const found = createHash("sha256").update(readFileSync(file)).digest("hex");
    return found === wanted ? null : `its SHA-256 is ${found}, ${list} says ${wanted}`;
  } catch (error) {
    return messageOf(error);
  }
}

/** What the build at install said. */
function buildFailure(native: string): string {
  try {
    const report = JSON.parse(readFileSync(path.join(native, "build/report.json"), "utf8")) as {
      reason?: string;
      tried?: readonly { compiler: string; why: string }[];
    };
    const tried = (report.tried ?? []).map(({ compiler, why }) => `${compiler}: ${why}`).join("; ");
    return `${report.reason ?? "the build left none"}${tried ? ` (${tried})` : ""}`;
  } catch {
    return "nothing was built at install"; // --ignore-scripts, or a folder that cannot be written
  }
}
