// Which library of native kernels is taken: the built one first, a prebuilt one only where its checksum is right.
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { findKernels } from "./kernel-file.js";

const NAME =
  { win32: "nlakit-kernels.dll", darwin: "libnlakit-kernels.dylib" }[process.platform as string] ??
  "libnlakit-kernels.so";
const PLATFORM = `${process.platform}-${process.arch}`;

let native = "";
beforeEach(() => (native = mkdtempSync(path.join(tmpdir(), "nlakit-kernels-"))));
afterEach(() => rmSync(native, { recursive: true, force: true }));

function put(name: string, text: string): string {
  const file = path.join(native, name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
  return file;
}
const sum = (text: string) => createHash("sha256").update(text).digest("hex");

test("none at all: the reason is what the build said", () => {
  expect(findKernels(native)).toEqual({ file: null, reason: "nothing was built at install" });
  put(
    "build/report.json",
    JSON.stringify({ reason: "no compiler made it", tried: [{ compiler: "cc", why: "x" }] }),
  );
  expect(findKernels(native)).toEqual({ file: null, reason: "no compiler made it (cc: x)" });
});

test("a prebuilt library with the right checksum is taken, a built one before it", () => {
  const file = put(`prebuilt/${PLATFORM}/${NAME}`, "library");
  put(
    "prebuilt/SHA256SUMS",
    `${sum("another")}  other-x64/${NAME}\n${sum("library")}  ${PLATFORM}/${NAME}\n`,
  );
  expect(findKernels(native)).toEqual({ file, prebuilt: true });
  const built = put(`build/${NAME}`, "built");
  expect(findKernels(native)).toEqual({ file: built, prebuilt: false });
});

test.each([
  [
    "another checksum",
    `${sum("library")}  ${PLATFORM}/${NAME}`,
    /is refused: its SHA-256 is [0-9a-f]{64}, .* says/,
  ],
  [
    "no line for it",
    `${sum("library")}  plan9-vax/${NAME}`,
    /is refused: .*SHA256SUMS has no checksum for it/,
  ],
  ["no list", null, /is refused: ENOENT/],
])("a prebuilt library is refused: %s", (_, list, reason) => {
  put(`prebuilt/${PLATFORM}/${NAME}`, "library, damaged");
  if (list !== null) put("prebuilt/SHA256SUMS", list);
  const found = findKernels(native);
  expect(found.file).toBeNull();
  expect(found).toMatchObject({ reason: expect.stringMatching(reason) as string });
});
