// The application on a port, and its end: nothing new is taken, what is at work is finished, then the port is free.
import type { Server } from "node:http";
import { serve } from "@hono/node-server";
import type { Hono } from "hono";

/** A listening server. */
export interface Listening {
  readonly url: string;
  /** Stops listening and waits for the requests at work. */
  close(): Promise<void>;
}

// A request that takes longer to arrive than this is a slow or dead sender, and holds a socket for nothing.
const REQUEST_MS = 60_000;
const HEADERS_MS = 15_000;

/** Listens. Port 0 takes any that is free. @throws the system's error where the port is taken */
export function listen(
  app: Hono,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<Listening> {
  return new Promise((resolve, reject) => {
    const server = serve(
      { fetch: app.fetch, hostname: host, port, overrideGlobalObjects: false },
      (address) => {
        server.off("error", reject);
        const name = host.includes(":") ? `[${host}]` : host;
        resolve({
          url: `http://${name}:${address.port}`,
          close: () =>
            new Promise((closed) => {
              server.close(() => closed());
              server.closeIdleConnections();
            }),
        });
      },
    ) as Server;
    server.requestTimeout = REQUEST_MS;
    server.headersTimeout = HEADERS_MS;
    server.once("error", reject);
  });
}
