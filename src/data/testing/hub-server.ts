// A server that speaks the hub's protocol, for tests: repositories are folders' or buffers' files, every one at one commit. It behaves well;
// what goes wrong on networks is in hub.test.ts.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";

const COMMIT = "c".repeat(40);

/** Files of a repository, by their path in it. */
export type RepositoryFiles = ReadonlyMap<string, Buffer>;

/** A running server. */
export interface HubServer extends AsyncDisposable {
  /** For HF_ENDPOINT. */
  readonly url: string;
  /** Repositories by name; may be added to. */
  readonly repositories: Map<string, RepositoryFiles>;
  /** Files that were fetched since this was emptied, `org/name/file`. */
  readonly fetched: Set<string>;
}

/** The files of a folder, those in its folders too. */
export function filesOf(folder: string): RepositoryFiles {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((each) =>
    each.isFile(),
  );
  const places = entries.map((each) => path.join(each.parentPath, each.name));
  return new Map(
    places.map((place) => [path.relative(folder, place).replaceAll(path.sep, "/"), readFileSync(place)]),
  );
}

function blobHash(bytes: Buffer): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

/** Starts one on a free port of this machine. */
export async function startHubServer(): Promise<HubServer> {
  const repositories = new Map<string, RepositoryFiles>();
  const fetched = new Set<string>();
  const server = createServer(({ url = "", headers }, response) => {
    const place = decodeURIComponent(url.split("?")[0] as string);
    const listed = /^\/api\/models\/([^/]+\/[^/]+)\/revision\//.exec(place)?.[1];
    const files = listed === undefined ? undefined : repositories.get(listed);
    if (files !== undefined) {
      const siblings = [...files].map(([rfilename, bytes]) => ({ rfilename, size: bytes.length }));
      response.end(JSON.stringify({ sha: COMMIT, siblings }));
      return;
    }
    const [, repo, file] = new RegExp(`^/([^/]+/[^/]+)/resolve/${COMMIT}/(.+)$`).exec(place) ?? [];
    const bytes = repositories.get(repo ?? "")?.get(file ?? "");
    if (bytes === undefined) {
      response.writeHead(404).end();
      return;
    }
    fetched.add(`${repo}/${file}`);
    const isProbe = headers.range === "bytes=0-0";
    response.writeHead(isProbe ? 206 : 200, { etag: `"${blobHash(bytes)}"` });
    response.end(isProbe ? bytes.subarray(0, 1) : bytes);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    repositories,
    fetched,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
