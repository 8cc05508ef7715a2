// Old or new, never half: full disks (a real 1 MiB tmpfs), failing writers, and processes killed with SIGKILL in mid-write.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

import { NlaError } from "../error.js";
import { isDiskFull, removeStaleTemporaries, writeDirectoryAtomic, writeFileAtomic } from "./files.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nla-files-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function folder(name: string): string {
  const full = path.join(scratch, name);
  mkdirSync(full);
  return full;
}

async function caught(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (thrown) {
    return thrown;
  }
  throw new Error("nothing was thrown");
}

async function* pieces(): AsyncGenerator<Uint8Array> {
  yield Uint8Array.of(4);
  yield new Uint8Array(0);
  yield Uint8Array.of(5, 6);
}

async function* failing(): AsyncGenerator<Uint8Array> {
  yield Uint8Array.of(1);
  throw new Error("source broke");
}

describe("writeFileAtomic", () => {
  it("writes text, bytes and streamed pieces, and leaves nothing else behind", async () => {
    const here = folder("kinds");
    const target = path.join(here, "a");
    await writeFileAtomic(target, "é");
    expect(readFileSync(target)).toEqual(Buffer.from("é"));
    await writeFileAtomic(target, Uint8Array.of(1, 2, 3));
    expect([...readFileSync(target)]).toEqual([1, 2, 3]);
    await writeFileAtomic(target, pieces());
    expect([...readFileSync(target)]).toEqual([4, 5, 6]);
    expect(readdirSync(here)).toEqual(["a"]);
  });

  it("keeps the old file when the writer fails half way", async () => {
    const here = folder("fails");
    const target = path.join(here, "a");
    writeFileSync(target, "old");
    expect(String(await caught(writeFileAtomic(target, failing())))).toContain("source broke");
    expect(readFileSync(target, "utf8")).toBe("old");
    expect(readdirSync(here)).toEqual(["a"]);
  });
});

/** A mounted 1 MiB file system, or null where this user may not mount. */
function mountSmall(): string | null {
  const at = folder("small");
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", at], { stdio: "pipe" });
    return at;
  } catch (thrown) {
    console.warn(`skipped: the full-disk tests need to mount a tmpfs (${String(thrown).split("\n")[0]})`);
    return null;
  }
}
const small = process.platform === "linux" ? mountSmall() : null;

describe.skipIf(small === null)("a full disk", () => {
  afterAll(() => execFileSync("umount", [small as string]));

  it("is a disk.full error; the old file stays and the temporary is gone", async () => {
    const target = path.join(small as string, "weights.bin");
    await writeFileAtomic(target, "the old content");
    const error = await caught(writeFileAtomic(target, new Uint8Array(3_000_000)));
    expect(error).toBeInstanceOf(NlaError);
    const { code, subject, wanted, found, next } = error as NlaError;
    expect({ code, subject, wanted }).toEqual({
      code: "disk.full",
      subject: target,
      wanted: "3000000 bytes",
    });
    expect(found).toMatch(/ENOSPC.*; \d+ bytes free/);
    expect(next).toContain("untouched");
    expect(readFileSync(target, "utf8")).toBe("the old content");
    expect(readdirSync(small as string)).toEqual(["weights.bin"]);
  });

  it("leaves the old folder when the new one does not fit", async () => {
    const target = path.join(small as string, "checkpoint");
    await writeDirectoryAtomic(target, async (tmp) => writeFileSync(path.join(tmp, "a"), "old"));
    const error = await caught(
      writeDirectoryAtomic(target, async (tmp) =>
        writeFileSync(path.join(tmp, "a"), new Uint8Array(2_000_000)),
      ),
    );
    expect((error as NlaError).code).toBe("disk.full");
    expect(readFileSync(path.join(target, "a"), "utf8")).toBe("old");
    expect(readdirSync(small as string).sort()).toEqual(["checkpoint", "weights.bin"]);
  });
});

describe("isDiskFull", () => {
  it("sees the system's codes, causes and DuckDB's text, and nothing else", () => {
    expect(isDiskFull(Object.assign(new Error("x"), { code: "EDQUOT" }))).toBe(true);
    expect(isDiskFull(new Error("outer", { cause: Object.assign(new Error("x"), { code: "EFBIG" }) }))).toBe(
      true,
    );
    expect(isDiskFull(new Error('IO Error: Could not write file "a": No space left on device'))).toBe(true);
    expect(isDiskFull(Object.assign(new Error("x"), { code: "EACCES" }))).toBe(false);
  });
});

