// `nla doctor`: what this machine is, which native packages are installed, which devices can compute and, where something is
// missing, why and what to install. It changes nothing and needs no model.
//
// What the engine sees comes in as a function, so that this file also works where the engine cannot be loaded at all.
import { existsSync, readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { messageOf, NlaError } from "../error.js";
import type { NlaDoctorSettings } from "./doctor-nla.js";
import { contractOptions } from "./contract-options.js";
import { EXIT_CODES, UsageError } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandEntry } from "./program.js";
import { printable, table, wrap } from "./table.js";

/** A device that ggml knows of. */
export interface EngineDevice {
  readonly name: string;
  readonly description: string;
  /** `cpu`, `gpu`, `integrated-gpu`, `accelerator`, `other`. */
  readonly kind: string;
  /** Memory of the device; null where the engine does not say. */
  readonly memoryBytes: number | null;
  readonly usable: boolean;
  /** Why it is not usable; null where it is. */
  readonly reason: string | null;
  /** Known values computed on it; absent or empty where it did not open. */
  readonly selfTest?: readonly { readonly op: string; readonly passed: boolean }[];
}

/** Something that does not work, and what to do about it. */
export interface Problem {
  readonly what: string;
  readonly why: string;
  readonly next: string;
}

/** What the engine can say of itself. */
export interface EngineReport {
  /** null where ggml could not be loaded; then `problems` says why. */
  readonly ggml: {
    readonly version: string;
    readonly commit: string;
    readonly package: string;
    readonly libraries: readonly string[];
  } | null;
  readonly devices: readonly EngineDevice[];
  /** nlakit's own CPU kernels; absent or null where the engine says nothing of them. */
  readonly kernels?: {
    /** The instruction set in use; null: ggml's kernels are used, several times slower. */
    readonly level: string | null;
    /** Whether products in bf16 are faster than in f32. */
    readonly fastBf16: boolean;
    readonly reason: string | null;
    readonly next: string | null;
  } | null;
  readonly problems: readonly Problem[];
}

/** What `nla doctor --json` prints. */
export interface DoctorReport {
  readonly nlakit: string;
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly usable_cores: number;
    readonly memory_bytes: number;
    /** The limit of a container; null where there is none below the machine's memory. */
    readonly memory_limit_bytes: number | null;
    readonly platform: string;
    readonly node: string;
  };
  readonly packages: readonly {
    readonly name: string;
    readonly version: string | null;
    readonly use: string;
  }[];
  readonly engine: EngineReport;
  /** What nobody has tested here; null on the platform where the tests run. */
  readonly untested: string | null;
  readonly problems: readonly Problem[];
  /** True if at least one device can compute. */
  readonly ok: boolean;
}

/** The only platform on which the tests run. */
const NLA_ONLY = [
  ["ar", "ar"],
  ["contract", "contract"],
  ["arContract", "ar-contract"],
  ["model", "model"],
  ["threads", "threads"],
] as const;

const TESTED_PLATFORM = "linux-x64";

interface Platform {
  readonly engine: string;
  readonly bindings: string;
  /** Packages that bring a GPU, by the hardware they are for. */
  readonly gpu: Readonly<Record<string, string>>;
}

const NATIVE = "@node-llama-cpp";
const DUCKDB = "@duckdb/node-bindings";
const PLATFORMS: Readonly<Record<string, Platform>> = {
  "linux-x64": {
    engine: `${NATIVE}/linux-x64`,
    bindings: `${DUCKDB}-linux-x64`,
    gpu: { NVIDIA: `${NATIVE}/linux-x64-cuda`, "any with Vulkan": `${NATIVE}/linux-x64-vulkan` },
  },
  "linux-arm64": { engine: `${NATIVE}/linux-arm64`, bindings: `${DUCKDB}-linux-arm64`, gpu: {} },
  "darwin-arm64": { engine: `${NATIVE}/mac-arm64-metal`, bindings: `${DUCKDB}-darwin-arm64`, gpu: {} },
  "darwin-x64": { engine: `${NATIVE}/mac-x64`, bindings: `${DUCKDB}-darwin-x64`, gpu: {} },
  "win32-x64": {
    engine: `${NATIVE}/win-x64`,
    bindings: `${DUCKDB}-win32-x64`,
    gpu: { NVIDIA: `${NATIVE}/win-x64-cuda`, "any with Vulkan": `${NATIVE}/win-x64-vulkan` },
  },
  "win32-arm64": { engine: `${NATIVE}/win-arm64`, bindings: `${DUCKDB}-win32-arm64`, gpu: {} },
};

