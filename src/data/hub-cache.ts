// Where the files of the Hugging Face hub lie on this machine: the cache that every Hugging Face library uses, so that what
// one downloaded the others find. Nothing here touches the network (hub-download.ts).
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { NlaError } from "../error.js";
import { ggufOf } from "./hub-gguf.js";
import type { HubName } from "./hub-name.js";

/** Environment variables; `process.env` fits. */
export type Environment = Readonly<Record<string, string | undefined>>;

const COMMIT = /^[0-9a-f]{40}$/;

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

/**
 * What the cache has for a name: the folder of a revision's files, or the GGUF file in it that the name means; null if none.
 *
 * @throws NlaError `hub.file`, `hub.split-gguf` where the files there do not say which is meant
 */
export function cachedModel(name: HubName, env: Environment = process.env): string | null {
  const folder = cachedSnapshot(name, env);
  if (folder === null) return null;
  const names = readdirSync(folder, { recursive: true }).map((each) =>
    String(each).replaceAll(path.sep, "/"),
  );
  if (name.file !== undefined && !names.includes(name.file)) return null;
  const file = ggufOf(name, names);
  return file === null ? folder : path.join(folder, file);
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
