// The config loader: defaults, overrides, and an error for every way in which a file can be wrong.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import {
  checkConfig,
  configDifferences,
  configHash,
  corpusName,
  loadConfig,
  parseConfig,
  renderConfig,
} from "./config.js";
import { CONFIG_KEYS, editDistance, nearestKey } from "./config-keys.js";

const minimal = "target: aidreams260K\nlayer: 2\ncorpus:\n  path: fables.txt\n";

function failure(run: () => unknown): NlaError {
  try {
    run();
  } catch (thrown) {
    if (thrown instanceof NlaError) return thrown;
    throw thrown;
  }
  throw new Error("nothing was thrown");
}

async function rejection(promise: Promise<unknown>): Promise<NlaError> {
  return promise.then(
    () => Promise.reject(new Error("nothing was thrown")),
    (thrown: unknown) => (thrown instanceof NlaError ? thrown : Promise.reject(thrown)),
  );
}

const parse = (text: string, overrides: string[] = []) =>
  parseConfig(text, { file: "a.yaml", directory: "/configs", cwd: "/here", overrides });

describe("a config that states little", () => {
  it("gets every default", () => {
    const config = parse(minimal);
    expect(config.rl).toMatchObject({
      steps: 200,
      prompts: 64,
      group: 8,
      kl_coef: 0.01,
      clip_range: 0.2,
      failed_penalty: null,
    });
    expect(config.positions).toEqual({ per_document: 10, min_position: 50, max_length: 2048, seed: 42 });
    expect(config.injection).toEqual({ kind: "replace", scale: "p75" });
    expect(config.compute).toBe("bf16");
  });

  it("resolves paths by where they were written, and leaves bundled names alone", () => {
    expect(parse(minimal).corpus.path).toBe(path.resolve("/configs/fables.txt"));
    expect(parse(minimal, ["corpus.path=b.txt"]).corpus.path).toBe(path.resolve("/here/b.txt"));
    expect(parse(minimal).target).toBe("aidreams260K");
    expect(parse(minimal, ["target=./aidreams260K"]).target).toBe(path.resolve("/here/aidreams260K"));
    for (const name of ["org/name", "org/name@v1.0"])
      expect(parse(minimal, [`target=${name}`]).target).toBe(name);
    expect(parse(minimal, ["target=models/a/b"]).target).toBe(path.resolve("/here/models/a/b"));
  });

  it("names the corpus by its file unless told otherwise", () => {
    expect(corpusName(parse(minimal))).toBe("fables");
    expect(corpusName(parse(minimal, ["corpus.name=aesop/fables"]))).toBe("aesop/fables");
  });

  it("survives being written and read again", () => {
    const config = parse(minimal, [
      "templates.reconstructor='a: b\n\n  # {explanation} '",
      "injection.scale=1.5e2",
      "corpus.name='1e5'",
    ]);
    expect(parseConfig(renderConfig(config), { directory: "/elsewhere" })).toEqual(config);
  });
});

describe("overrides", () => {
  it("are read as YAML, and the last one wins", () => {
    const config = parse(`${minimal}rl:\n`, [
      "rl.steps=3",
      "rl.steps=5",
      "rl.clip=null",
      "rl.advantage_std=false",
      "threads=2",
      "rl.kl_coef=1e-3",
    ]);
    expect(config.rl).toMatchObject({ steps: 5, clip: null, advantage_std: false, kl_coef: 0.001, group: 8 });
    expect(config.threads).toBe(2);
  });

  it("take a whole section", () => {
    expect(parse(minimal, ["splits={ar_sft: 0.5, av_sft: 0.25, rl: 0.2, eval: 0.05}"]).splits.ar_sft).toBe(
      0.5,
    );
  });

  it.each([
    ["rl.steps", "no ="],
    ["=3", "no key before ="],
    ["rl..steps=3", "an empty part"],
    ["rl.steps=[1", "not YAML"],
    ["target.name=x", "cannot be set"],
  ])("%s is refused", (text, found) => {
    const error = failure(() => parse(minimal, [text]));
    expect(error.code).toBe("config.override");
    expect(error.subject).toBe(`--set ${text}`);
    expect(error.found).toContain(found);
  });

  it("are what an error names when the fault is theirs", () => {
    const error = failure(() => parse(`${minimal}rl:\n  steps: 5\n`, ["rl.steps=many"]));
    expect(error).toMatchObject({
      subject: "--set rl.steps=many: rl.steps",
      found: '"many"',
      wanted: "whole number of at least 0",
    });
  });

  it("cannot reach a prototype", () => {
    for (const key of [
      "__proto__.polluted=1",
      "rl.__proto__.polluted=1",
      "constructor.prototype.polluted=1",
    ]) {
      expect(failure(() => parse(minimal, [key])).code).toBe("config.unknown-key");
    }
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });
});

