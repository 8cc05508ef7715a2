// Bad input at the command line: every entry of the tables is one fault, and each must end in exit code 1 (2 for the command
// line itself) with a named error of four parts, never in a stack, and with everything that was there before unchanged.
import { execFileSync } from "node:child_process";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { TARGET } from "./bad-files.js";
import { Workshop } from "./bad-workshop.js";
import { expectError } from "./expect-error.js";
import * as ofData from "./faults-of-data.js";
import * as ofModels from "./faults-of-models.js";
import { contents, sha256 } from "./folder-contents.js";

let shop: Workshop;
let before: unknown;

beforeAll(async () => {
  shop = await Workshop.open();
  before = await contents(shop.run);
}, 240_000);
afterAll(() => shop?.[Symbol.asyncDispose]());

afterEach(async () => {
  expect(await readdir(path.dirname(shop.out))).toEqual(["kept"]);
  expect(await readFile(shop.out, "utf8")).toBe("precious");
  expect(await contents(shop.run)).toEqual(before);
});

describe.each([
  ["weights", ofModels.weights],
  ["a model's folder or ids:", ofModels.models],
  ["a tokenizer", ofModels.tokenizers],
  ["a corpus", ofData.corpora],
  ["a text to read", ofData.texts],
  ["a data file", ofData.data],
  ["a pair", ofData.pairs],
  ["a config", ofData.configs],
  ["the command line:", ofData.commandLines],
])("%s", (_, faults) => {
  it.each(faults)("%s", async (_what, args, error) => {
    expectError(await shop.nla.run([...(await args(shop)), "--json"]), error);
  });
});

it("is told to people in four labelled lines", async () => {
  const { code, stdout, stderr } = await shop.nla.run(shop.explain(path.join(shop.nla.folder, "nothing")));
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toMatch(
    /^error {3}.*nothing\nfound {3}no such folder\nwanted {2}a run folder[^\n]*\nnext {4}Finish the training/,
  );
  expect(stderr).not.toContain("at ");
});

describe("two processes on one run folder", () => {
  it("the second is refused, and the first goes on as if nothing had been", async () => {
    const run = path.join(shop.nla.folder, "contended");
    const args = ["train", shop.config, "--run", run, ...NO_TRAINING, "--json"];
    let second: Promise<unknown> | undefined;
    const first = await shop.nla.run(args, {
      onProgress(_, child) {
        if (second) return;
        child.kill("SIGSTOP"); // at work until the other one has come and gone, however slow the machine is
        second = shop.nla.run(args).then((ended) => {
          child.kill("SIGCONT");
          expectError(ended, {
            code: "run.locked",
            subject: run,
            found: new RegExp(`^process ${child.pid} on `),
            wanted: /no other process/,
            next: /--run/,
          });
        });
      },
    });
    await second;
    expect(first).toMatchObject({ code: 0 });
    expect(second).toBeDefined();
    expect(await contents(run)).toEqual(await untouched());
  });
});

const NO_TRAINING = ["reconstructor", "verbalizer", "rl"].flatMap((stage) => ["--set", `${stage}.steps=0`]);

/** What a run without training steps leaves that nothing happened to. */
async function untouched(): Promise<unknown> {
  const run = path.join(shop.nla.folder, "untouched");
  expect(await shop.nla.run(["train", shop.config, "--run", run, ...NO_TRAINING])).toMatchObject({ code: 0 });
  const found = await contents(run);
  await rm(run, { recursive: true });
  return found;
}

/** Whether a small disk can be made here, and if not, why. */
const smallDisk = (() => {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "it takes root on Linux to mount one";
  try {
    execFileSync("unshare", ["--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], { stdio: "pipe" });
    return null;
  } catch (thrown) {
    return `mounting one is not allowed here: ${String((thrown as { stderr?: Buffer }).stderr).trim()}`;
  }
})();
if (smallDisk !== null) console.warn(`skipped: a full disk; ${smallDisk}`);

describe("a full disk", () => {
  const ids = JSON.stringify(Array.from({ length: 8 }, () => Array(120).fill(1)));

  it.skipIf(process.platform === "win32")("or size limit leaves what `forward` was to replace", async () => {
    const args = [...shop.forward(TARGET, ids), "--capture", "all", "--json"];
    const ended = await shop.nla.run(args, { shellPrefix: "ulimit -f 100" });
    expectError(ended, {
      code: "disk.full",
      subject: shop.out,
      found: /EFBIG/,
      wanted: /room/,
      next: /Free some space/,
    });
  });

  describe.skipIf(smallDisk !== null)("of 900 kB", () => {
    let disk: string;
    beforeAll(async () => {
      disk = path.join(shop.nla.folder, "disk");
      await mkdir(disk);
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=900k", "tmpfs", disk]);
    });
    afterAll(() => void execFileSync("umount", [disk]));

    it("leaves what `forward` was to replace", async () => {
      const file = path.join(disk, "f.safetensors");
      await writeFile(file, "precious");
      const args = [
        "forward",
        "--model",
        TARGET,
        "--ids",
        ids,
        "--logits",
        "--threads",
        "1",
        "--out",
        file,
        "--json",
      ];
      expectError(await shop.nla.run(args), {
        code: "disk.full",
        subject: file,
        found: /no space left/,
        wanted: /room/,
      });
      expect(await readFile(file, "utf8")).toBe("precious");
      expect(await readdir(disk)).toEqual(["f.safetensors"]);
      await rm(file);
    });

    it("stops `train` with all that it had finished, and with more room it ends as if nothing had been", async () => {
      const run = path.join(disk, "run");
      const args = ["train", shop.config, "--run", run, "--set", "verbalizer.steps=0", "--set", "rl.steps=0"];
      expectError(await shop.nla.run([...args, "--json"]), {
        code: "disk.full",
        subject: /checkpoints\/ar_sft/,
        found: /no space left/,
        wanted: /room/,
        next: /run it again/,
      });
      const kept = await sha256(path.join(run, "data/base.parquet"));
      expect(JSON.parse(await readFile(path.join(run, "state.json"), "utf8"))).toMatchObject({
        stages: [
          { name: "extract" },
          { name: "split" },
          { name: "label" },
          { name: "build" },
          { name: "shuffle" },
        ],
      });
      execFileSync("mount", ["-o", "remount,size=60000k", disk]);
      expect(await shop.nla.run(args)).toMatchObject({ code: 0 });
      expect(await sha256(path.join(run, "data/base.parquet"))).toBe(kept);
      const elsewhere = path.join(shop.nla.folder, "roomy");
      expect(await shop.nla.run(args.with(3, elsewhere))).toMatchObject({ code: 0 });
      expect(await contents(run)).toEqual(await contents(elsewhere));
    });
  });
});
