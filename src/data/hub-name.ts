// Names of models on the Hugging Face hub, as they stand on command lines and in sidecars. Whether such a model exists is not known here.
import { existsSync } from "node:fs";

/** `org/name` or `org/name@revision`; for one file of several, `/file.gguf` or `:TYPE` after it. */
export interface HubName {
  /** `org/name`. */
  readonly repo: string;
  /** Branch, tag or commit. */
  readonly revision: string;
  /** A GGUF file in the repository. */
  readonly file?: string;
  /** Or the type that the file's name ends in, such as Q4_K_M. */
  readonly tag?: string;
}

const PART = "[A-Za-z0-9][A-Za-z0-9._-]*";
const NAME = new RegExp(
  `^(${PART}/${PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?(?::([A-Za-z0-9][A-Za-z0-9._-]*))?$`,
);
// A revision may have slashes. Before a file only those of the hub's pull requests may.
const REVISION = "refs/(?:pr|convert)/[A-Za-z0-9._-]+|[A-Za-z0-9][A-Za-z0-9._-]*";
const FILE = new RegExp(`^(${PART}/${PART})(?:@(${REVISION}))?/((?:[^/\\\\:]+/)*[^/\\\\:]+\\.gguf)$`, "i");

/** The parts of a hub name; null for what is none, or is a path that is there, or a file's in a folder that is there. */
export function parseHubName(text: string): HubName | null {
  if (text.includes("..") || existsSync(text)) return null;
  if (text.toLowerCase().endsWith(".gguf")) {
    const [, repo, revision = "main", file] = FILE.exec(text) ?? [];
    // A file that is not there is no reason to ask the network for it.
    if (repo === undefined || file === undefined || existsSync(text.slice(0, text.indexOf("/")))) return null;
    return { repo, revision, file };
  }
  const [, repo, revision = "main", tag] = NAME.exec(text) ?? [];
  if (repo === undefined) return null;
  return { repo, revision, ...(tag === undefined ? {} : { tag }) };
}

/** A name as {@link parseHubName} reads it. */
export function formatHubName({ repo, revision, file, tag }: HubName): string {
  const at = revision === "main" ? repo : `${repo}@${revision}`;
  return file === undefined ? `${at}${tag === undefined ? "" : `:${tag}`}` : `${at}/${file}`;
}