describe("a wrong value", () => {
  it.each([
    ["rl:\n  group: 1", "a.yaml, line 6: rl.group", "1", "whole number of at least 2"],
    ["rl:\n  group: 2.5", "a.yaml, line 6: rl.group", "2.5", "whole number of at least 2"],
    ["rl:\n  kl_coef: .nan", "a.yaml, line 6: rl.kl_coef", "NaN", "number of at least 0"],
    ["rl:\n  lr_verbalizer: .inf", "a.yaml, line 6: rl.lr_verbalizer", "Infinity", "number above 0"],
    ["rl: 7", "a.yaml, line 5: rl", "7", "section"],
    ["injection: {scale: p76}", "a.yaml, line 5: injection.scale", '"p76"', "p75 or number above 0"],
    ["injection: {scale: -1}", "a.yaml, line 5: injection.scale", "-1", "p75 or number above 0"],
    ["compute: f16", "a.yaml, line 5: compute", '"f16"', "f32 or bf16"],
    ["threads: 0", "a.yaml, line 5: threads", "0", "whole number from 1 to 512 or null"],
    [
      "splits: {rl: 0.9}",
      "a.yaml, line 5: splits",
      "ar_sft 0.24 + av_sft 0.24 + rl 0.9 + eval 0.05 = 1.43",
      "four fractions that add up to 1",
    ],
    [
      "positions: {max_length: 50}",
      "a.yaml, line 5: positions.min_position",
      "50 with max_length 50",
      "a min_position below max_length",
    ],
    [
      "templates: {verbalizer: hello}",
      "a.yaml, line 5: templates.verbalizer",
      "it 0 times",
      "a template with {injection_char} in it once",
    ],
    ["seed: 9007199254740993", "a.yaml, line 5: seed", "9007199254740992", "whole number of at least 0"],
  ])("%s", (yaml, subject, found, wanted) => {
    const error = failure(() => parse(`${minimal}${yaml}\n`));
    expect(error).toMatchObject({ code: "config.value", subject, found, wanted });
    expect(error.next).not.toBe("");
  });

  it("says what is missing", () => {
    const error = failure(() => parse("layer: 2\ncorpus: {path: a.txt}\n"));
    expect(error).toMatchObject({ code: "config.missing-key", subject: "a.yaml: target", found: "nothing" });
    expect(failure(() => parse(""))).toMatchObject({
      subject: "a.yaml",
      wanted: "a mapping of keys to values",
    });
    expect(failure(() => checkConfig([1], { file: "given" }))).toMatchObject({
      code: "config.value",
      subject: "given",
    });
  });

  it("counts the other faults", () => {
    expect(failure(() => parse(`${minimal}seed: x\nthreads: y\nlog: 3\n`)).next).toContain(
      "2 more of its keys are wrong too",
    );
  });
});

describe("an unknown key", () => {
  it.each([
    ["rl:\n  grup: 8", "rl.grup", "Did you mean rl.group?"],
    ["rl:\n  setps: 8", "rl.setps", "Did you mean rl.steps?"],
    ["verbalizer:\n  microbatch: 8", "verbalizer.microbatch", "Did you mean verbalizer.micro_batch?"],
    ["max_new_tokens: 8", "max_new_tokens", "Did you mean rl.max_new_tokens?"],
    ["rl:\n  num_generations: 8", "rl.num_generations", "Did you mean rl.group?"],
    ["rl:\n  beta: 0.1", "rl.beta", "Did you mean rl.kl_coef?"],
    ["thraeds: 3", "thraeds", "Did you mean threads?"],
    ["corpuss:\n  path: a", "corpuss", "Did you mean corpus?"],
    ["qqqqqqqq: 1", "qqqqqqqq", "docs/config.md lists every key."],
  ])("%s", (yaml, key, next) => {
    const error = failure(() => parse(`${minimal}${yaml}\n`));
    expect(error.code).toBe("config.unknown-key");
    expect(error.subject).toMatch(new RegExp(`^a.yaml, line [56]: ${key}$`));
    expect(error.found).toContain(key);
    expect(error.next).toContain(next);
  });

  it("is named before a missing key that it was meant to be", () => {
    const error = failure(() => parse("taget: aidreams260K\nlayer: 1\ncorpus: {path: a}\n"));
    expect(error.next).toContain("Did you mean target?");
  });

  it("finds each key from itself with one letter gone", () => {
    for (const { path: known } of CONFIG_KEYS.filter((each) => each.path.split(".").at(-1)!.length > 5)) {
      expect(nearestKey(known.slice(0, -1)), known).toBe(known);
    }
  });

  it("costs little when it is very long", () => {
    expect(nearestKey("x".repeat(100_000))).toBeNull();
  });
});

