// Downloads from a server that speaks the hub's protocol and misbehaves as networks do: connections that drop, bytes that change, files
// that are gone, a hub that is down.
import { createHash } from "node:crypto";
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { runNla } from "../cli/testing/run-nla.js";
import { writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { Device } from "../tensor/index.js";
import { cachedSnapshot } from "./hub-cache.js";
import { downloadSnapshot } from "./hub-download.js";
import { parseHubName } from "./hub-name.js";

const ASSET = path.resolve(import.meta.dirname, "../../assets/aidreams260K");
const COMMIT = "a".repeat(40);
const files = new Map(
  readdirSync(ASSET)
    .filter((name) => lstatSync(path.join(ASSET, name)).isFile())
    .map((name) => [name, readFileSync(path.join(ASSET, name))]),
);
files.set("pytorch_model.bin", Buffer.from("not wanted"));

interface Trouble {
  /** Ends each connection after so many bytes of a body. */
  dropAfter?: number;
  /** Changes a byte of so many of the next bodies. */
  damage?: number;
  down?: boolean;
  token?: string;
  etag?: string;
}

let trouble: Trouble = {};
const asked: { url: string; range: string | undefined; authorization: string | undefined }[] = [];
let server: Server;
let cdn: Server;
let home: string;
let env: Record<string, string>;

function etagOf(name: string, bytes: Buffer): string {
  if (name.endsWith(".safetensors")) return createHash("sha256").update(bytes).digest("hex");
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  const { url = "", headers } = request;
  asked.push({ url, range: headers.range, authorization: headers.authorization });
  if (trouble.down) {
    request.socket.destroy();
    return;
  }
  if (trouble.token && headers.authorization !== `Bearer ${trouble.token}`) {
    response.writeHead(401).end();
    return;
  }
  if (
    url.startsWith("/api/models/org/tiny/revision/main") ||
    url.startsWith(`/api/models/org/tiny/revision/${COMMIT}`)
  ) {
    const siblings = [...files].map(([rfilename, bytes]) => ({ rfilename, size: bytes.length }));
    response.end(JSON.stringify({ sha: COMMIT, siblings }));
    return;
  }
  const name = decodeURIComponent(url.split(`/resolve/${COMMIT}/`)[1] ?? "");
  const bytes = files.get(name);
  if (bytes === undefined) {
    response.writeHead(404).end();
    return;
  }
  const etag = trouble.etag ?? etagOf(name, bytes);
  if (name.endsWith(".safetensors")) {
    // Large files lie elsewhere, as at the hub.
    const { port } = cdn.address() as AddressInfo;
    const location = `http://127.0.0.1:${port}/${name}`;
    response.writeHead(302, { location, "x-linked-etag": `"${etag}"`, "x-linked-size": bytes.length }).end();
    return;
  }
  send(request, response, bytes, { etag: `"${etag}"` });
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Buffer,
  headers: Record<string, string>,
): void {
  const [, from = "0", to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
  const start = Number(from);
  if (start >= bytes.length) {
    response.writeHead(416, headers).end();
    return;
  }
  const body = Buffer.from(bytes.subarray(start, to ? Number(to) + 1 : undefined));
  const isProbe = to === "0";
  if (!isProbe && trouble.damage) {
    trouble.damage--;
    body[body.length - 1] = (body[body.length - 1] as number) ^ 1;
  }
  response.writeHead(request.headers.range ? 206 : 200, { ...headers, "content-length": body.length });
  if (trouble.dropAfter !== undefined && !isProbe && body.length > trouble.dropAfter) {
    response.write(body.subarray(0, trouble.dropAfter), () => request.socket.destroy());
    return;
  }
  response.end(body);
}

beforeAll(async () => {
  server = createServer(answer);
  cdn = createServer((request, response) => {
    asked.push({
      url: `cdn${request.url}`,
      range: request.headers.range,
      authorization: request.headers.authorization,
    });
    send(request, response, files.get((request.url ?? "").slice(1)) as Buffer, {});
  });
  for (const each of [server, cdn])
    await new Promise<void>((resolve) => each.listen(0, "127.0.0.1", resolve));
});
afterAll(() => {
  server.close();
  cdn.close();
});
beforeEach(() => {
  home = mkdtempSync(path.join(tmpdir(), "nlakit-hub-"));
  const { port } = server.address() as AddressInfo;
  env = { HF_ENDPOINT: `http://127.0.0.1:${port}/`, HF_HOME: home };
  trouble = {};
  asked.length = 0;
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(home, { recursive: true, force: true });
});

const NAME = { repo: "org/tiny", revision: "main" };

function expectWhole(folder: string): void {
  for (const [name, bytes] of files) {
    if (name.endsWith(".bin")) expect(existsSync(path.join(folder, name))).toBe(false);
    else expect(Buffer.compare(readFileSync(path.join(folder, name)), bytes), name).toBe(0);
  }
}

describe("a download", () => {
  it("lies as Hugging Face's libraries have it, and is not fetched again", async () => {
    const folder = await downloadSnapshot(NAME, { env });
    const repo = path.join(home, "hub/models--org--tiny");
    expect(folder).toBe(path.join(repo, "snapshots", COMMIT));
    expect(readFileSync(path.join(repo, "refs/main"), "utf8")).toBe(COMMIT);
    expect(lstatSync(path.join(folder, "config.json")).isSymbolicLink()).toBe(true);
    expect(
      readdirSync(path.join(repo, "blobs")).every((name) => /^([0-9a-f]{40}|[0-9a-f]{64})$/.test(name)),
    ).toBe(true);
    expectWhole(folder);
    asked.length = 0;
    expect(await downloadSnapshot(NAME, { env })).toBe(folder);
    expect(asked).toHaveLength(1); // the listing
    expect(cachedSnapshot(NAME, env)).toBe(folder);
  });

  it("goes on where a dropped connection ended, as often as it takes", async () => {
    trouble = { dropAfter: 100_000 };
    const folder = await downloadSnapshot(NAME, { env });
    expectWhole(folder);
    const ranges = asked.flatMap(({ url, range }) =>
      url === "cdn/model.safetensors" && range ? [range] : [],
    );
    expect(ranges.filter((range) => range !== "bytes=0-0").length).toBeGreaterThan(3);
    expect(ranges.some((range) => /^bytes=[1-9]\d{4,}-$/.test(range))).toBe(true);
  });

  it("with a wrong checksum is fetched once more, and refused if it stays wrong", async () => {
    trouble = { damage: 1 };
    expectWhole(await downloadSnapshot(NAME, { env }));
    rmSync(home, { recursive: true });
    trouble = { damage: 1000 };
    await expect(downloadSnapshot(NAME, { env })).rejects.toMatchObject({ code: "hub.checksum" });
    const blobs = path.join(home, "hub/models--org--tiny/blobs");
    expect(readdirSync(blobs)).toEqual([]); // nothing damaged is left to go on from
  });

  it("that makes no progress is given up with the way to go on", async () => {
    trouble = { dropAfter: 0 };
    await expect(downloadSnapshot(NAME, { env })).rejects.toMatchObject({ code: "hub.dropped" });
    trouble = {};
    expectWhole(await downloadSnapshot(NAME, { env }));
  });

  it("sends the token to the hub and to nobody else", async () => {
    trouble = { token: "hf_x" };
    await expect(downloadSnapshot(NAME, { env })).rejects.toMatchObject({ code: "hub.denied" });
    expectWhole(await downloadSnapshot(NAME, { env: { ...env, HF_TOKEN: "hf_x" } }));
    const elsewhere = asked.filter(({ url }) => url.startsWith("cdn"));
    expect(elsewhere.length).toBeGreaterThan(0);
    expect(elsewhere.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it("offline, or with the hub down, takes the cache and says so where there is none", async () => {
    const offline = { ...env, HF_HUB_OFFLINE: "1" };
    await expect(downloadSnapshot(NAME, { env: offline })).rejects.toMatchObject({ code: "hub.offline" });
    expect(asked).toHaveLength(0);
    trouble = { down: true };
    await expect(downloadSnapshot(NAME, { env })).rejects.toMatchObject({ code: "hub.unreachable" });
    trouble = {};
    const folder = await downloadSnapshot(NAME, { env });
    expect(await downloadSnapshot(NAME, { env: offline })).toBe(folder);
    trouble = { down: true };
    expect(await downloadSnapshot(NAME, { env })).toBe(folder);
  });

  it("of what is not there, and by names that are none", async () => {
    await expect(downloadSnapshot({ repo: "org/other", revision: "main" }, { env })).rejects.toMatchObject({
      code: "hub.missing",
    });
    trouble = { etag: "../../x" };
    await expect(downloadSnapshot(NAME, { env })).rejects.toMatchObject({ code: "hub.reply" });
    files.set("../evil.json", Buffer.from("{}"));
    trouble = {};
    await expect(downloadSnapshot(NAME, { env })).rejects.toMatchObject({ code: "hub.path" });
    files.delete("../evil.json");
    expect(parseHubName("org/name@v1.0")).toEqual({ repo: "org/name", revision: "v1.0" });
    for (const text of ["name", "a/b/c", "./a/b", "../a", "/a/b", "org/..", "src/data"])
      expect(parseHubName(text), text).toBeNull();
  });

  it("serves the commands: a model by its name", async () => {
    for (const [key, value] of Object.entries(env)) vi.stubEnv(key, value);
    const out = path.join(home, "out.safetensors");
    const args = [
      "forward",
      "--model",
      "org/tiny",
      "--ids",
      "[1,5,6]",
      "--logits",
      "--out",
      out,
      "--threads",
      "1",
    ];
    const { code, err, out: printed } = await runNla(args, { env });
    expect(code, err + printed).toBe(0);
    expect(existsSync(out)).toBe(true);
    const checked = await runNla(["check", "org/tiny@main", "--json"], { env });
    expect(JSON.parse(checked.out)).toMatchObject({ kind: "checkpoint", findings: [] });
  });

  it("a target that a sidecar names is downloaded, and then found in the cache", async () => {
    const pair = path.join(home, "pair");
    using device = Device.open({ threads: 1 });
    await writeUntrainedPair(pair, device);
    const sidecar = path.join(pair, "verbalizer/nla_meta.yaml");
    const named = readFileSync(sidecar, "utf8").replace(
      "base_checkpoint: aidreams260K",
      "base_checkpoint: org/tiny",
    );
    expect(named).toContain("base_checkpoint: org/tiny");
    writeFileSync(sidecar, named);
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    const explain = () => {
      const args = ["explain", "A dog ran.", "--nla", pair, "--positions", "-1", "--threads", "1", "--json"];
      return runNla(args, { env });
    };
    asked.length = 0;
    const first = await explain();
    expect(first.code, first.err + first.out).toBe(0);
    expect(asked.some(({ url }) => url.includes("/resolve/"))).toBe(true);
    trouble.down = true;
    const second = await explain();
    expect([second.code, second.out]).toEqual([0, first.out]);
    writeFileSync(sidecar, named.replace("org/tiny", "org/nowhere"));
    const third = await explain();
    expect(JSON.parse(third.out)).toMatchObject({ error: { code: "cli.target" } });
  });
});
