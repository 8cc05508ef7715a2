// A repository of the hub into the cache: what a model needs of it, each file resumed where it stopped, checked against its hash, and put in
// place only whole. The layout is the one of Hugging Face's own libraries: blobs by hash, snapshots of links to them, refs.
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { NlaError, messageOf } from "../error.js";
import { cachedModel, hubHome, repoFolder, safePath } from "./hub-cache.js";
import type { Environment } from "./hub-cache.js";
import { companionsOf, ggufOf } from "./hub-gguf.js";
import { formatHubName } from "./hub-name.js";
import type { HubName } from "./hub-name.js";

/** How far a download is. */
export interface HubProgress {
  readonly file: string;
  /** Bytes of this file that are there. */
  readonly bytes: number;
  readonly total: number | null;
}

/** Options of {@link downloadSnapshot}. */
export interface DownloadOptions {
  /** HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE. Defaults to `process.env`. */
  readonly env?: Environment;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: HubProgress) => void;
}

const ENDPOINT = "https://huggingface.co";
const MOST_TRIES = 5; // in a row, without one byte more
const STALL_MS = 60_000;
const MOST_FILES = 10_000;

// What a model consists of here; weights in other formats are not read, and double the download.
const WANTED = /\.(json|safetensors|jinja|ya?ml|txt|md)$|^LICENSE|^tokenizer\.model$/;
const UNWANTED = /(^|\/)(onnx|openvino|original|runs|\.[^/]*)\/|^consolidated|training_args|\.parquet/;

interface RemoteFile {
  readonly path: string;
  readonly size: number | null;
  readonly url: string;
}

function hubError(
  code: string,
  subject: string,
  found: string,
  wanted: string,
  next: string,
  cause?: unknown,
) {
  return new NlaError({ code: `hub.${code}`, subject, found, wanted, next, cause });
}

/** True if the environment forbids the network. */
export function isOffline(env: Environment): boolean {
  return ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].some((key) => /^(1|true|yes|on)$/i.test(env[key] ?? ""));
}

/** The address of the hub. */
export function endpointOf(env: Environment): string {
  return (env["HF_ENDPOINT"] || ENDPOINT).replace(/\/+$/, "");
}

/** The token of the environment, or of the file where Hugging Face's login puts it. */
export async function tokenOf(env: Environment): Promise<string | null> {
  const stated = env["HF_TOKEN"] || env["HUGGING_FACE_HUB_TOKEN"];
  if (stated) return stated.trim();
  const file = env["HF_TOKEN_PATH"] || path.join(hubHome(env), "token");
  const text = await readFile(file, "utf8").catch((thrown: NodeJS.ErrnoException) => {
    if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return "";
    throw thrown;
  });
  return text.trim() || null;
}

class Client {
  constructor(
    private readonly endpoint: string,
    private readonly token: string | null,
    private readonly signal: AbortSignal | undefined,
  ) {}

  /** A GET; redirects are followed without the token, which is the hub's business only. */
  async get(url: string, headers: Record<string, string> = {}): Promise<Response> {
    const own = new URL(url).origin === new URL(this.endpoint).origin;
    const auth: Record<string, string> =
      own && this.token !== null ? { authorization: `Bearer ${this.token}` } : {};
    const response = await fetch(url, {
      headers: { ...headers, ...auth, "accept-encoding": "identity" },
      redirect: "manual",
      signal: this.#limit(),
    });
    const next = response.headers.get("location");
    if (response.status < 300 || response.status >= 400 || next === null) return response;
    await response.body?.cancel();
    const followed = await this.get(new URL(next, url).href, headers);
    // The hash of the file is known to the hub, not to where its bytes lie.
    return withHeaders(followed, response.headers);
  }

  #limit(): AbortSignal {
    const stall = AbortSignal.timeout(STALL_MS * 60);
    return this.signal ? AbortSignal.any([this.signal, stall]) : stall;
  }
}

const LINKED = ["x-linked-etag", "x-linked-size", "x-repo-commit"];

function withHeaders(response: Response, first: Headers): Response {
  const headers = new Headers(response.headers);
  for (const name of LINKED) {
    const value = first.get(name);
    if (value !== null) headers.set(name, value);
  }
  const { status, statusText, body } = response;
  return new Response(body, { status, statusText, headers });
}