/**
 * The version of an installed package, looked for in `node_modules` from `from` upwards; null where it is not there.
 * Packages that export no package.json are found too.
 *
 * @throws NlaError `doctor.package` for a package whose package.json cannot be read
 */
export function installedVersion(name: string, from: string = import.meta.dirname): string | null {
  for (let folder = path.resolve(from); ; folder = path.dirname(folder)) {
    const file = path.join(folder, "node_modules", name, "package.json");
    if (existsSync(file)) {
      try {
        return String((JSON.parse(readFileSync(file, "utf8")) as { version: unknown }).version);
      } catch (cause) {
        throw new NlaError({
          code: "doctor.package",
          subject: file,
          found: messageOf(cause),
          wanted: "the package.json of an installed package",
          next: "Run `npm ci` again.",
          cause,
        });
      }
    }
    if (folder === path.dirname(folder)) return null;
  }
}

/** What {@link examine} looks at; all of it can be replaced to look at another machine. */
export interface DoctorOptions {
  readonly version: string;
  readonly describeEngine: () => Promise<EngineReport>;
  /** Defaults to this platform, such as `linux-x64`. */
  readonly platform?: string;
  /** Defaults to {@link installedVersion}. */
  readonly versionOf?: (name: string) => string | null;
}

function toProblem(thrown: unknown): Problem {
  if (thrown instanceof NlaError)
    return { what: thrown.subject, why: `found ${thrown.found}; wanted ${thrown.wanted}`, next: thrown.next };
  return {
    what: "the compute engine",
    why: messageOf(thrown),
    next: "Report this with the output of `nla doctor --json`.",
  };
}

