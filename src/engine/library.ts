// Finding and opening ggml: which npm package carries the libraries for this platform, whether it is there, whether it is
// the version that the rest of `engine/` was written against. Loading happens once a process.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import koffi from "koffi";
import { NlaError, messageOf } from "../error.js";
import { bindGgml } from "./ggml.js";
import type { Ggml } from "./ggml.js";

/** ggml's own version inside the pinned packages. Another one may have another contract between graph and allocator. */
export const GGML_VERSION = "0.25.1";

// Best first. A GPU package also holds the CPU backends, so one package is enough for everything on a machine.
const PACKAGES: Record<string, readonly string[]> = {
  "linux-x64": ["linux-x64-cuda", "linux-x64-vulkan", "linux-x64"],
  "linux-arm64": ["linux-arm64"],
  "darwin-arm64": ["mac-arm64-metal"],
  "darwin-x64": ["mac-x64"],
  "win32-x64": ["win-x64-cuda", "win-x64-vulkan", "win-x64"],
  "win32-arm64": ["win-arm64"],
};

/** The library with the registry of backends, and no backend ("libggml-vulkan.so"). */
export const REGISTRY_FILE = /^(lib)?ggml(\.[\w.]+)?\.(so|dylib|dll)$/;

/** An opened ggml and where it came from. */
export interface GgmlLibrary {
  readonly ggml: Ggml;
  readonly version: string;
  readonly commit: string;
  readonly packageName: string;
  readonly packageVersion: string;
  readonly directory: string;
  /** What ggml wrote to its log while the backends were loaded. */
  readonly log: readonly string[];
}

/** A package of native libraries, installed or not. */
export interface NativePackage {
  readonly name: string;
  readonly version: string | null;
  readonly directory: string | null;
}

const require = createRequire(import.meta.url);

/** The packages that could serve this platform, best first, with what is installed. */
export function nativePackages(platform = `${process.platform}-${process.arch}`): NativePackage[] {
  return (PACKAGES[platform] ?? []).map((tail) => {
    const name = `@node-llama-cpp/${tail}`;
    try {
      const root = path.dirname(path.dirname(require.resolve(name)));
      const { version } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as {
        version: string;
      };
      const directory = path.join(root, "bins", tail);
      return { name, version, directory: existsSync(directory) ? directory : null };
    } catch {
      return { name, version: null, directory: null }; // not installed: optional dependencies may be left out
    }
  });
}

function libraryFile(directory: string, pattern: RegExp): string {
  const name = readdirSync(directory).find((file) => pattern.test(file));
  if (name === undefined) {
    throw new NlaError({
      code: "engine.library-missing",
      subject: directory,
      found: `no file like ${pattern.source} among ${readdirSync(directory).join(", ")}`,
      wanted: "the ggml libraries of the pinned package",
      next: "Reinstall the package with `npm ci`.",
    });
  }
  return path.join(directory, name);
}

let loaded: GgmlLibrary | undefined;

/**
 * Opens ggml and its backends; later calls return the same object.
 *
 * @throws NlaError `engine.platform`, `engine.package-missing`, `engine.library-missing`, `engine.load`, `engine.version`
 */
export function loadLibrary(): GgmlLibrary {
  if (loaded) return loaded;
  const platform = `${process.platform}-${process.arch}`;
  const candidates = nativePackages(platform);
  if (candidates.length === 0) {
    throw new NlaError({
      code: "engine.platform",
      subject: "the compute engine",
      found: `the platform ${platform}`,
      wanted: `one of ${Object.keys(PACKAGES).join(", ")}`,
      next: "Run nlakit on one of those.",
    });
  }
  const chosen = candidates.find((candidate) => candidate.directory !== null);
  if (!chosen?.directory || !chosen.version) {
    throw new NlaError({
      code: "engine.package-missing",
      subject: "the compute engine",
      found: "none of its packages installed",
      wanted: candidates.map((candidate) => candidate.name).join(" or "),
      next: `Run \`npm install ${candidates.at(-1)?.name}\`; installing with --omit=optional leaves it out.`,
    });
  }
  const { directory } = chosen;
  const base = libraryFile(directory, /^(lib)?ggml-base\.(so|dylib|dll)$/);
  // "libggml.v0.5.0.so", in a package for GPUs "libggml.vulkan.v0.5.0.so".
  const registry = libraryFile(directory, REGISTRY_FILE);
  let ggml: Ggml;
  try {
    ggml = bindGgml(base, registry);
  } catch (cause) {
    throw new NlaError({
      code: "engine.load",
      subject: registry,
      found: messageOf(cause),
      wanted: `the libraries of ggml ${GGML_VERSION}`,
      next: "Reinstall with `npm ci`; `nla doctor` prints what is there.",
      cause,
    });
  }
  const version = ggml.ggml_version();
  if (version !== GGML_VERSION) {
    throw new NlaError({
      code: "engine.version",
      subject: chosen.name,
      found: `ggml ${version}`,
      wanted: `ggml ${GGML_VERSION}, the version that the engine is written and tested against`,
      next: "Run `npm ci`, which installs the pinned version.",
    });
  }
  const log: string[] = [];
  const proto = koffi.proto("void nlakit_ggml_log(int level, const char* text, void* userData)");
  const callback = koffi.register(
    (_level: number, text: string) => void log.push(text.trimEnd()),
    koffi.pointer(proto),
  );
  ggml.ggml_log_set(callback as never, null); // otherwise ggml writes its loading messages to stderr
  ggml.ggml_backend_load_all_from_path(directory);
  loaded = {
    ggml,
    version,
    commit: ggml.ggml_commit(),
    packageName: chosen.name,
    packageVersion: chosen.version,
    directory,
    log,
  };
  return loaded;
}
