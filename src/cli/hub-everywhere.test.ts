// A name of the hub wherever a command takes a model or a pair: each is brought into an empty cache from a local server and used. How a
// download copes with networks is data/hub.test.ts.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { parseHubName } from "../data/hub-name.js";
import { filesOf, startHubServer } from "../data/testing/hub-server.js";
import type { HubServer } from "../data/testing/hub-server.js";
import { Lora, loadDecoder, saveLora } from "../model/index.js";
import { convertCheckpoint } from "../nla/gguf-checkpoint.js";
import { targetDirectory } from "../nla/target.js";
import { writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { Device } from "../tensor/index.js";
import { COMMANDS, VERSION } from "./commands.js";
import type { CommandEntry } from "./program.js";
import { runCli } from "./program.js";
import { runNla } from "./testing/run-nla.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-everywhere-"));
const at = (...names: string[]) => path.join(scratch, ...names);

/** An adapter by itself, which names its model as on the hub. */
async function saveAdapter(model: string, folder: string, device: Device): Promise<void> {
  using decoder = await loadDecoder(model, device);
  using lora = new Lora(device, decoder.config, { rank: 1, alpha: 1 });
  await saveLora(folder, lora, decoder.config, "org/target");
}

let hub: HubServer;
let home: string;
beforeAll(async () => {
  hub = await startHubServer();
  using device = Device.open({ threads: 1 });
  const pair = at("pair");
  await writeUntrainedPair(pair, device);
  const target = targetDirectory("aidreams260K");
  await convertCheckpoint(target, at("tiny-F16.gguf"), { holding: "f16" });
  await convertCheckpoint(target, at("tiny-Q8_0.gguf"), { holding: "q8_0" });
  await convertCheckpoint(path.join(pair, "verbalizer"), at("av.gguf"));
  await convertCheckpoint(path.join(pair, "reconstructor"), at("ar.gguf"));
  const bytesOf = (name: string) => readFileSync(at(name));
  const files = (...names: string[]) => new Map(names.map((name) => [name, bytesOf(name)]));
  const q8 = bytesOf("tiny-Q8_0.gguf");
  hub.repositories.set("org/target", filesOf(target));
  hub.repositories.set("org/world", filesOf(path.resolve("assets/smallworld/target")));
  hub.repositories.set("org/pair", filesOf(pair));
  hub.repositories.set("org/av", filesOf(path.join(pair, "verbalizer")));
  hub.repositories.set("org/ar", filesOf(path.join(pair, "reconstructor")));
  hub.repositories.set("org/smallworld", filesOf(path.resolve("assets/smallworld")));
  hub.repositories.set("org/one", files("tiny-Q8_0.gguf"));
  const parts = ["big-Q6_K-00001-of-00002.gguf", "big-Q6_K-00002-of-00002.gguf", "mmproj-F16.gguf"];
  const many = new Map([
    ...files("tiny-F16.gguf", "tiny-Q8_0.gguf"),
    ["Q4_0/tiny-Q4_0.gguf", q8],
    ...parts.map((name) => [name, q8] as const),
  ]);
  hub.repositories.set("org/many", many);
  const sidecars = ["av.gguf.nla_meta.yaml", "ar.gguf.nla_meta.yaml"];
  hub.repositories.set("org/gguf-pair", files("av.gguf", "ar.gguf", ...sidecars));
  await saveAdapter(target, at("lora"), device);
  hub.repositories.set("org/lora", filesOf(at("lora")));
}, 60_000);
afterAll(async () => {
  await hub[Symbol.asyncDispose]();
  rmSync(scratch, { recursive: true, force: true });
});
beforeEach(() => {
  home = mkdtempSync(path.join(scratch, "home-"));
  vi.stubEnv("HF_ENDPOINT", hub.url);
  vi.stubEnv("HF_HOME", home);
  hub.fetched.clear();
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(home, { recursive: true, force: true });
});

const environment = () => ({ HF_ENDPOINT: hub.url, HF_HOME: home });
const nla = (words: string) =>
  runNla(
    words.split(" ").map((word) => word.replaceAll("+", " ").replaceAll("TMP", scratch)),
    { env: environment() },
  );
const repositoriesFetched = () =>
  [...new Set([...hub.fetched].map((file) => file.split("/").slice(0, 2).join("/")))].sort();

/** Every option in the table of commands, with the command that it is of. */
function optionsOf(commands: readonly CommandEntry[], before = "nla"): { name: string; hub: boolean }[] {
  return commands.flatMap(({ name, options = [], commands: inner = [] }) => [
    ...options.map(({ flags, hub: of }) => ({
      name: `${before} ${name} ${flags.split(" ")[0]}`,
      hub: of !== undefined,
    })),
    ...optionsOf(inner, `${before} ${name}`),
  ]);
}

