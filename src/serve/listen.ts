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

/** Where to listen, and how long to wait for clients. */
export interface ListenOptions {
  readonly host: string;
  readonly port: number;
  /**
   * Milliseconds that a client may take to send a request, or to take nothing of an answer: a slow or dead one holds a socket, and
   * the end of the process, for nothing. Defaults to 60,000.
   */
  readonly patienceMs?: number;
}

const HEADERS_MS = 15_000; // a few lines arrive at once, or their sender is dead
const CHECK_MS = 5_000;

/** Listens. Port 0 takes any that is free. @throws the system's error where the port is taken */
export function listen(app: Hono, { host, port, patienceMs = 60_000 }: ListenOptions): Promise<Listening> {
  const serverOptions = {
    requestTimeout: patienceMs,
    headersTimeout: Math.min(HEADERS_MS, patienceMs),
    connectionsCheckingInterval: Math.min(CHECK_MS, patienceMs / 4),
  };
  return new Promise((resolve, reject) => {
    const server = serve(
      { fetch: app.fetch, hostname: host, port, overrideGlobalObjects: false, serverOptions },
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
    server.setTimeout(patienceMs, (socket) => {
      if (socket.writableLength > 0) socket.destroy();
      else socket.setTimeout(patienceMs); // it waits for us: an answer may take its time
    });
    server.once("error", reject);
  });
}
