// `nla push` against a local server that takes a commit as the hub does: dry-run by default, large files by hash, and the token where it
// belongs.
import { createHash } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { Device } from "../tensor/index.js";
import { runNla } from "./testing/run-nla.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-push-"));
const run = path.join(scratch, "run");
let server: Server;
let env: Record<string, string>;
const store = new Map<string, Buffer>();
const requests: { method: string; url: string; authorization: string | undefined; body: Buffer }[] = [];
let refuse = 0;

beforeAll(async () => {
  using device = Device.open({ threads: 1 });
  await writeUntrainedPair(run, device);
  server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const body = Buffer.concat(parts);
      const { method = "", url = "", headers } = request;
      requests.push({ method, url, authorization: headers.authorization, body });
      const json = (value: unknown) => response.end(JSON.stringify(value));
      if (method === "PUT") {
        store.set(url.split("/").at(-1) as string, body);
        response.end();
      } else if (headers.authorization !== "Bearer hf_w") response.writeHead(401).end();
      else if (refuse > 0) response.writeHead(refuse).end();
      else if (url === "/api/repos/create") response.writeHead(409).end("{}");
      else if (url.endsWith("/preupload/main")) {
        const { files } = JSON.parse(body.toString()) as { files: { path: string }[] };
        json({
          files: files.map((each) => ({
            path: each.path,
            uploadMode: each.path.endsWith(".safetensors") ? "lfs" : "regular",
          })),
        });
      } else if (url.endsWith("/objects/batch")) {
        const { objects } = JSON.parse(body.toString()) as { objects: { oid: string }[] };
        const { port } = server.address() as AddressInfo;
        const actions = (oid: string) => ({ upload: { href: `http://127.0.0.1:${port}/store/${oid}` } });
        json({
          objects: objects.map(({ oid }) => (store.has(oid) ? { oid } : { oid, actions: actions(oid) })),
        });
      } else json({ commitUrl: "https://hub/org/name/commit/1" });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  env = { HF_ENDPOINT: `http://127.0.0.1:${port}`, HF_HOME: path.join(scratch, "home") };
});
afterAll(() => {
  server.close();
  rmSync(scratch, { recursive: true, force: true });
});
beforeEach(() => {
  requests.length = 0;
  store.clear();
  refuse = 0;
});

const codeOf = (out: string) => (JSON.parse(out) as { error: { code: string } }).error.code;

const push = (...more: string[]) =>
  runNla(["push", run, "org/name", "--json", ...more], { env: { ...env, HF_TOKEN: "hf_w" } });

describe("nla push", () => {
  it("sends nothing by default, and shows the card and the files", async () => {
    const { code, out } = await push("--license", "mit");
    expect(code, out).toBe(0);
    const { card, files, published } = JSON.parse(out) as {
      card: string;
      files: { path: string }[];
      published: null;
    };
    expect(published).toBeNull();
    expect(requests).toEqual([]);
    expect(card).toContain("license: mit");
    expect(card).toContain("Not evaluated");
    expect(files.map(({ path: file }) => file)).toEqual(
      expect.arrayContaining([
        "README.md",
        "verbalizer/nla_meta.yaml",
        "reconstructor/value_head.safetensors",
      ]),
    );
  });

  it("commits every file once, the large ones to the store by hash and without the token", async () => {
    const { code, out } = await push("--publish");
    expect(code, out).toBe(0);
    expect((JSON.parse(out) as { published: string }).published).toBe("https://hub/org/name/commit/1");
    const commit = requests.find(({ url }) => url.endsWith("/commit/main"))?.body.toString() ?? "";
    interface Line {
      readonly key: string;
      readonly value: { readonly path: string; readonly content: string; readonly oid: string };
    }
    const lines = commit
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Line);
    expect(lines[0]?.key).toBe("header");
    for (const { key, value } of lines.slice(1)) {
      if (value.path === "README.md") continue;
      const bytes = readFileSync(path.join(run, value.path));
      if (key === "file")
        expect(Buffer.compare(Buffer.from(value.content, "base64"), bytes), value.path).toBe(0);
      else {
        expect(value.oid).toBe(createHash("sha256").update(bytes).digest("hex"));
        expect(Buffer.compare(store.get(value.oid) as Buffer, bytes)).toBe(0);
      }
    }
    expect(lines.filter(({ key }) => key === "lfsFile")).toHaveLength(3);
    const puts = requests.filter(({ method }) => method === "PUT");
    expect(puts).toHaveLength(3);
    expect(puts.every(({ authorization }) => authorization === undefined)).toBe(true);
  });

  it("refuses a faulty pair, a path of this machine, a missing token and a refusing hub", async () => {
    const broken = path.join(scratch, "broken");
    cpSync(run, broken, { recursive: true });
    rmSync(path.join(broken, "reconstructor/value_head.safetensors"));
    expect(codeOf((await runNla(["push", broken, "org/name", "--json"])).out)).toBe("push.faulty");
    const local = path.join(scratch, "local");
    cpSync(run, local, { recursive: true });
    const sidecar = path.join(local, "verbalizer/nla_meta.yaml");
    writeFileSync(
      sidecar,
      readFileSync(sidecar, "utf8").replace(
        "base_checkpoint: aidreams260K",
        "base_checkpoint: /home/me/model",
      ),
    );
    expect(codeOf((await runNla(["push", local, "org/name", "--json"])).out)).toBe("push.local-path");
    expect(codeOf((await runNla(["push", run, "org/name", "--json", "--publish"], { env })).out)).toBe(
      "hub.denied",
    );
    refuse = 500;
    expect(codeOf((await push("--publish")).out)).toBe("hub.status");
    expect((await runNla(["push", run, "name", "--json"])).code).toBe(2);
  });
});
