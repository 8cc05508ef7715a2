// What the package promises: what can be imported, that its command runs, what is packed and how large it is, and that nothing
// is imported that package.json does not list.
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compile, REPOSITORY } from "./e2e/built-command.js";

interface PackageJson {
  readonly version: string;
  readonly bin: { readonly nla: string };
  readonly files: readonly string[];
  readonly dependencies: Readonly<Record<string, string>>;
  readonly optionalDependencies: Readonly<Record<string, string>>;
}

const MAX_BYTES = 15_000_000;
const run = promisify(execFile);

let folder: string; // a project that uses the package
let installed: string;
let manifest: PackageJson;

beforeAll(async () => {
  manifest = JSON.parse(await readFile(path.join(REPOSITORY, "package.json"), "utf8")) as PackageJson;
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-package-"));
  installed = path.join(folder, "node_modules/nlakit");
  await mkdir(installed, { recursive: true });
  const sources = ["src", "test", "tsconfig.json", "tsconfig.build.json", "tsconfig.examples.json"];
  const others = readdirSync(REPOSITORY).filter((name) => /^(README|LICENSE|NOTICE|package)/.test(name));
  for (const name of new Set([...manifest.files, ...sources, ...others])) {
    if (name === "dist") continue; // built here
    await cp(path.join(REPOSITORY, name), path.join(installed, name), { recursive: true }).catch(
      (thrown: NodeJS.ErrnoException) => {
        if (thrown.code !== "ENOENT") throw thrown;
      },
    );
  }
  await symlink(path.join(REPOSITORY, "node_modules"), path.join(installed, "node_modules"), "junction");
  await symlink(
    path.join(REPOSITORY, "node_modules/@types"),
    path.join(folder, "node_modules/@types"),
    "junction",
  );
  await compile(path.join(installed, "tsconfig.build.json"));
  await compile(path.join(installed, "tsconfig.examples.json"));
}, 120_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("what can be imported", () => {
  it("is the library, at run time", async () => {
    const script = path.join(folder, "use.mjs");
    const names = 'import * as all from "nlakit"; console.log(JSON.stringify(Object.keys(all)));';
    await writeFile(script, names);
    const { stdout } = await run(process.execPath, [script]);
    const promised = ["NlaError", "Device", "loadTarget", "loadNla", "read", "train", "loadConfig"];
    expect(JSON.parse(stdout)).toEqual(expect.arrayContaining(promised));
  });

  it("is the library, with its types", async () => {
    await writeFile(path.join(folder, "package.json"), '{"type": "module"}');
    await writeFile(
      path.join(folder, "use.ts"),
      `import { Device, loadNla, loadTarget, read, train } from "nlakit";
       import type { Reading, TokenReading, TrainConfig } from "nlakit";
       export async function use(config: TrainConfig): Promise<TokenReading | undefined> {
         const run = await train(config, { directory: "run", progress: { stage: () => ({ report() {}, end() {} }), note() {} } });
         using device = Device.open();
         using target = await loadTarget(config.target, device);
         using nla = await loadNla(run, device);
         const reading: Reading = await read(target, nla, "a");
         const layer: number = reading.layer;
         // @ts-expect-error: a layer is no text, and if it were, the types would not have been found
         const text: string = reading.layer;
         return reading.tokens[layer + text.length];
       }`,
    );
    const options = {
      module: "nodenext",
      target: "es2022",
      lib: ["es2023", "esnext.disposable"],
      strict: true,
    };
    const config = {
      compilerOptions: { ...options, skipLibCheck: true, noEmit: true, types: ["node"] },
      files: ["use.ts"],
    };
    await writeFile(path.join(folder, "tsconfig.json"), JSON.stringify(config));
    await compile(folder);
  });

  it("is nothing below the library", async () => {
    const script = path.join(folder, "deep.mjs");
    await writeFile(script, 'import "nlakit/dist/nla/read.js";');
    await expect(run(process.execPath, [script])).rejects.toThrow(/ERR_PACKAGE_PATH_NOT_EXPORTED/);
  });
});

describe("the command", () => {
  it("runs from where npm links it", async () => {
    const linked = path.join(folder, "node_modules/.bin/nla");
    await mkdir(path.dirname(linked));
    await symlink(path.join(installed, manifest.bin.nla), linked);
    expect(await readFile(linked, "utf8")).toMatch(/^#!\/usr\/bin\/env node\n/);
    const { stdout } = await run(process.execPath, [linked, "--version"]);
    expect(stdout).toBe(`${manifest.version}\n`);
    expect((await run(process.execPath, [linked, "--help"])).stdout).toMatch(/^ {2}train .*config/m);
  });
});

describe("what is packed", () => {
  it("has all that runs, no tests, and a modest size", async () => {
    const { stdout } = await run("npm", ["pack", "--dry-run", "--json", "--ignore-scripts"], {
      cwd: installed,
      maxBuffer: 1e8,
      shell: process.platform === "win32",
    });
    const [packed] = JSON.parse(stdout) as {
      files: { path: string }[];
      size: number;
      unpackedSize: number;
    }[];
    const names = packed?.files.map((file) => file.path) ?? [];
    expect(names).toEqual(
      expect.arrayContaining([
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "package.json",
        "dist/index.js",
        "dist/index.d.ts",
        "dist/cli/main.js",
        "dist/examples/01-read-a-sentence.js",
        "examples/01-read-a-sentence.ts",
        "configs/quickstart.yaml",
        "assets/NOTICE.md",
        "assets/aidreams260K/LICENSE",
        "assets/aidreams260K/config.json",
        "assets/aidreams260K/model.safetensors",
        "assets/aidreams260K/tokenizer.json",
        "assets/text/shakespeare.txt",
        "docs/method.md",
      ]),
    );
    // Sources and tests stay behind; maps of the sources may come.
    expect(
      names.filter((name) => /\.test\.|(^|\/)testing\/|^(src|test|bench|runs|node_modules)\//.test(name)),
    ).toEqual([]);
    expect(packed?.unpackedSize).toBeLessThan(MAX_BYTES);
  });
});

// `from "x"`, `import "x"` and `import("x")` with a name of a package, and of that its first part.
const IMPORT = /(?:\bfrom|\bimport)\s*\(?\s*"(@[\w.-]+\/[\w.-]+|[a-z][\w.:-]*)[\w./-]*"/g;

function importedPackages(): string[] {
  const found = new Set<string>();
  for (const name of readdirSync(path.join(REPOSITORY, "src"), { recursive: true, encoding: "utf8" })) {
    if (!name.endsWith(".ts") || name.endsWith(".test.ts") || name.includes("testing")) continue;
    const text = readFileSync(path.join(REPOSITORY, "src", name), "utf8");
    for (const [, specifier = ""] of text.matchAll(IMPORT)) found.add(specifier);
  }
  return [...found].filter((name) => !name.startsWith("node:")).sort();
}

describe("imports of the sources", () => {
  it("are of dependencies that package.json lists, all of them and no others", () => {
    expect(importedPackages()).toEqual(Object.keys(manifest.dependencies).sort());
  });

  it("are of exact versions, so that a build is the same everywhere", () => {
    const versions = Object.values({ ...manifest.dependencies, ...manifest.optionalDependencies });
    expect(versions.filter((version) => !/^\d+\.\d+\.\d+/.test(version))).toEqual([]);
  });
});
