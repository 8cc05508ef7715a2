// What the engine finds on this machine, for `nla doctor`: libraries, devices, and for what is missing or broken the reason
// and the next step. It describes and never throws: a machine without the package is what it is asked about.
import { readdirSync } from "node:fs";
import path from "node:path";
import koffi from "koffi";
import { messageOf, NlaError } from "../error.js";
import { Device, listDevices } from "./device.js";
import type { DeviceInfo, DeviceKind } from "./device.js";
import { describeKernels } from "./kernels.js";
import type { KernelReport } from "./kernels.js";
import { GGML_VERSION, loadLibrary, nativePackages } from "./library.js";
import type { GgmlLibrary } from "./library.js";
import { selfTest } from "./self-test.js";
import type { SelfTestResult } from "./self-test.js";

/** Something that keeps a part of the machine from being used. */
export interface EngineProblem {
  readonly what: string;
  readonly why: string;
  readonly next: string;
}

/** A device and whether it computes. */
export interface DeviceReport {
  readonly name: string;
  readonly description: string;
  readonly kind: DeviceKind;
  readonly memoryBytes: number | null;
  readonly usable: boolean;
  /** Why not, or null. */
  readonly reason: string | null;
  /** Known values computed on it; empty where it did not open. */
  readonly selfTest: readonly SelfTestResult[];
}

/** The libraries that are loaded. */
export interface GgmlReport {
  readonly version: string;
  readonly commit: string;
  /** `name@version` of the npm package. */
  readonly package: string;
  readonly directory: string;
  /** Files of ggml in it. */
  readonly libraries: readonly string[];
  /** What ggml said while it loaded its backends. */
  readonly log: readonly string[];
}

/** See {@link describeEngine}. */
export interface EngineReport {
  readonly platform: string;
  /** Null where no library could be loaded; `problems` says why. */
  readonly ggml: GgmlReport | null;
  readonly devices: readonly DeviceReport[];
  /** nlakit's own CPU kernels, and where there are none the reason and what to do; null without ggml. */
  readonly kernels: KernelReport | null;
  readonly problems: readonly EngineProblem[];
}

// Backends of ggml beside the CPU's, as they are named in file names, and what each needs.
const GPU_NEEDS: Readonly<Record<string, string>> = {
  cuda: "Install the NVIDIA driver and the CUDA 13 runtime with cuBLAS, or use the Vulkan package, which needs the driver alone.",
  vulkan: "Install the graphics driver with its Vulkan loader (on Debian and Ubuntu: libvulkan1).",
  metal: "Update macOS; Metal comes with it.",
};

/** Describes libraries and devices, opens each device, runs the self-test on it. */
export async function describeEngine(): Promise<EngineReport> {
  const platform = `${process.platform}-${process.arch}`;
  const problems: EngineProblem[] = [];
  let library: GgmlLibrary;
  try {
    library = loadLibrary();
  } catch (error) {
    problems.push(problemOf("the compute engine", error));
    return { platform, ggml: null, devices: [], kernels: null, problems };
  }
  const devices: DeviceReport[] = [];
  for (const info of listDevices()) devices.push(await describeDevice(info));
  for (const { name, reason } of devices) {
    if (reason !== null) problems.push({ what: `device ${name}`, why: reason, next: "Use another device." });
  }
  for (const { name, directory } of nativePackages(platform)) {
    if (directory !== null) problems.push(...gpuProblems(name, directory, devices));
  }
  return { platform, ggml: describeLibrary(library), devices, kernels: describeKernels(), problems };
}

function describeLibrary(library: GgmlLibrary): GgmlReport {
  const { version, commit, packageName, packageVersion, directory, log } = library;
  return {
    version,
    commit,
    package: `${packageName}@${packageVersion}`,
    directory,
    libraries: librariesIn(directory),
    log,
  };
}

async function describeDevice(info: DeviceInfo): Promise<DeviceReport> {
  const { name, description, kind, memoryBytes } = info;
  const described = { name, description, kind, memoryBytes };
  try {
    using device = Device.open({ device: name, threads: 1 });
    const results = await selfTest(device);
    const wrong = results.filter(({ passed }) => !passed);
    const reason =
      wrong.length === 0
        ? null
        : `wrong results: ${wrong.map(({ op, worstError }) => `${op} is off by ${worstError}`).join(", ")}`;
    return { ...described, usable: reason === null, reason, selfTest: results };
  } catch (error) {
    return { ...described, usable: false, reason: messageOf(error), selfTest: [] };
  }
}

/**
 * Why the GPU backends of an installed package gave no device: each of their libraries is opened by hand, and what the
 * system's loader says is the reason (ggml leaves such a backend out without a word).
 *
 * @param directory of the package's libraries
 * @param devices that are there
 */
export function gpuProblems(
  packageName: string,
  directory: string,
  devices: readonly Pick<DeviceReport, "kind">[],
): EngineProblem[] {
  if (devices.some(({ kind }) => kind === "gpu" || kind === "integrated-gpu")) return [];
  return librariesIn(directory).flatMap((file) => {
    const backend = Object.keys(GPU_NEEDS).find((name) => file.includes(`ggml-${name}`));
    if (backend === undefined) return [];
    let why = "the library loads, but its driver reports no device";
    try {
      koffi.load(path.join(directory, file)).unload();
    } catch (error) {
      why = messageOf(error);
    }
    return [{ what: `${backend} (${file} of ${packageName})`, why, next: GPU_NEEDS[backend] as string }];
  });
}

function librariesIn(directory: string): string[] {
  return readdirSync(directory)
    .filter((file) => /^(lib)?ggml.*\.(so|dylib|dll)$/.test(file))
    .sort();
}

function problemOf(what: string, error: unknown): EngineProblem {
  if (error instanceof NlaError) {
    return { what: error.subject, why: `found ${error.found}; wanted ${error.wanted}`, next: error.next };
  }
  return { what, why: messageOf(error), next: `Reinstall with \`npm ci\`: ggml ${GGML_VERSION} is needed.` };
}
