// Files to a repository of the hub in one commit: what the hub wants to store as large files goes to its store first, by hash, the rest
// travels in the commit itself. What is uploaded, and whether at all, is the caller's decision.
import { createHash } from "node:crypto";
import { createReadStream, openAsBlob } from "node:fs";
import { open, readFile, stat } from "node:fs/promises";
import { NlaError } from "../error.js";
import type { Environment } from "./hub-cache.js";
import { endpointOf, tokenOf } from "./hub-download.js";

/** One file: from disk, or made for the occasion. */
export interface UploadFile {
  /** Path in the repository. */
  readonly path: string;
  readonly from: { readonly file: string } | { readonly text: string };
}

/** Options of {@link uploadFiles}. */
export interface UploadOptions {
  readonly env?: Environment;
  /** Whether a repository that is made anew is private. Defaults to true. */
  readonly private?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onFile?: (path: string) => void;
}

const MOST_BYTES = 5_000_000_000; // beyond this the hub takes files in parts only, which is not spoken here
const SAMPLE = 512; // bytes by which the hub tells text from binary

function uploadError(code: string, subject: string, found: string, wanted: string, next: string): NlaError {
  return new NlaError({ code: `hub.${code}`, subject, found, wanted, next });
}

interface Prepared {
  readonly path: string;
  readonly from: UploadFile["from"];
  readonly size: number;
  readonly sample: string;
}

async function prepared({ path, from }: UploadFile): Promise<Prepared> {
  if ("text" in from) {
    const bytes = Buffer.from(from.text);
    return { path, from, size: bytes.length, sample: bytes.subarray(0, SAMPLE).toString("base64") };
  }
  const { size } = await stat(from.file);
  if (size > MOST_BYTES)
    throw uploadError(
      "too-large",
      from.file,
      `${size} bytes`,
      `at most ${MOST_BYTES}`,
      "Save the model in shards.",
    );
  const handle = await open(from.file, "r");
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(SAMPLE), 0, SAMPLE, 0);
    return { path, from, size, sample: buffer.subarray(0, bytesRead).toString("base64") };
  } finally {
    await handle.close();
  }
}

async function bytesOf(from: UploadFile["from"]): Promise<Buffer> {
  return "text" in from ? Buffer.from(from.text) : readFile(from.file);
}

async function sha256Of(from: UploadFile["from"]): Promise<string> {
  const hash = createHash("sha256");
  if ("text" in from) hash.update(from.text);
  else for await (const part of createReadStream(from.file)) hash.update(part as Buffer);
  return hash.digest("hex");
}

/**
 * Commits files to `org/name`, which is made if it is not there.
 *
 * @returns the commit's id or address, as the hub gives it
 * @throws NlaError `hub.denied` without a token or the right to write, `hub.status`, `hub.reply`, `hub.too-large`
 */
export async function uploadFiles(
  repo: string,
  files: readonly UploadFile[],
  summary: string,
  options: UploadOptions = {},
): Promise<string> {
  const { env = process.env, signal, onFile } = options;
  const endpoint = endpointOf(env);
  const token = await tokenOf(env);
  if (token === null)
    throw uploadError(
      "denied",
      repo,
      "no token",
      "HF_TOKEN with the right to write",
      "Make one in the hub's settings.",
    );
  const ask = async (
    path: string,
    body: string,
    type = "application/json",
    allowed: readonly number[] = [],
  ) => {
    const headers = {
      authorization: `Bearer ${token}`,
      "content-type": type,
      accept: type.includes("lfs") ? type : "application/json",
    };
    const response = await fetch(`${endpoint}${path}`, {
      method: "POST",
      headers,
      body,
      signal: signal ?? null,
      redirect: "error",
    });
    const text = await response.text();
    if (response.ok) return JSON.parse(text === "" ? "{}" : text) as Record<string, unknown>;
    if (allowed.includes(response.status)) return {};
    const denied = response.status === 401 || response.status === 403;
    const next = denied
      ? "Check HF_TOKEN's rights for this organisation."
      : "Nothing is committed; try again.";
    throw uploadError(
      denied ? "denied" : "status",
      `${endpoint}${path}`,
      `status ${response.status}: ${text.slice(0, 200)}`,
      "status 200",
      next,
    );
  };

  const [organization, name] = repo.split("/");
  await ask(
    "/api/repos/create",
    JSON.stringify({ type: "model", name, organization, private: options.private ?? true }),
    undefined,
    [409],
  );
  const all = await Promise.all(files.map(prepared));
  const asked = all.map(({ path, size, sample }) => ({ path, size, sample }));
  const reply = await ask(`/api/models/${repo}/preupload/main`, JSON.stringify({ files: asked }));
  const modes = new Map(
    (reply["files"] as { path: string; uploadMode: string }[] | undefined)?.map((each) => [
      each.path,
      each.uploadMode,
    ]),
  );
  const lines: object[] = [{ key: "header", value: { summary, description: "" } }];
  for (const file of all) {
    const mode = modes.get(file.path);
    if (mode !== "lfs" && mode !== "regular")
      throw uploadError(
        "reply",
        file.path,
        `mode ${JSON.stringify(mode)}`,
        "lfs or regular",
        "Check HF_ENDPOINT.",
      );
    if (mode === "regular") {
      const content = (await bytesOf(file.from)).toString("base64");
      lines.push({ key: "file", value: { content, path: file.path, encoding: "base64" } });
    } else {
      const oid = await sha256Of(file.from);
      const batch = {
        operation: "upload",
        transfers: ["basic"],
        hash_algo: "sha256",
        objects: [{ oid, size: file.size }],
      };
      const answer = await ask(
        `/${repo}.git/info/lfs/objects/batch`,
        JSON.stringify(batch),
        "application/vnd.git-lfs+json",
      );
      await putLarge(file, answer, signal);
      lines.push({ key: "lfsFile", value: { path: file.path, algo: "sha256", oid, size: file.size } });
    }
    onFile?.(file.path);
  }
  const body = lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  const commit = await ask(`/api/models/${repo}/commit/main`, body, "application/x-ndjson");
  const { commitUrl, commitOid } = commit;
  return typeof commitUrl === "string" ? commitUrl : String(commitOid);
}

/** Puts a file where the hub's store asks for it; nothing where it has it already. */
async function putLarge(
  file: Prepared,
  answer: Record<string, unknown>,
  signal: AbortSignal | undefined,
): Promise<void> {
  interface LargeObject {
    readonly error?: { readonly message?: string };
    readonly actions?: {
      readonly upload?: { readonly href: string; readonly header?: Record<string, string> };
    };
  }
  const [object] = (answer["objects"] as LargeObject[] | undefined) ?? [];
  if (object === undefined || object.error)
    throw uploadError(
      "reply",
      file.path,
      object?.error?.message ?? "no answer for it",
      "where to put it",
      "Try again.",
    );
  const upload = object.actions?.upload;
  if (upload === undefined) return;
  const body = "text" in file.from ? new Blob([file.from.text]) : await openAsBlob(file.from.file);
  // The token is not for the store: its address carries a signature.
  const response = await fetch(upload.href, {
    method: "PUT",
    headers: upload.header ?? {},
    body,
    signal: signal ?? null,
  });
  await response.body?.cancel();
  if (!response.ok)
    throw uploadError(
      "status",
      file.path,
      `status ${response.status} from the store`,
      "status 200",
      "Nothing is committed; try again.",
    );
}
