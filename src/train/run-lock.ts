// One process at a time on a run folder. The lock is a folder of claims, one uniquely named file per starter.
//
// Why not one lock file: taking over a dead process's file is a race (two starters judge it stale, the second removes
// the first one's new file). Here nobody ever removes a file but its owner, or anyone once its owner is dead for good,
// so a removal is never wrong. A starter writes a claim, then looks. It holds the lock once it saw no other live claim;
// of two that see each other the one with the lower id stays, the other withdraws and watches.
import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, rm, rmdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { removeStaleTemporaries, writeFileAtomic } from "../data/files.js";
import { NlaError } from "../error.js";
import { ownIdentity, processState } from "./process-identity.js";

const POLL_MS = 20;
const PATIENCE_MS = 10_000; // deciding takes milliseconds; longer means that the other starter was stopped in between
const CLAIM = ".claim";
const HELD = ".held";

const claimSchema = z.object({
  id: z.string().min(1),
  pid: z.int().positive(),
  host: z.string(),
  boot: z.string().nullable(),
  startTime: z.string().nullable(),
  since: z.string(),
});
type Claim = z.output<typeof claimSchema>;

/** A lock that is held until it is released or the process dies. */
export interface RunLock extends AsyncDisposable {
  readonly path: string;
  release(): Promise<void>;
}

function codeOf(thrown: unknown): string | undefined {
  return (thrown as NodeJS.ErrnoException).code;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return [];
    throw thrown;
  }
}

async function readClaim(file: string): Promise<Claim | null> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (thrown) {
    if (codeOf(thrown) === "ENOENT") return null; // withdrawn since it was listed
    throw thrown;
  }
  try {
    return claimSchema.parse(JSON.parse(text));
  } catch (cause) {
    // Claims are written aside and renamed, so a torn one was not written by nlakit or was damaged afterwards.
    throw new NlaError({
      code: "run.lock-damaged",
      subject: file,
      found: "a lock file that cannot be read",
      wanted: "JSON with pid, host and since",
      next: "If no training runs in this folder, delete that file and start again.",
      cause,
    });
  }
}

/** Every claim of a living process but `own`; the files of dead ones are removed on the way. */
async function liveClaims(folder: string, own: string): Promise<{ claim: Claim; held: boolean }[]> {
  const names = await namesIn(folder);
  const live: { claim: Claim; held: boolean }[] = [];
  for (const name of names.filter((each) => each.endsWith(CLAIM))) {
    const claim = await readClaim(path.join(folder, name));
    if (claim === null || claim.id === own) continue;
    if (processState(claim) === "alive") {
      // Asked for after the claim was read: a claim is always older than its mark.
      live.push({ claim, held: (await namesIn(folder)).includes(claim.id + HELD) });
    } else {
      // The mark first: a mark without a claim means nothing, a claim without its mark could look undecided.
      await rm(path.join(folder, claim.id + HELD), { force: true });
      await rm(path.join(folder, name), { force: true });
    }
  }
  return live;
}

function refusal(folder: string, claim: Claim): NlaError {
  const own = ownIdentity();
  const here = claim.host === own.host;
  const who = here && claim.pid === own.pid ? `this process (${claim.pid})` : `process ${claim.pid}`;
  return new NlaError({
    code: "run.locked",
    subject: path.dirname(folder),
    found: `${who} on ${claim.host}, which has been working in it since ${claim.since}`,
    wanted: "a run folder that no other process works in",
    next: here
      ? "Wait until it ends, or stop it; the run then goes on where it stood. Or choose another folder with --run."
      : `Stop it there. If that machine is gone, delete ${path.join(folder, claim.id + CLAIM)} and start again.`,
  });
}

async function writeClaim(folder: string, claim: Claim): Promise<void> {
  for (;;) {
    await mkdir(folder, { recursive: true });
    try {
      await writeFileAtomic(path.join(folder, claim.id + CLAIM), JSON.stringify(claim));
      return;
    } catch (thrown) {
      if (codeOf(thrown) !== "ENOENT") throw thrown; // ENOENT: another process released and removed the folder
    }
  }
}

/**
 * Takes the lock at `folder` (a path inside the run folder) or refuses at once; it does not wait for another run to end.
 *
 * @param options.now the time to put into the claim, for readers only
 * @throws NlaError `run.locked` with pid, host and since when; `run.lock-damaged`
 */
export async function acquireRunLock(
  folder: string,
  { now = () => new Date() }: { readonly now?: () => Date } = {},
): Promise<RunLock> {
  const id = randomUUID();
  const claim: Claim = { id, ...ownIdentity(), since: now().toISOString() };
  const withdraw = () => rm(path.join(folder, id + CLAIM), { force: true });
  const release = async () => {
    await rm(path.join(folder, id + HELD), { force: true });
    await withdraw();
    try {
      await rmdir(folder);
    } catch (thrown) {
      // Another starter's claim is in it, or another process has removed it already: both are as they should be.
      if (!["ENOTEMPTY", "EEXIST", "ENOENT", "EPERM"].includes(codeOf(thrown) ?? "")) throw thrown;
    }
  };
  try {
    let claiming = false;
    for (let waited = 0; ; waited += POLL_MS) {
      const others = await liveClaims(folder, id);
      const holder = others.find((each) => each.held) ?? (waited >= PATIENCE_MS ? others[0] : undefined);
      if (holder) throw refusal(folder, holder.claim);
      if (claiming && others.length === 0) break;
      if (!claiming && others.length === 0) {
        await writeClaim(folder, claim);
        claiming = true;
        continue; // look again at once: what was seen before the claim proves nothing
      }
      if (claiming && others.some((each) => each.claim.id < id)) {
        await withdraw();
        claiming = false;
      }
      await sleep(POLL_MS);
    }
    await writeFile(path.join(folder, id + HELD), "");
  } catch (thrown) {
    await release();
    throw thrown;
  }
  await removeLeftovers(folder);
  return { path: folder, release, [Symbol.asyncDispose]: release };
}

// What starters left that were killed while they wrote, and marks whose claim is gone.
async function removeLeftovers(folder: string): Promise<void> {
  await removeStaleTemporaries(folder);
  const names = await namesIn(folder);
  const claimed = new Set(
    names.filter((name) => name.endsWith(CLAIM)).map((name) => name.slice(0, -CLAIM.length)),
  );
  for (const name of names.filter(
    (each) => each.endsWith(HELD) && !claimed.has(each.slice(0, -HELD.length)),
  )) {
    await rm(path.join(folder, name), { force: true });
  }
}
