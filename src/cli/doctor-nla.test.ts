// `nla doctor --nla` on a pair that works, on copies that fail in each of the known ways, and the judgement of the known looks.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { judgeInjection } from "../nla/injection-check.js";
import { TARGET, writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { Device } from "../tensor/index.js";
import { COMMANDS, VERSION } from "./commands.js";
import type { NlaDoctorReport } from "./doctor-nla.js";
import { runCli } from "./program.js";

let folder: string;
let pair: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "nla-doctor-"));
  pair = path.join(folder, "pair");
  using device = Device.open({ threads: 1 });
  await writeUntrainedPair(pair, device);
});
afterAll(() => rm(folder, { recursive: true }));

async function nla(...args: string[]) {
  let out = "";
  let err = "";
  const code = await runCli(["doctor", ...args], COMMANDS, {
    version: VERSION,
    streams: {
      stdout: { write: (text) => void (out += text) },
      stderr: { write: (text) => void (err += text) },
      env: {},
    },
  });
  return { code, out, err };
}

async function changed(name: string, from: RegExp, to: string): Promise<string> {
  const directory = path.join(folder, name);
  await cp(pair, directory, { recursive: true });
  const file = path.join(directory, "verbalizer/nla_meta.yaml");
  const text = await readFile(file, "utf8");
  expect(text).toMatch(from);
  await writeFile(file, text.replace(from, to));
  return directory;
}

function failed({ out }: { out: string }): string[] {
  return (JSON.parse(out) as NlaDoctorReport).findings
    .filter(({ passed }) => !passed)
    .map(({ check }) => check);
}

describe("nla doctor --nla", () => {
  it("finds nothing where activations reach the verbalizer", async () => {
    const { code, out } = await nla("--nla", pair, "--threads", "1");
    expect(out).toContain("The activation reaches the verbalizer.");
    expect(out).toContain(`activations of ${TARGET}`);
    expect(out).not.toContain("FAIL");
    expect(code).toBe(0);
  });

  it("takes a verbalizer alone, one that adds, and vectors that are made up", async () => {
    const adding = await changed("adding", /kind: "?replace"?/, "kind: add-normed");
    const file = path.join(adding, "verbalizer/nla_meta.yaml");
    const text = await readFile(file, "utf8");
    await writeFile(file, text.replaceAll(new RegExp(`(base_checkpoint.*: ).*`, "g"), "$1nowhere"));
    const alone = await nla("--nla", path.join(adding, "verbalizer"), "--threads", "1", "--json");
    const report = JSON.parse(alone.out) as NlaDoctorReport;
    expect(report.injection).toMatchObject({ kind: "add-normed" });
    expect(report.target).toBeNull();
    expect(failed(alone)).not.toContain("a vector against none");
    expect(failed(alone)).not.toContain("one vector against another");
  });

  it("says that a vector is too weak where the scale makes it nothing", async () => {
    const weak = await changed("weak", /injection_scale: .*/, "injection_scale: 1.0e-9");
    const page = await nla("--nla", weak, "--threads", "1");
    expect(page.code).toBe(1);
    expect(page.out).toMatch(/one vector against another +FAIL/);
    expect(page.out).toMatch(/next: .*too\s+weak/);
    expect(page.out).toContain("extraction.injection_scale");
    const found = failed(await nla("--nla", weak, "--threads", "1", "--json"));
    expect(found).toEqual(["one vector against another", "texts that differ"]);
  });

  it("refuses its options without --nla, and names what is missing", async () => {
    expect(await nla("--ar", pair)).toMatchObject({ code: 2 });
    const missing = await nla("--nla", path.join(folder, "nowhere"));
    expect(missing.code).toBe(1);
    expect(missing.err).toContain("nowhere");
  });
});

describe("the known looks", () => {
  const good = {
    betweenVectors: 0.1,
    fromNone: 0.3,
    inOtherOrder: 1e-6,
    responses: ["A dog.", "A king.", "Some code.", "An apology."],
    withoutVector: "Nothing.",
    char: "㊗",
  };
  const fails = (change: Partial<typeof good>) =>
    judgeInjection({ ...good, ...change }).filter(({ passed }) => !passed);

  it("are not seen where all is well, a stray character included", () => {
    expect(fails({})).toEqual([]);
    expect(fails({ responses: ["A dog.", "A 王.", "Chinese food.", "An apology."] })).toEqual([]);
  });

  it.each([
    ["every text is CJK", { responses: ["祝う", "祝日", "祝辞", "お祝い"] }, "CJK", /literal marker/],
    [
      "every text speaks of a character",
      {
        responses: [
          "The Chinese character for celebration.",
          "A Japanese symbol in a circle.",
          "The character ㊗ on its own.",
          "A kanji.",
        ],
      },
      "CJK",
      /literal marker/,
    ],
    ["all texts are equal", { responses: ["A dog.", "A dog."] }, "texts that differ", /injection_scale/],
    [
      "all texts are that without a vector",
      { responses: ["Nothing.", "Nothing."] },
      "without a vector",
      /does not reach/,
    ],
    ["logits do not move from none", { fromNone: 0 }, "against none", /does not reach/],
    ["logits do not move between vectors", { betweenVectors: 1e-6 }, "against another", /too weak/],
    ["rows are mixed up", { inOtherOrder: 0.2 }, "another order", /other rows/],
    ["logits are not numbers", { fromNone: NaN }, "against none", /does not reach/],
  ])("%s", (_, change, check, next) => {
    const found = fails(change);
    const one = found.find((each) => each.check.includes(check));
    expect(one?.next).toMatch(next);
  });
});
