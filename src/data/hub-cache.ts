// Names on the Hugging Face hub, and where their files lie on this machine: the cache that every Hugging Face library uses, so that what
// one downloaded the others find. Nothing here touches the network (hub-download.ts).
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { NlaError } from "../error.js";

/** `org/name` or `org/name@revision`. */
export interface HubName {
  /** `org/name`. */
  readonly repo: string;
  /** Branch, tag or commit. */
  readonly revision: string;
}

/** Environment variables; `process.env` fits. */
export type Environment = Readonly<Record<string, string | undefined>>;

const PART = "[A-Za-z0-9][A-Za-z0-9._-]*";
const NAME = new RegExp(`^(${PART}/${PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?$`);
const COMMIT = /^[0-9a-f]{40}$/;

/** The parts of a hub name; null for what is none, or is a path that is there. */
export function parseHubName(text: string): HubName | null {
  const match = NAME.exec(text);
  // A file that is not there is no reason to ask the network for it.
  const isFile = text.toLowerCase().endsWith(".gguf");
  if (match === null || isFile || text.includes("..") || existsSync(text)) return null;
  return { repo: match[1] as string, revision: match[2] ?? "main" };
}

/** Where the hub's files lie: HF_HUB_CACHE, or `hub` in HF_HOME, or `~/.cache/huggingface/hub`. */
export function hubCache(env: Environment = process.env): string {
  return env["HF_HUB_CACHE"] || path.join(hubHome(env), "hub");
}

/** HF_HOME, or `huggingface` in XDG_CACHE_HOME or `~/.cache`. */
export function hubHome(env: Environment = process.env): string {
  return env["HF_HOME"] || path.join(env["XDG_CACHE_HOME"] || path.join(homedir(), ".cache"), "huggingface");
}

/** The folder of a repository in the cache. */
export function repoFolder({ repo }: Pick<HubName, "repo">, env: Environment = process.env): string {
  return path.join(hubCache(env), `models--${repo.replaceAll("/", "--")}`);
}

/** The commit that the cache knows a revision as; null if none. */
export function cachedCommit(name: HubName, env: Environment = process.env): string | null {
  if (COMMIT.test(name.revision)) return name.revision;
  const file = path.join(repoFolder(name, env), "refs", name.revision);
  if (!existsSync(file)) return null;
  const commit = readFileSync(file, "utf8").trim();
  return COMMIT.test(commit) ? commit : null;
}

/** The folder with a revision's files, if the cache has one that is not empty; whether all files are in it is not known. */
export function cachedSnapshot(name: HubName, env: Environment = process.env): string | null {
  const commit = cachedCommit(name, env);
  if (commit === null) return null;
  const folder = path.join(repoFolder(name, env), "snapshots", commit);
  return existsSync(folder) && readdirSync(folder).length > 0 ? folder : null;
}

/** A path inside a repository as one that cannot leave a folder. @throws NlaError `hub.path` */
export function safePath(file: string): string {
  const parts = file.split("/");
  const bad = parts.some((part) => part === "" || part === "." || part === ".." || /[\\:\0]/.test(part));
  if (!bad) return file;
  throw new NlaError({
    code: "hub.path",
    subject: "a file of a repository",
    found: JSON.stringify(file),
    wanted: "a path inside it",
    next: "Do not use this repository: it names files outside of it.",
  });
}