it("every option that names a model, a pair, a tokenizer or a sidecar takes a name of the hub", () => {
  const naming = optionsOf(COMMANDS).filter(({ name }) =>
    /--(model|nla|ar|pair|tokenizer|templates|contract|ar-contract)$/.test(name),
  );
  expect(naming.filter((each) => !each.hub)).toEqual([]);
  expect(naming.length).toBeGreaterThan(24);
});

const CONFIG = `
corpus: { path: ${path.resolve("assets/text/shakespeare.txt")}, cut: 200, length: 60 }
positions: { per_document: 2, min_position: 8, max_length: 60 }
target: org/target
layer: 2
reconstructor: { steps: 1, batch: 4, micro_batch: 4 }
verbalizer: { steps: 1, batch: 4, micro_batch: 4 }
rl: { steps: 1, prompts: 2, group: 2, micro_batch: 4, max_new_tokens: 4 }
threads: 1
`;
const PIPELINE = `
base_model: org/target
layer_index: 1
output_dir: ${at("pipeline")}
corpus: { name: c, split: train, text_column: text, start: 0, length: 8 }
stage0: { positions_per_doc: 2, seed: 42 }
`;

describe("brought and used", () => {
  beforeAll(() => {
    writeFileSync(at("train.yaml"), CONFIG);
    writeFileSync(at("pipeline.yaml"), PIPELINE);
    const line = JSON.stringify({ text: "the king and the queen . ".repeat(40) });
    writeFileSync(at("c.jsonl"), Array.from({ length: 8 }, () => line).join("\n"));
    cpSync("assets/smallworld", at("stated"), { recursive: true });
    const sidecar = at("stated/verbalizer/nla_meta.yaml");
    const text = readFileSync(sidecar, "utf8");
    writeFileSync(sidecar, text.replace("base_checkpoint: smallworld", "base_checkpoint: org/world"));
  });

  const explain = "explain A+dog+ran. --positions -1 --threads 1 --json";
  const cases: readonly (readonly [string, readonly string[]])[] = [
    ["forward --model org/target --ids [1,5] --logits --out TMP/f.safetensors", ["org/target"]],
    ["forward --model org/target@main --ids [1,5] --logits --out TMP/f.safetensors", ["org/target"]],
    ["forward --model org/lora --ids [1,5] --logits --out TMP/f.safetensors", ["org/lora", "org/target"]],
    ["check org/pair", ["org/pair"]],
    ["check org/target", ["org/target"]],
    ["check org/lora", ["org/lora", "org/target"]],
    ["check TMP/pair/verbalizer/nla_meta.yaml --tokenizer org/av", ["org/av"]],
    [`${explain} --nla TMP/pair --model org/target`, ["org/target"]],
    [`${explain} --nla org/pair`, ["org/pair"]],
    [`${explain} --nla org/av --ar org/ar`, ["org/ar", "org/av"]],
    [`${explain} --nla TMP/pair --contract org/av --ar-contract org/ar`, ["org/ar", "org/av"]],
    ["doctor --nla org/pair --threads 1", ["org/pair"]],
    ["doctor --nla org/av --ar org/ar --model org/target --threads 1", ["org/ar", "org/av", "org/target"]],
    ["doctor --nla TMP/stated --threads 1", ["org/world"]],
    ["convert org/target --gguf TMP/c.gguf", ["org/target"]],
    ["conformance test/fixtures/golden/models/aidreams260K --model org/target --threads 1", ["org/target"]],
    ["probe --model org/world --layers 0 --documents 10 --positions 2 --threads 1", ["org/world"]],
    [
      "data extract --model org/target --layer 2 --corpus TMP/c.jsonl --min-position 5 --out TMP/e.parquet",
      ["org/target"],
    ],
    ["data build TMP/e.parquet --set rl --pair org/av --out TMP/rl.parquet", ["org/av"]],
    [
      "data build TMP/e.parquet --set rl --model org/target --verbalizer-template ({injection_char}) --reconstructor-template {explanation} --format plain --out TMP/rl2.parquet",
      ["org/target"],
    ],
    [
      "data run TMP/pipeline.yaml --corpus TMP/c.jsonl --stages 0 --templates org/av --threads 1",
      ["org/av", "org/target"],
    ],
    ["train TMP/train.yaml --run TMP/run", ["org/target"]],
    ["quickstart --nla org/smallworld --seed 1 --threads 1 --json", ["org/smallworld"]],
    ["eval TMP/stated --rows 8 --threads 1 --json", ["org/world"]],
    ["eval TMP/run --threads 1 --json", []],
    ["eval TMP/run --model org/target --threads 1 --json", ["org/target"]],
    ["eval assets/smallworld --model org/world --rows 8 --threads 1 --json", ["org/world"]],
  ];

  it.each(cases)("nla %s", async (words, repositories) => {
    const { code, out, err } = await nla(words);
    // A pair that was never trained does not pass the doctor.
    expect(words.startsWith("doctor --nla org") ? 0 : code, `${out}\n${err}`).toBe(0);
    expect(out).not.toContain("made up");
    expect(repositoriesFetched()).toEqual(repositories);
  });

  it("nla serve --nla org/pair --model org/target", async () => {
    let interrupt: (() => void) | null = null;
    let out = "";
    const signals = {
      on: (_: string, listener: () => void) => void (interrupt = listener),
      off: () => undefined,
      exit: () => undefined,
    };
    const write = (text: string) => {
      out += text;
      if (text.includes('"url"')) void served().then(() => interrupt?.());
    };
    let status = 0;
    const served = async () => {
      const { url } = JSON.parse(out) as { url: string };
      status = (await fetch(`${url}/v1/nla/sources`)).status;
    };
    const args = [
      "serve",
      "--nla",
      "org/pair",
      "--model",
      "org/target",
      "--port",
      "0",
      "--threads",
      "1",
      "--json",
    ];
    const streams = { stdout: { write }, stderr: { write: () => undefined }, env: environment() };
    expect(await runCli(args, COMMANDS, { version: VERSION, streams, signals })).toBe(0);
    expect(status).toBe(200);
    expect(repositoriesFetched()).toEqual(["org/pair", "org/target"]);
  });
});

