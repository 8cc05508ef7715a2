// Cross-compiles the kernel library for every platform that nlakit runs on, into native/prebuilt with SHA-256 checksums. Needs
// zig, which compiles for all of them on any of them; `pip install ziglang` has it.
//
//   node native/release.mjs [--zig "zig"] [--only linux-x64,linux-arm64]     or ZIG="python3 -m ziglang"
//   node native/release.mjs --verify       compares the files that are there with their checksums
//
// Exit code 0: every library was made (or is as its checksum says).
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import {
  CHECKSUMS,
  libraryFlags,
  libraryName,
  linkFlags,
  NATIVE,
  PREBUILT,
  prebuilt,
  sha256,
  SOURCES,
} from "./sources.mjs";

// In Node's names and in zig's. The oldest glibc that zig's headers and Node 20's own builds agree on.
const TARGETS = {
  "linux-x64": "x86_64-linux-gnu.2.28",
  "linux-arm64": "aarch64-linux-gnu.2.28",
  "darwin-x64": "x86_64-macos.11.0",
  "darwin-arm64": "aarch64-macos.11.0",
  "win32-x64": "x86_64-windows-gnu",
  "win32-arm64": "aarch64-windows-gnu",
};

const { values: flags } = parseArgs({
  options: {
    zig: { type: "string", default: process.env.ZIG ?? "zig" },
    only: { type: "string", default: Object.keys(TARGETS).join(",") },
    verify: { type: "boolean", default: false },
  },
});
const chosen = flags.only.split(",");
const unknown = chosen.filter((each) => !(each in TARGETS));
if (unknown.length > 0) {
  console.error(`unknown platform ${unknown.join(", ")}; there are ${Object.keys(TARGETS).join(", ")}`);
  process.exit(2);
}

let failed = 0;
if (flags.verify) {
  for (const each of chosen) {
    const found = prebuilt(...each.split("-"));
    if (!found?.file) failed++;
    console.log(`${each}: ${found ? (found.refused ?? "as its checksum says") : "absent"}`);
  }
  process.exit(failed > 0 ? 1 : 0);
}

const [command, ...first] = flags.zig.split(" ").filter(Boolean);
const cache = mkdtempSync(path.join(tmpdir(), "nlakit-zig-"));
process.on("exit", () => rmSync(cache, { recursive: true, force: true }));
const environment = { ...process.env, ZIG_GLOBAL_CACHE_DIR: cache, ZIG_LOCAL_CACHE_DIR: cache };

for (const each of chosen) {
  const [platform] = each.split("-");
  const folder = path.join(PREBUILT, each);
  const file = path.join(folder, libraryName(platform));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const started = Date.now();
  const args = [
    "cc",
    "-target",
    TARGETS[each],
    ...libraryFlags(platform),
    "-fno-sanitize=all",
    "-Wl,-s",
    ...SOURCES,
  ];
  const result = spawnSync(command, [...first, ...args, "-o", file, ...linkFlags(platform)], {
    cwd: NATIVE,
    env: environment,
    encoding: "utf8",
  });
  if (result.status !== 0) {
    failed++;
    console.error(`${each}: FAILED\n${result.error?.message ?? result.stderr}`);
    rmSync(folder, { recursive: true, force: true });
    continue;
  }
  // Link libraries and debug files that zig puts beside a DLL are no part of the release.
  for (const beside of readdirSync(folder))
    if (beside !== path.basename(file)) rmSync(path.join(folder, beside));
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  console.log(`${each}: ${statSync(file).size.toLocaleString("en")} bytes, ${seconds} s, ${sha256(file)}`);
}

const lines = Object.keys(TARGETS).flatMap((each) => {
  const name = `${each}/${libraryName(each.split("-")[0])}`;
  try {
    return [`${sha256(path.join(PREBUILT, name))}  ${name}`];
  } catch (error) {
    if (error.code === "ENOENT") return [];
    throw error;
  }
});
mkdirSync(PREBUILT, { recursive: true });
writeFileSync(path.join(PREBUILT, CHECKSUMS), `${lines.join("\n")}\n`);
console.log(`${lines.length} checksums:\n${readFileSync(path.join(PREBUILT, CHECKSUMS), "utf8").trim()}`);
process.exit(failed > 0 ? 1 : 0);
