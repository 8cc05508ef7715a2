// The lock of a run folder, within one process and against claims that dead or foreign processes left.
// Starters that race, and a holder that is killed, are in kill.test.ts.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import { ownIdentity, processStat, processState } from "./process-identity.js";
import { acquireRunLock } from "./run-lock.js";

let run: string;
let folder: string;
beforeEach(async () => {
  run = await mkdtemp(path.join(os.tmpdir(), "nla-lock-"));
  folder = path.join(run, "run.lock");
});
afterEach(() => rm(run, { recursive: true, force: true }));

const now = () => new Date("2026-03-04T05:06:07Z");

async function refused(): Promise<NlaError> {
  try {
    await acquireRunLock(folder);
  } catch (thrown) {
    if (thrown instanceof NlaError) return thrown;
    throw thrown;
  }
  throw new Error("the lock was given");
}

async function claim(values: Record<string, unknown>, { held = true } = {}): Promise<void> {
  await mkdir(folder, { recursive: true });
  const whole = { id: "0-left", since: "2026-01-01T00:00:00.000Z", ...ownIdentity(), ...values };
  await writeFile(path.join(folder, `${whole.id}.claim`), JSON.stringify(whole));
  if (held) await writeFile(path.join(folder, `${whole.id}.held`), "");
}

describe("acquireRunLock", () => {
  it("gives the lock, refuses a second, gives it again after the release and leaves nothing", async () => {
    const lock = await acquireRunLock(folder, { now });
    const error = await refused();
    expect(error.code).toBe("run.locked");
    expect(error.subject).toBe(run);
    expect(error.found).toContain(`this process (${process.pid}) on ${os.hostname()}`);
    expect(error.found).toContain("since 2026-03-04T05:06:07.000Z");
    await lock.release();
    expect(await readdir(run)).toEqual([]);
    await using again = await acquireRunLock(folder);
    expect(again.path).toBe(folder);
  });

  it("gives it to one of many that ask at once", async () => {
    for (let round = 0; round < 5; round++) {
      const asked = await Promise.allSettled(Array.from({ length: 8 }, () => acquireRunLock(folder)));
      const given = asked.filter((each) => each.status === "fulfilled");
      expect(given.length).toBe(1);
      for (const each of asked)
        if (each.status === "rejected") expect(each.reason).toMatchObject({ code: "run.locked" });
      await given[0]?.value.release();
      expect(await readdir(run)).toEqual([]);
    }
  });

  it("names another process that lives", async () => {
    const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"]);
    await once(child, "spawn");
    const pid = child.pid ?? 0;
    await claim({ pid, startTime: processStat(pid)?.startTime ?? null });
    const error = await refused();
    expect(error.found).toContain(`process ${pid} on ${os.hostname()}`);
    expect(error.next).toContain("Wait until it ends");
    child.kill("SIGKILL");
    await once(child, "exit");
    await (await acquireRunLock(folder)).release();
    expect(await readdir(run)).toEqual([]);
  });

  it.runIf(process.platform === "linux")("sees that a number now belongs to a later process", async () => {
    await claim({ startTime: "1" });
    await (await acquireRunLock(folder)).release();
  });

  it.runIf(process.platform === "linux")("sees that the machine was started anew", async () => {
    await claim({ boot: "00000000-0000-0000-0000-000000000000" });
    await (await acquireRunLock(folder)).release();
  });

  it("does not judge a process of another machine", async () => {
    await claim({ host: "elsewhere", pid: 4_000_000 });
    const error = await refused();
    expect(error.found).toContain("process 4000000 on elsewhere");
    expect(error.next).toContain(path.join(folder, "0-left.claim"));
  });

  it("gives way to an undecided claim with a lower id, and is given the lock when that one goes", async () => {
    await claim({ id: "0-first" }, { held: false });
    const asking = acquireRunLock(folder);
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect((await readdir(folder)).filter((name) => name.endsWith(".held"))).toEqual([]);
    await rm(path.join(folder, "0-first.claim"));
    await (await asking).release();
  });

  it("tells of a damaged claim", async () => {
    await mkdir(folder);
    await writeFile(path.join(folder, "x.claim"), "{");
    expect(await refused()).toMatchObject({
      code: "run.lock-damaged",
      subject: path.join(folder, "x.claim"),
    });
  });
});

describe("processState", () => {
  it("knows the living and the dead", async () => {
    expect(processState(ownIdentity())).toBe("alive");
    const child = spawn(process.execPath, ["-e", ""]);
    await once(child, "exit");
    expect(processState({ ...ownIdentity(), pid: child.pid ?? 0 })).toBe("gone");
  });

  it.runIf(process.platform === "linux")("reads a process whose name has brackets and spaces", async () => {
    const own = processStat(process.pid);
    const title = process.title;
    process.title = "a) R (b";
    expect(processStat(process.pid)).toMatchObject({ startTime: own?.startTime });
    process.title = title;
  });

  it.runIf(process.platform === "linux")("takes a zombie for dead", async () => {
    // The shell's background child ends, and the process that replaces the shell never waits for it.
    const parent = spawn("sh", ["-c", "sleep 0.3 & echo $!; exec sleep 30"]);
    const [line] = (await once(parent.stdout, "data")) as [Buffer];
    const pid = Number(line.toString());
    for (let i = 0; i < 200 && processStat(pid)?.state !== "Z"; i++)
      await new Promise((resolve) => setTimeout(resolve, 10));
    const stat = processStat(pid);
    expect(stat?.state).toBe("Z");
    expect(processState({ ...ownIdentity(), pid, startTime: stat?.startTime ?? null })).toBe("gone");
    parent.kill("SIGKILL");
  });
});
