// A run that begins where another one's warm start ended: its data and its two warm-started models are taken over, so that arms of
// reinforcement learning differ in nothing else and cost minutes less. Not for going on with a run: that is what the same folder is for.
import { cp, link, mkdir, readdir, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";
import { parse } from "yaml";
import { writeFileAtomic } from "../data/files.js";
import { NlaError } from "../error.js";
import { configDifferences, configHash, renderConfig } from "./config.js";
import type { TrainConfig } from "./config.js";
import { readRows } from "./metrics-log.js";
import { RUN_LAYOUT, STAGES } from "./run-layout.js";

/** What an arm may change: nothing that data or warm start were made with. A seed then decides the rollouts. */
const FREE = /^(rl\.|log\.|threads$|seed$)/;
const TAKEN: readonly string[] = STAGES.slice(0, STAGES.indexOf("rl"));

/**
 * Makes the run folder `directory` for `config` out of the run `from`, up to the end of its warm start. A folder that is there stays as it
 * is: the run then goes on.
 *
 * @throws NlaError `branch.source` where `from` has no finished warm start, `branch.config` where the configs differ in what it was made with
 */
export async function branchRun(from: string, directory: string, config: TrainConfig): Promise<void> {
  if (await readOrNull(path.join(directory, RUN_LAYOUT.config))) return;
  const stages = await warmStages(from);
  const there = parse(await readFile(path.join(from, RUN_LAYOUT.config), "utf8")) as unknown;
  const other = configDifferences(there, config).filter(({ key }) => !FREE.test(key));
  // A key that the other run did not know yet is absent there and has its default here, which is how that run behaved.
  const differing = other.filter(({ left }) => left !== null);
  if (differing.length > 0) {
    throw new NlaError({
      code: "branch.config",
      subject: `--from ${from}`,
      found: `a run with ${differing.map(({ key, left }) => `${key} ${left ?? "absent"}`).join(", ")}`,
      wanted: differing.map(({ key, right }) => `${key} ${right ?? "absent"}`).join(", "),
      next: "Only rl, log, threads and seed may differ; train the warm start anew for the rest.",
    });
  }
  const made = `${path.resolve(directory)}.branch`;
  await rm(made, { recursive: true, force: true });
  await mkdir(made, { recursive: true });
  await linkTree(path.join(from, RUN_LAYOUT.data), path.join(made, RUN_LAYOUT.data));
  for (const folder of [RUN_LAYOUT.warmReconstructor, RUN_LAYOUT.warmVerbalizer])
    await cp(path.join(from, folder), path.join(made, folder), { recursive: true });
  for (const log of [RUN_LAYOUT.metrics, RUN_LAYOUT.samples]) {
    const rows = await readRows(path.join(from, log));
    const kept = rows.filter(({ stage }) => TAKEN.includes(String(stage)));
    await writeFileAtomic(path.join(made, log), kept.map((row) => `${JSON.stringify(row)}\n`).join(""));
  }
  const state = { version: 1, config_hash: configHash(config), stages };
  await writeFileAtomic(path.join(made, RUN_LAYOUT.state), `${JSON.stringify(state, null, 2)}\n`);
  await writeFileAtomic(path.join(made, RUN_LAYOUT.config), renderConfig(config));
  await mkdir(path.dirname(path.resolve(directory)), { recursive: true });
  await rename(made, path.resolve(directory));
}

async function warmStages(from: string): Promise<readonly { readonly name: string }[]> {
  const text = await readOrNull(path.join(from, RUN_LAYOUT.state));
  const { stages = [] } = text === null ? {} : (JSON.parse(text) as { stages?: { name: string }[] });
  const taken = stages.filter(({ name }) => TAKEN.includes(name));
  if (taken.length === TAKEN.length) return taken;
  throw new NlaError({
    code: "branch.source",
    subject: `--from ${from}`,
    found:
      text === null
        ? "no run"
        : `a run that has done ${taken.map(({ name }) => name).join(", ") || "nothing"}`,
    wanted: `a run that has done ${TAKEN.join(", ")}`,
    next: "Let that run finish its warm start first: `nla train` goes on where it stopped.",
  });
}

async function readOrNull(file: string): Promise<string | null> {
  return await readFile(file, "utf8").catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return null;
    throw thrown;
  });
}

/** Finished data files are never written again, so two runs can share them. */
async function linkTree(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [path.join(from, entry.name), path.join(to, entry.name)];
    if (entry.isDirectory()) await linkTree(source, target);
    else await link(source, target).catch(() => cp(source, target)); // another disk
  }
}