/** Examines this machine. Whatever fails becomes one of the report's problems. */
export async function examine({
  version,
  describeEngine,
  platform = `${process.platform}-${process.arch}`,
  versionOf = installedVersion,
}: DoctorOptions): Promise<DoctorReport> {
  const problems: Problem[] = [];
  const known = PLATFORMS[platform];
  const uses: Record<string, string> = { "@duckdb/node-api": "parquet" };
  if (known) uses[known.bindings] = "parquet, native part";
  Object.assign(uses, {
    "@huggingface/tokenizers": "tokenizers",
    "@huggingface/jinja": "chat templates",
    koffi: "calls into ggml",
  });
  if (known) uses[known.engine] = "ggml, CPU";
  for (const [hardware, name] of Object.entries(known?.gpu ?? {})) uses[name] = `ggml, GPU (${hardware})`;
  const gpuPackages = new Set(Object.values(known?.gpu ?? {}));

  const packages = Object.entries(uses).map(([name, use]) => {
    let found: string | null = null;
    try {
      found = versionOf(name);
      // One engine package is enough, and a GPU package holds the CPU parts too: the engine tells when none is there.
      if (found === null && !use.startsWith("ggml")) {
        problems.push({ what: name, why: `it is not installed, and ${use} needs it`, next: "Run `npm ci`." });
      }
    } catch (thrown) {
      problems.push(toProblem(thrown));
    }
    return { name, version: found, use };
  });

  let engine: EngineReport;
  try {
    engine = await describeEngine();
  } catch (thrown) {
    engine = { ggml: null, devices: [], problems: [toProblem(thrown)] };
  }
  problems.push(...engine.problems);
  for (const { name, usable, reason } of engine.devices) {
    if (!usable)
      problems.push({
        what: `device ${name}`,
        why: reason ?? "the engine does not say",
        next: "Use another device.",
      });
  }
  const ok = engine.devices.some(({ usable }) => usable);
  if (!ok && engine.problems.length === 0) {
    const next = known
      ? `Run \`npm install ${known.engine}\`.`
      : `Use one of ${Object.keys(PLATFORMS).join(", ")}.`;
    problems.push({ what: "the compute engine", why: "no device that can compute", next });
  }
  const hasGpu = engine.devices.some(({ kind, usable }) => usable && kind.includes("gpu"));
  if (ok && !hasGpu && gpuPackages.size > 0) {
    const missing = packages.filter((each) => each.version === null && gpuPackages.has(each.name));
    if (missing.length === gpuPackages.size) {
      problems.push({
        what: "GPU",
        why: "no package with GPU libraries is installed",
        next: `Only if there is one: ${missing.map(({ name, use }) => `\`npm install ${name}\` for ${/\((.*)\)/.exec(use)?.[1]}`).join(", ")}.`,
      });
    } else {
      problems.push({
        what: "GPU",
        why: "its libraries are installed but found no device",
        next: "Check the driver: `nvidia-smi` or `vulkaninfo`.",
      });
    }
  }
  const limit = process.constrainedMemory?.() ?? 0;
  return {
    nlakit: version,
    machine: {
      cpu: os.cpus()[0]?.model.trim() || "unknown",
      cores: os.cpus().length,
      usable_cores: os.availableParallelism(),
      memory_bytes: os.totalmem(),
      memory_limit_bytes: limit > 0 && limit < os.totalmem() ? limit : null,
      platform,
      node: process.versions.node,
    },
    packages,
    engine,
    untested: untestedOn(platform, hasGpu),
    problems,
    ok,
  };
}

function untestedOn(platform: string, hasGpu: boolean): string | null {
  if (platform !== TESTED_PLATFORM)
    return `Everything: the tests run on ${TESTED_PLATFORM} with CPU devices only, and this is ${platform}.`;
  return hasGpu ? "Computing on a GPU: the tests run on CPU devices only." : null;
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

function kernelLine({ level, fastBf16, reason, next }: NonNullable<EngineReport["kernels"]>): string {
  if (level !== null) return `native CPU kernels: ${level}${fastBf16 ? "" : ", bf16 computed in f32"}`;
  const lost = "training and reading run on ggml's own kernels, at a third of the speed or less";
  const lines = [`native CPU kernels: none (${printable(reason ?? "?")}); ${lost}`];
  if (next !== null) lines.push(`  next: ${printable(next)}`);
  return lines.join("\n");
}

/** The report as a page for people. */
export function renderDoctor(report: DoctorReport): string {
  const { machine, engine, packages, problems } = report;
  const limit =
    machine.memory_limit_bytes === null ? "" : `, limited to ${gibibytes(machine.memory_limit_bytes)}`;
  const cores =
    machine.cores === machine.usable_cores
      ? `${machine.cores} cores`
      : `${machine.usable_cores} of ${machine.cores} cores`;
  const parts = [
    `nlakit ${report.nlakit}, Node ${machine.node}, ${machine.platform}\n` +
      `${printable(machine.cpu)}, ${cores}, ${gibibytes(machine.memory_bytes)} memory${limit}`,
  ];
  const { ggml } = engine;
  parts.push(
    ggml === null
      ? "ggml: not loaded"
      : `ggml ${ggml.version} (${ggml.commit}) from ${ggml.package}\n  ${wrap(ggml.libraries.map(printable).join(", "), 100).join("\n  ")}`,
  );
  if (engine.kernels) parts.push(kernelLine(engine.kernels));
  if (engine.devices.length > 0) {
    const columns = [
      { header: "device" },
      { header: "kind" },
      { header: "memory", align: "right" as const },
      { header: "usable" },
      { header: "what it is" },
    ];
    const rows = engine.devices.map(
      ({ name, kind, memoryBytes, usable, reason, description, selfTest = [] }) => [
        name,
        kind,
        memoryBytes === null ? "?" : gibibytes(memoryBytes),
        usable
          ? selfTest.length > 0
            ? `yes, ${selfTest.length} self-tests passed`
            : "yes"
          : `no: ${reason ?? "?"}`,
        description,
      ],
    );
    parts.push(table(columns, rows));
  }
  const columns = [{ header: "package" }, { header: "version" }, { header: "for" }];
  parts.push(
    table(
      columns,
      packages.map(({ name, version, use }) => [name, version ?? "not installed", use]),
    ),
  );
  for (const { what, why, next } of problems)
    parts.push(`${printable(what)}: ${printable(why)}\n  next: ${printable(next)}`);
  if (report.untested !== null) parts.push(`untested here: ${report.untested}`);
  parts.push(report.ok ? "ready" : "not ready: no device can compute");
  return `${parts.join("\n\n")}\n`;
}

/** The table entry of `nla doctor`. It exits with 1 where no device can compute. */
export function doctorCommand(options: Pick<DoctorOptions, "version" | "describeEngine">): CommandEntry {
  return {
    name: "doctor",
    summary: "show what this machine can run, and why not",
    examples: [
      { command: "nla doctor", does: "a page to read" },
      { command: "nla doctor --json", does: "the same for a bug report" },
      { command: "nla doctor --kernels", does: "how fast each op is here" },
      { command: "nla doctor --nla runs/quickstart", does: "whether activations reach a verbalizer" },
    ],
    options: [
      { flags: "--kernels", description: "time each op instead, on one core" },
      {
        flags: "--nla <dir>",
        hub: "folder",
        description: "examine the injection of an NLA instead: a run folder or a verbalizer's",
      },
      {
        flags: "--ar <dir>",
        hub: "folder",
        description: "with --nla: the reconstructor's folder, for a pair that lies apart",
      },
      ...contractOptions,
      {
        flags: "--model <dir>",
        hub: "name",
        description: "with --nla: the target (default: what the sidecar names)",
      },
      { flags: "--threads <n>", description: "with --nla: CPU threads", parse: wholeNumber("--threads", 1) },
    ],
    action: async (_, chosen, context) => {
      const { json, stdout } = context;
      if (chosen["nla"] !== undefined) {
        const { examineNla, renderNlaDoctor } = await import("./doctor-nla.js");
        const examined = await examineNla(chosen as unknown as NlaDoctorSettings, context);
        stdout.write(json ? `${JSON.stringify(examined, null, 2)}\n` : renderNlaDoctor(examined));
        return examined.ok ? EXIT_CODES.ok : EXIT_CODES.failed;
      }
      for (const [name, flag] of NLA_ONLY) {
        if (chosen[name] === undefined) continue;
        throw new UsageError({
          code: "cli.option",
          subject: `--${flag}`,
          found: "no --nla beside it",
          wanted: "--nla DIR, the NLA to examine",
          next: "Add --nla, or leave the option out.",
        });
      }
      if (chosen["kernels"] === true) {
        // Loaded only here: the doctor has to work where the engine does not.
        const [{ Device }, { renderKernels, timeKernels }] = await Promise.all([
          import("../tensor/index.js"),
          import("./kernels.js"),
        ]);
        using device = Device.open({ threads: 1 }); // with more, the waiting for each other is what is measured
        const timings = await timeKernels(device);
        stdout.write(json ? `${JSON.stringify(timings, null, 2)}\n` : `${renderKernels(timings)}\n`);
        return EXIT_CODES.ok;
      }
      const report = await examine(options);
      stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : renderDoctor(report));
      return report.ok ? EXIT_CODES.ok : EXIT_CODES.failed;
    },
  };
}