/** Runs one model. */
const forward = (model: string) =>
  nla(`forward --model ${model} --ids [1,5] --logits --out TMP/g.safetensors --json`);

/** The error that running one ends in. */
const refusal = async (model: string) => {
  const { code, out } = await forward(model);
  expect(code).toBe(1);
  return (JSON.parse(out) as { error: { code: string; found: string; wanted: string; next: string } }).error;
};

describe("GGUF files of a repository", () => {
  it.each([
    ["org/one", "org/one/tiny-Q8_0.gguf"],
    ["org/many/tiny-F16.gguf", "org/many/tiny-F16.gguf"],
    ["org/many@v1.0/tiny-Q8_0.gguf", "org/many/tiny-Q8_0.gguf"],
    ["org/many@refs/pr/3/Q4_0/tiny-Q4_0.gguf", "org/many/Q4_0/tiny-Q4_0.gguf"],
    ["org/many:Q8_0", "org/many/tiny-Q8_0.gguf"],
    ["org/many:f16", "org/many/tiny-F16.gguf"],
    ["org/many@main:Q4_0", "org/many/Q4_0/tiny-Q4_0.gguf"],
  ])("%s", async (name, file) => {
    const { code, err, out } = await forward(name);
    expect(code, err + out).toBe(0);
    expect([...hub.fetched]).toEqual([file]);
    // What is in the cache needs no network.
    hub.fetched.clear();
    vi.stubEnv("HF_HUB_OFFLINE", "1");
    const again = await runNla(["check", name, "--json"], { env: { ...environment(), HF_HUB_OFFLINE: "1" } });
    expect(JSON.parse(again.out)).toMatchObject({ kind: "GGUF file", findings: [] });
  });

  it("several, none of them named: all are listed, and the projector is no model", async () => {
    const { code, wanted, next } = await refusal("org/many");
    expect(code).toBe("hub.file");
    expect(wanted).toBe(
      "one of Q4_0/tiny-Q4_0.gguf, big-Q6_K-00001-of-00002.gguf, big-Q6_K-00002-of-00002.gguf, tiny-F16.gguf, tiny-Q8_0.gguf",
    );
    expect(next).toContain("org/many/Q4_0/tiny-Q4_0.gguf");
    expect(hub.fetched.size).toBe(0);
  });

  it.each([
    ["org/many/other.gguf", "hub.file"],
    ["org/many:Q5_K_M", "hub.file"],
    ["org/target:Q8_0", "hub.file"],
    ["org/many:Q6_K", "hub.split-gguf"],
    ["org/many/big-Q6_K-00002-of-00002.gguf", "hub.split-gguf"],
    ["org/nothing/x.gguf", "hub.missing"],
  ])("%s is refused: %s", async (name, code) => expect((await refusal(name)).code).toBe(code));

  it("a pair with its sidecars", async () => {
    const words = "explain A+dog+ran. --positions -1 --threads 1 --json --model org/one:Q8_0";
    const { code, out, err } = await nla(`${words} --nla org/gguf-pair/av.gguf --ar org/gguf-pair/ar.gguf`);
    expect(code, out + err).toBe(0);
    expect(hub.fetched).toContain("org/gguf-pair/ar.gguf.nla_meta.yaml");
  });

  it("a local path that is not there is no name of the hub", () => {
    for (const text of [
      "x.gguf",
      "models/x.gguf",
      "src/cli/x.gguf",
      "./a/b/c.gguf",
      "/a/b/c.gguf",
      "a/../b/c.gguf",
    ])
      expect(parseHubName(text), text).toBeNull();
    expect(parseHubName("a/b@v1/c/d.gguf")).toEqual({ repo: "a/b", revision: "v1", file: "c/d.gguf" });
  });
});
