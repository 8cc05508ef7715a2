// The report that `nla doctor` prints: what is here, and for what is not, the reason from the system's loader.
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Device } from "./device.js";
import { GGML_VERSION, loadLibrary, nativePackages, REGISTRY_FILE } from "./library.js";
import { describeEngine, gpuProblems } from "./report.js";
import { selfTest } from "./self-test.js";

describe("this machine", () => {
  test("has ggml of the pinned version, from a package, with a CPU library", async () => {
    const { ggml, platform } = await describeEngine();
    expect(platform).toBe(`${process.platform}-${process.arch}`);
    expect(ggml?.version).toBe(GGML_VERSION);
    expect(ggml?.commit).toMatch(/^[0-9a-f]{7,40}$/);
    expect(ggml?.package).toMatch(/^@node-llama-cpp\/[\w-]+@\d+\.\d+\.\d+$/);
    expect(ggml?.libraries.some((file) => file.includes("ggml-cpu"))).toBe(true);
    expect(ggml?.libraries.some((file) => file.includes("ggml-base"))).toBe(true);
  });

  test("has a CPU that computes known values", async () => {
    const { devices } = await describeEngine();
    const cpu = devices.find(({ kind }) => kind === "cpu");
    expect(cpu).toMatchObject({ usable: true, reason: null });
    expect(cpu?.memoryBytes).toBeGreaterThan(2 ** 28);
    expect(cpu?.selfTest.map(({ op }) => op)).toEqual(["mul_mat", "soft_max", "rms_norm", "silu"]);
  });

  test("the report is data: it survives JSON", async () => {
    const report = await describeEngine();
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });
});

test("the self-test passes on a CPU with a margin", async () => {
  using device = Device.open({ threads: 1 });
  const results = await selfTest(device);
  expect(results).toHaveLength(4);
  for (const { passed, worstError } of results) {
    expect(passed).toBe(true);
    expect(worstError).toBeLessThan(1e-5);
  }
});

describe("a GPU package that gives no device", () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(path.join(tmpdir(), "nlakit-gpu-"));
    // A file that is no library, and a real one that needs nothing: what a broken and a driverless package look like.
    await writeFile(path.join(directory, "libggml-cuda.so"), "not a library");
    const real = loadLibrary().directory;
    const base = process.platform === "win32" ? "ggml-base.dll" : "libggml-base.so";
    const source = process.platform === "darwin" ? "libggml-base.dylib" : base;
    await copyFile(path.join(real, source), path.join(directory, "libggml-vulkan.so"));
    await copyFile(path.join(real, source), path.join(directory, "libggml-cpu-x64.so"));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  test("is a problem with the loader's reason for each of its GPU libraries, and for no other", () => {
    const problems = gpuProblems("@node-llama-cpp/linux-x64-cuda", directory, [{ kind: "cpu" }]);
    expect(problems).toHaveLength(2);
    const [cuda, vulkan] = problems;
    expect(cuda?.what).toBe("cuda (libggml-cuda.so of @node-llama-cpp/linux-x64-cuda)");
    expect(cuda?.why).toContain("Failed to load");
    expect(cuda?.next).toContain("CUDA 13");
    expect(vulkan?.why).toBe("the library loads, but its driver reports no device");
    expect(vulkan?.next).toContain("Vulkan");
  });

  test("is no problem where a GPU is there", () => {
    expect(gpuProblems("@node-llama-cpp/linux-x64-cuda", directory, [{ kind: "gpu" }])).toEqual([]);
  });
});

describe("packages", () => {
  test("the registry is found by its name in each of them, and no backend is taken for it", () => {
    const registries = [
      "libggml.v0.5.0.so",
      "libggml.vulkan.v0.5.0.so",
      "libggml.dylib",
      "ggml.dll",
      "ggml.cuda.dll",
    ];
    for (const file of registries) expect(file).toMatch(REGISTRY_FILE);
    for (const file of [
      "libggml-base.so",
      "libggml-cpu-zen4.so",
      "libggml-vulkan.so",
      "libllama.v0.5.0.so",
    ]) {
      expect(file).not.toMatch(REGISTRY_FILE);
    }
  });

  test("an unknown platform has none, every known one has some", () => {
    expect(nativePackages("plan9-mips")).toEqual([]);
    for (const platform of [
      "linux-x64",
      "linux-arm64",
      "darwin-arm64",
      "darwin-x64",
      "win32-x64",
      "win32-arm64",
    ]) {
      expect(nativePackages(platform).length).toBeGreaterThan(0);
    }
  });
});

// A folder of the compiled engine without the native packages beside it: the state after `npm install --omit=optional`.
test("without a package the report says which one to install, and does not throw", async () => {
  const run = promisify(execFile);
  const root = path.resolve(import.meta.dirname, "../..");
  const directory = await mkdtemp(path.join(tmpdir(), "nlakit-bare-"));
  try {
    const settings = {
      extends: path.join(root, "tsconfig.json"),
      compilerOptions: {
        noEmit: false,
        rootDir: path.join(root, "src"),
        outDir: path.join(directory, "dist"),
        typeRoots: [path.join(root, "node_modules/@types")],
      },
      include: [path.join(root, "src/engine/report.ts")],
    };
    await writeFile(path.join(directory, "tsconfig.json"), JSON.stringify(settings));
    await writeFile(path.join(directory, "package.json"), '{"type":"module"}');
    await run(path.join(root, "node_modules/.bin/tsc"), ["-p", path.join(directory, "tsconfig.json")], {
      shell: process.platform === "win32",
    });
    await mkdir(path.join(directory, "node_modules"));
    const koffi = path.join("node_modules", "koffi");
    await symlink(path.join(root, koffi), path.join(directory, koffi), "junction");
    const script = `import { describeEngine } from "./dist/engine/report.js"; console.log(JSON.stringify(await describeEngine()));`;
    await writeFile(path.join(directory, "bare.js"), script);
    const { stdout } = await run(process.execPath, [path.join(directory, "bare.js")]);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ ggml: null, devices: [] });
    expect(report.problems).toHaveLength(1);
    expect(report.problems[0].why).toContain("@node-llama-cpp/");
    expect(report.problems[0].next).toContain("npm install");
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