/**
 * Brings what a model needs of a repository into the cache. A file that is there is not asked for again; offline, or where the hub cannot
 * be reached, the cache's own snapshot is taken. Of GGUF files one is brought, with the sidecar and value head that lie with it.
 *
 * @returns the snapshot's folder, or the path of the GGUF file in it
 * @throws NlaError `hub.offline`, `hub.unreachable` where there is none; `hub.missing`, `hub.denied`, `hub.status`, `hub.reply`;
 *   `hub.checksum` where a file arrives damaged twice; `hub.dropped`; `hub.path`; `hub.file` where it is not clear which GGUF file is
 *   meant, `hub.split-gguf`
 */
export async function downloadSnapshot(name: HubName, options: DownloadOptions = {}): Promise<string> {
  const { env = process.env, signal } = options;
  const full = formatHubName(name);
  if (isOffline(env)) {
    const cached = cachedModel(name, env);
    if (cached !== null) return cached;
    const next = "Unset HF_HUB_OFFLINE once, or copy the model into the cache.";
    throw hubError("offline", full, "offline mode and no copy in the cache", "a copy in the cache", next);
  }
  const endpoint = endpointOf(env);
  const client = new Client(endpoint, await tokenOf(env), signal);
  const listing = `${endpoint}/api/models/${name.repo}/revision/${encodeURIComponent(name.revision)}?blobs=true`;
  let response: Response;
  try {
    response = await client.get(listing);
  } catch (thrown) {
    signal?.throwIfAborted();
    const cached = cachedModel(name, env);
    if (cached !== null) return cached;
    const next = "Check the network and HF_ENDPOINT, or name a folder.";
    throw hubError("unreachable", full, messageOf(thrown), `an answer of ${endpoint}`, next, thrown);
  }
  checkStatus(response, full);
  const { commit, files: all } = await listed(response, name, endpoint);
  const names = all.map((file) => file.path);
  const gguf = ggufOf(name, names);
  const wanted = gguf === null ? names.filter(isOfModel) : [gguf, ...companionsOf(gguf, names)];
  const files = all.filter((file) => wanted.includes(file.path));
  const folder = repoFolder(name, env);
  const snapshot = path.join(folder, "snapshots", commit);
  for (const file of files) await bring(file, { client, folder, snapshot, ...options });
  if (name.revision !== commit) {
    const ref = path.join(folder, "refs", safePath(name.revision));
    await mkdir(path.dirname(ref), { recursive: true });
    await writeFile(ref, commit);
  }
  return gguf === null ? snapshot : path.join(snapshot, gguf);
}

function isOfModel(file: string): boolean {
  return WANTED.test(file) && !UNWANTED.test(file);
}

function checkStatus(response: Response, subject: string): void {
  const { status } = response;
  if (response.ok) return;
  if (status === 401 || status === 403) {
    const next = "Accept the model's terms on its page if it is gated, and set HF_TOKEN.";
    throw hubError("denied", subject, `status ${status}`, "permission to read it", next);
  }
  if (status === 404) {
    throw hubError(
      "missing",
      subject,
      "no such repository, revision or file",
      "one that is there",
      "Check the name; a private one needs HF_TOKEN.",
    );
  }
  throw hubError("status", subject, `status ${status}`, "status 200", "Try again later.");
}

async function listed(response: Response, name: HubName, endpoint: string) {
  const wanted = "{sha, siblings: [{rfilename, size}]}";
  const fail = (found: string) => hubError("reply", formatHubName(name), found, wanted, "Check HF_ENDPOINT.");
  const reply = (await response.json().catch((thrown: unknown) => {
    throw fail(messageOf(thrown));
  })) as { sha?: unknown; siblings?: unknown };
  const { sha, siblings } = reply;
  if (typeof sha !== "string" || !/^[0-9a-f]{40}$/.test(sha)) throw fail(`sha ${JSON.stringify(sha)}`);
  if (!Array.isArray(siblings) || siblings.length > MOST_FILES) throw fail("no list of files");
  const files = (siblings as { rfilename?: unknown; size?: unknown }[]).map(
    ({ rfilename, size }): RemoteFile => {
      if (typeof rfilename !== "string") throw fail("a file without a name");
      const file = safePath(rfilename);
      const url = `${endpoint}/${name.repo}/resolve/${sha}/${file.split("/").map(encodeURIComponent).join("/")}`;
      return { path: file, size: typeof size === "number" ? size : null, url };
    },
  );
  return { commit: sha, files };
}

interface Place extends DownloadOptions {
  readonly client: Client;
  readonly folder: string;
  readonly snapshot: string;
}

