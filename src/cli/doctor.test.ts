// The doctor on this machine and on machines that are described to it, and the `nla` command as a process.
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import { COMMANDS, VERSION } from "./commands.js";
import { describeEngine } from "../engine/index.js";
import { examine, installedVersion, renderDoctor } from "./doctor.js";
import type { EngineReport } from "./doctor.js";
import { runCli } from "./program.js";

const cpu = {
  name: "CPU",
  description: "Some CPU",
  kind: "cpu",
  memoryBytes: 2 ** 34,
  usable: true,
  reason: null,
};
const gpu = {
  name: "CUDA0",
  description: "Some GPU",
  kind: "gpu",
  memoryBytes: null,
  usable: false,
  reason: "a device that would not open",
};
const ggml = {
  version: "0.25.1",
  commit: "abc",
  package: "@node-llama-cpp/linux-x64 3.22.1",
  libraries: ["libggml.so"],
};
const works: EngineReport = { ggml, devices: [cpu], problems: [] };

const on = (platform: string, engine: EngineReport | Error, installed: readonly string[] | null = null) =>
  examine({
    version: "1.2.3",
    platform,
    describeEngine: async () => {
      if (engine instanceof Error) throw engine;
      return engine;
    },
    versionOf: (name) => (installed === null || installed.includes(name) ? "9.9.9" : null),
  });

describe("examine", () => {
  it("finds nothing wrong where all is there", async () => {
    const report = await on("linux-x64", {
      ...works,
      devices: [cpu, { ...gpu, usable: true, reason: null }],
    });
    expect(report).toMatchObject({
      ok: true,
      problems: [],
      untested: "Computing on a GPU: the tests run on CPU devices only.",
    });
    expect(report.packages.map(({ name }) => name)).toContain("@duckdb/node-bindings-linux-x64");
    expect(report.machine.memory_bytes).toBe(os.totalmem());
  });

  it("says which package brings a GPU", async () => {
    const { problems, ok, untested } = await on("linux-x64", works, [
      "@duckdb/node-api",
      "@duckdb/node-bindings-linux-x64",
      "@huggingface/tokenizers",
      "@huggingface/jinja",
      "koffi",
    ]);
    expect({ ok, untested }).toEqual({ ok: true, untested: null });
    expect(problems).toHaveLength(1);
    expect(problems[0]?.next).toContain("`npm install @node-llama-cpp/linux-x64-cuda` for NVIDIA");
  });

  it("says why a device is not usable", async () => {
    const { problems } = await on("linux-x64", { ...works, devices: [cpu, gpu] });
    expect(problems[0]).toMatchObject({ what: "device CUDA0", why: "a device that would not open" });
    expect(problems[1]?.why).toContain("found no device");
  });

  it("says what to install where the engine cannot be loaded", async () => {
    const error = new NlaError({
      code: "engine.package-missing",
      subject: "the compute engine",
      found: "none of its packages installed",
      wanted: "@node-llama-cpp/linux-x64",
      next: "Run `npm install @node-llama-cpp/linux-x64`.",
    });
    const report = await on("linux-x64", error, []);
    expect(report.ok).toBe(false);
    expect(report.engine.ggml).toBeNull();
    const what = report.problems.map((each) => each.what);
    expect(what).toEqual([
      "@duckdb/node-api",
      "@duckdb/node-bindings-linux-x64",
      "@huggingface/tokenizers",
      "@huggingface/jinja",
      "koffi",
      "the compute engine",
    ]);
    expect(report.problems.at(-1)?.next).toContain("npm install @node-llama-cpp/linux-x64");
    expect((await on("linux-x64", new Error("boom"))).problems[0]).toMatchObject({ why: "boom" });
  });

  it("names the packages of a platform where it is not so", async () => {
    const report = await on("linux-x64", { ggml: null, devices: [], problems: [] });
    expect(report.problems[0]?.next).toBe("Run `npm install @node-llama-cpp/linux-x64`.");
    const strange = await on("sunos-sparc", { ggml: null, devices: [], problems: [] });
    expect(strange.problems[0]?.next).toContain("linux-x64, linux-arm64");
  });

  it.each(["linux-arm64", "darwin-arm64", "darwin-x64", "win32-x64", "win32-arm64"])(
    "says that %s is untested",
    async (platform) => {
      const report = await on(platform, works);
      expect(report.untested).toContain(`this is ${platform}`);
      expect(report.ok).toBe(true);
    },
  );
});

describe("installedVersion", () => {
  it("finds packages here and says null for others", () => {
    expect(installedVersion("koffi")).toMatch(/^\d+\.\d+\.\d+/);
    expect(installedVersion("@duckdb/node-api")).toMatch(/^\d/);
    expect(installedVersion("@node-llama-cpp/no-such-platform")).toBeNull();
  });
  it("tells of a broken package, and the report goes on", async () => {
    const folder = await mkdtemp(path.join(os.tmpdir(), "nla-doctor-"));
    await mkdir(path.join(folder, "node_modules/koffi"), { recursive: true });
    await writeFile(path.join(folder, "node_modules/koffi/package.json"), "{");
    expect(() => installedVersion("koffi", folder)).toThrow(NlaError);
    const report = await examine({
      version: "1",
      platform: "linux-x64",
      describeEngine: async () => works,
      versionOf: (name) => installedVersion(name, name === "koffi" ? folder : import.meta.dirname),
    });
    expect(report.problems[0]?.what).toContain("package.json");
    await rm(folder, { recursive: true });
  });
});

describe("renderDoctor", () => {
  it("shows devices, packages, problems and what is untested", async () => {
    const page = renderDoctor(await on("win32-x64", { ...works, devices: [cpu, gpu] }, []));
    expect(page).toMatch(/^nlakit 1\.2\.3, Node \d+\.\d+\.\d+, win32-x64\n/);
    expect(page).toMatch(/CPU +cpu +16\.0 GiB {2}yes +Some CPU/);
    expect(page).toMatch(/CUDA0 +gpu +\? {2}no: a device that would not open/);
    expect(page).toMatch(/@node-llama-cpp\/win-x64-cuda +not installed/);
    expect(page).toContain("koffi: it is not installed, and calls into ggml needs it\n  next: Run `npm ci`.");
    expect(page).toContain("untested here: Everything");
    expect(page.trimEnd().split("\n").at(-1)).toBe("ready");
  });
});

describe("nla doctor here", () => {
  it("finds a device that computes", async () => {
    let out = "";
    const streams = {
      stdout: { write: (text: string) => void (out += text) },
      stderr: process.stderr,
      env: {},
    };
    const code = await runCli(["doctor", "--json"], COMMANDS, { version: VERSION, streams });
    const report = JSON.parse(out) as Awaited<ReturnType<typeof examine>>;
    expect(code, out).toBe(0);
    expect(report.ok).toBe(true);
    expect(report.nlakit).toBe(VERSION);
    expect(report.engine.devices.some(({ kind, usable }) => kind === "cpu" && usable)).toBe(true);
    expect(report.engine.ggml?.libraries.some((name) => name.includes("ggml-cpu"))).toBe(true);
    expect(report.engine).toEqual(await describeEngine());
  });
});