describe("editDistance", () => {
  it.each([
    ["", "", 0],
    ["abc", "", 3],
    ["group", "grup", 1],
    ["steps", "setps", 1],
    ["kitten", "sitting", 3],
  ])("%s %s", (a, b, distance) => {
    expect(editDistance(a, b)).toBe(distance);
    expect(editDistance(b, a)).toBe(distance);
  });
});

describe("files that are no config", () => {
  let folder: string;
  beforeAll(async () => void (folder = await mkdtemp(path.join(os.tmpdir(), "nla-config-"))));
  afterAll(() => rm(folder, { recursive: true }));
  const write = async (name: string, data: string | Uint8Array) => {
    await writeFile(path.join(folder, name), data);
    return path.join(folder, name);
  };

  it("is missing", async () => {
    expect(await rejection(loadConfig(path.join(folder, "no.yaml")))).toMatchObject({
      code: "config.missing",
    });
    expect(await rejection(loadConfig(folder))).toMatchObject({ code: "config.missing", subject: folder });
  });
  it("is not UTF-8", async () => {
    const file = await write("latin.yaml", Uint8Array.of(0x61, 0x3a, 0xe9));
    expect(await rejection(loadConfig(file))).toMatchObject({ code: "config.encoding" });
  });
  it("is far too large", async () => {
    const file = await write("large.yaml", new Uint8Array(1_000_001).fill(0x23));
    expect(await rejection(loadConfig(file))).toMatchObject({
      code: "config.too-large",
      found: "1,000,001 bytes",
    });
  });
  it("is not YAML", async () => {
    const error = await rejection(loadConfig(await write("bad.yaml", `${minimal}rl: {steps: 3\n`)));
    expect(error.code).toBe("config.yaml");
    expect(error.subject).toMatch(/bad\.yaml, line \d/);
  });
  it("gives a key twice", () => {
    expect(failure(() => parse(`${minimal}layer: 3\n`))).toMatchObject({
      code: "config.yaml",
      subject: "a.yaml, line 5",
    });
  });
  it("expands aliases without end", () => {
    const levels = Array.from(
      { length: 12 },
      (_, i) =>
        `a${i}: &a${i} [${Array(10)
          .fill(i ? `*a${i - 1}` : "x")
          .join(", ")}]`,
    );
    expect(failure(() => parse(`${minimal}${levels.join("\n")}\n`)).code).toBe("config.yaml");
  });
  it("is read from its file", async () => {
    const file = await write("good.yaml", minimal);
    expect((await loadConfig(file, ["seed=7"])).seed).toBe(7);
    expect((await loadConfig(file)).corpus.path).toBe(path.join(folder, "fables.txt"));
  });
});

describe("sameness of configs", () => {
  it("does not depend on the order of keys", () => {
    const turned = "corpus:\n  path: fables.txt\nlayer: 2\ntarget: aidreams260K\n";
    expect(configHash(parse(turned))).toBe(configHash(parse(minimal)));
    expect(configHash(parse(minimal))).toMatch(/^[0-9a-f]{64}$/);
  });
  it("sees every change", () => {
    const base = parse(minimal);
    for (const change of ["rl.steps=201", "compute=f32", "corpus.name=x", "injection.scale=75"]) {
      const other = parse(minimal, [change]);
      expect(configHash(other)).not.toBe(configHash(base));
      expect(configDifferences(base, other).map(({ key }) => key)).toEqual([change.split("=")[0]]);
    }
    expect(configDifferences({ a: 1, b: { c: 2 } }, { b: { c: 3 }, d: null })).toEqual([
      { key: "a", left: "1", right: null },
      { key: "b.c", left: "2", right: "3" },
      { key: "d", left: null, right: "null" },
    ]);
  });
});