describe("writeDirectoryAtomic", () => {
  it("makes a new folder, replaces an old one, and fails without a trace", async () => {
    const here = folder("dirs");
    const target = path.join(here, "run");
    await writeDirectoryAtomic(target, async (tmp) => writeFileSync(path.join(tmp, "one"), "1"));
    await writeDirectoryAtomic(target, async (tmp) => {
      mkdirSync(path.join(tmp, "sub"));
      writeFileSync(path.join(tmp, "sub", "two"), "2");
    });
    expect(readdirSync(target)).toEqual(["sub"]);
    await caught(writeDirectoryAtomic(target, () => Promise.reject(new Error("no"))));
    expect(readdirSync(here)).toEqual(["run"]);
    expect(readFileSync(path.join(target, "sub", "two"), "utf8")).toBe("2");
  });
});

/** The pid of a process that has ended. */
async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ["-e", ""]);
  await once(child, "exit");
  return child.pid as number;
}

describe("removeStaleTemporaries", () => {
  it("removes what the dead left, keeps the living's and everybody else's files", async () => {
    const here = folder("stale");
    const dead = await deadPid();
    mkdirSync(path.join(here, `.run.nla-new.${dead}.00ff`));
    writeFileSync(path.join(here, `.a.parquet.nla-new.${dead}.01`), "half");
    writeFileSync(path.join(here, `.a.parquet.nla-new.1.01`), "process 1 lives");
    writeFileSync(path.join(here, `.a.parquet.nla-new.${dead}`), "no tag: not ours");
    writeFileSync(path.join(here, "a.parquet"), "whole");
    expect(await removeStaleTemporaries(here)).toEqual([
      `.a.parquet.nla-new.${dead}.01`,
      `.run.nla-new.${dead}.00ff`,
    ]);
    expect(new Set(readdirSync(here))).toEqual(
      new Set([`.a.parquet.nla-new.${dead}`, ".a.parquet.nla-new.1.01", "a.parquet"]),
    );
    expect(await removeStaleTemporaries(here, { exclusive: true })).toEqual([".a.parquet.nla-new.1.01"]);
  });

  it("puts a folder back that was moved aside by a process that died between the two renames", async () => {
    const here = folder("between");
    const dead = await deadPid();
    mkdirSync(path.join(here, `.run.nla-old.${dead}.7`));
    writeFileSync(path.join(here, `.run.nla-old.${dead}.7`, "a"), "old");
    mkdirSync(path.join(here, `.run.nla-new.${dead}.7`));
    await removeStaleTemporaries(here);
    expect(readdirSync(here)).toEqual(["run"]);
    expect(readFileSync(path.join(here, "run", "a"), "utf8")).toBe("old");
  });

  it("is quiet about a folder that does not exist", async () => {
    expect(await removeStaleTemporaries(path.join(scratch, "absent"))).toEqual([]);
  });
});

describe("kill -9 while a folder is replaced again and again", () => {
  it("leaves one whole folder, every time", { timeout: 120_000 }, async () => {
    const here = folder("killed");
    const compiled = folder("killed-js");
    const root = path.resolve(import.meta.dirname, "../..");
    const tsc = path.join(root, "node_modules/typescript/bin/tsc");
    const types = ["--types", "node", "--typeRoots", path.join(root, "node_modules/@types")];
    const kind = ["--ignoreConfig", "--module", "nodenext", "--target", "es2022", ...types];
    const source = path.join(import.meta.dirname, "files.ts");
    execFileSync(process.execPath, [
      tsc,
      ...kind,
      "--rootDir",
      path.join(root, "src"),
      "--outDir",
      compiled,
      source,
    ]);
    writeFileSync(path.join(compiled, "package.json"), '{"type":"module"}');
    const loop = path.join(compiled, "loop.js");
    writeFileSync(
      loop,
      `import { writeFileSync } from "node:fs";
       import { writeDirectoryAtomic } from "./data/files.js";
       for (let round = 0; ; round++) {
         await writeDirectoryAtomic(process.argv[2], async (tmp) => {
           for (const name of ["a", "b", "c"]) writeFileSync(tmp + "/" + name, String(round));
         });
         if (round === 0) process.stdout.write("ready");
       }`,
    );
    const target = path.join(here, "run");
    let putBack = 0;
    for (let kill = 0; kill < 25; kill++) {
      const child = spawn(process.execPath, [loop, target], { stdio: ["ignore", "pipe", "inherit"] });
      await once(child.stdout, "data");
      await new Promise((resolve) => setTimeout(resolve, (kill * 7) % 40));
      child.kill("SIGKILL");
      await once(child, "exit");
      if (!readdirSync(here).includes("run")) putBack++;
      await removeStaleTemporaries(here);
      expect(readdirSync(here)).toEqual(["run"]);
      const contents = ["a", "b", "c"].map((name) => readFileSync(path.join(target, name), "utf8"));
      expect(new Set(contents).size).toBe(1);
    }
    console.log(`killed 25 times, ${putBack} of them between the two renames`);
  });
});