async function sizeOf(file: string): Promise<number | null> {
  return stat(file).then(
    ({ size }) => size,
    (thrown: NodeJS.ErrnoException) => {
      if (thrown.code === "ENOENT") return null;
      throw thrown;
    },
  );
}

/** One file into the cache and its snapshot. */
async function bring(file: RemoteFile, place: Place): Promise<void> {
  const link = path.join(place.snapshot, file.path);
  const there = await sizeOf(link);
  if (there !== null && (file.size === null || there === file.size)) return;
  let damaged = 0;
  let last = -1;
  for (let tries = 0; ;) {
    place.signal?.throwIfAborted();
    try {
      const blob = await fetchOnce(file, place);
      await mkdir(path.dirname(link), { recursive: true });
      await rm(link, { force: true });
      // Relative, so that the cache can be moved.
      await symlink(path.relative(path.dirname(link), blob), link);
      return;
    } catch (thrown) {
      place.signal?.throwIfAborted();
      if (thrown instanceof NlaError) {
        if (thrown.code !== "hub.checksum" || ++damaged > 1) throw thrown;
        continue; // fetched from its beginning once more
      }
      const had = partial.get(link) ?? 0;
      tries = had > last ? 1 : tries + 1;
      last = had;
      if (tries < MOST_TRIES) {
        await new Promise((resolve) => setTimeout(resolve, 20 * 2 ** tries));
        continue;
      }
      const next = "Run the command again: it goes on where it stopped.";
      throw hubError(
        "dropped",
        file.url,
        `${messageOf(thrown)} after ${had} bytes`,
        "the whole file",
        next,
        thrown,
      );
    }
  }
}

// Bytes that the last attempt left, by link: progress starts the count of tries anew.
const partial = new Map<string, number>();

async function fetchOnce(file: RemoteFile, place: Place): Promise<string> {
  const { client, folder, onProgress } = place;
  const link = path.join(place.snapshot, file.path);
  const blobs = path.join(folder, "blobs");
  await mkdir(blobs, { recursive: true });
  // The hash, which names the blob, comes with the first answer; what is there already decides what is asked for then.
  const head = await client.get(file.url, { range: "bytes=0-0" });
  if (head.status !== 416) checkStatus(head, file.url);
  const etag = etagOf(head);
  await head.body?.cancel();
  if (etag === null)
    throw hubError("reply", file.url, "no hash (ETag)", "the file's hash", "Check HF_ENDPOINT.");
  const blob = path.join(blobs, etag);
  if ((await sizeOf(blob)) !== null) return blob;
  const incomplete = `${blob}.incomplete`;
  const start = (await sizeOf(incomplete)) ?? 0;
  const response = await client.get(file.url, start > 0 ? { range: `bytes=${start}-` } : {});
  if (response.status === 416) {
    // What is there is not shorter than the file: whole, or damaged. The hash will tell.
    await response.body?.cancel();
  } else {
    checkStatus(response, file.url);
    const from = response.status === 206 ? start : 0;
    const handle = await open(incomplete, from > 0 ? "a" : "w");
    let bytes = from;
    try {
      for await (const part of response.body as unknown as AsyncIterable<Uint8Array>) {
        await handle.writeFile(part);
        bytes += part.byteLength;
        partial.set(link, bytes);
        onProgress?.({ file: file.path, bytes, total: file.size });
      }
    } finally {
      await handle.close();
    }
    if (file.size !== null && bytes < file.size)
      throw new Error(`the connection ended at ${bytes} of ${file.size} bytes`);
  }
  const found = await hashOf(incomplete, etag);
  if (found !== etag) {
    await rm(incomplete, { force: true });
    const next = "Try again; if it stays so, the file at the hub or a proxy in between is damaged.";
    throw hubError("checksum", file.url, found, etag, next);
  }
  await rename(incomplete, blob);
  return blob;
}

function etagOf({ headers }: Response): string | null {
  const text = headers.get("x-linked-etag") ?? headers.get("etag");
  const etag = text?.replace(/^W\//, "").replaceAll('"', "") ?? "";
  return /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(etag) ? etag : null;
}

/** The hash that the hub gives a file: sha256 of large ones, git's blob hash (sha1) of others. */
async function hashOf(file: string, like: string): Promise<string> {
  const size = (await sizeOf(file)) ?? 0;
  const hash: Hash = like.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
  for await (const part of createReadStream(file)) hash.update(part as Buffer);
  return hash.digest("hex");
}
