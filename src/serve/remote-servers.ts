// Several servers that can do the same work: requests go to whichever has least to do; one that does not answer is retired and its
// work redone elsewhere. What a request means is the caller's.
import { NlaError, messageOf } from "../error.js";

/** Options of {@link RemoteServers}. */
export interface RemoteOptions {
  /** Requests at one server at a time. Defaults to 16. */
  readonly concurrency?: number;
  /** Milliseconds until a server counts as dead. Defaults to 120,000, as the reference's client waits. */
  readonly timeoutMs?: number;
  readonly apiKey?: string;
  /** Called when a server is retired. */
  readonly onRetired?: (url: string, reason: string) => void;
}

const MOST_TRIES = 60; // a second apart at the end, as the reference's rollout asks

interface Remote {
  readonly url: string;
  busy: number;
}

function remoteError(code: string, subject: string, found: string, wanted: string, next: string): NlaError {
  return new NlaError({ code: `remote.${code}`, subject, found, wanted, next });
}

/** A pool of servers. */
export class RemoteServers {
  readonly #alive: Remote[];
  readonly #options: RemoteOptions;
  readonly #concurrency: number;
  readonly #waiting: (() => void)[] = [];

  /** @param urls with or without a path; `/generate` and the like are added to it. @throws NlaError `remote.url` */
  constructor(urls: readonly string[], options: RemoteOptions = {}) {
    this.#alive = urls.map((url) => {
      if (!/^https?:\/\/[^/]/.test(url) || !URL.canParse(url))
        throw remoteError(
          "url",
          "a server",
          JSON.stringify(url),
          "http://HOST:PORT",
          "Give the server's address.",
        );
      return { url: url.replace(/\/+$/, ""), busy: 0 };
    });
    this.#options = options;
    this.#concurrency = options.concurrency ?? 16;
  }

  /** Servers that still answer. */
  get alive(): readonly string[] {
    return this.#alive.map(({ url }) => url);
  }

  /**
   * The JSON that a server answers to a POST. A server that cannot be reached, does not answer in time or fails (5xx) is retired;
   * one that is full (429, 503) is asked again.
   *
   * @throws NlaError `remote.refused` for another status, `remote.reply` for what is no JSON, `remote.none` where no server is left
   */
  async post(path: string, body: unknown, signal?: AbortSignal): Promise<unknown> {
    const text = JSON.stringify(body);
    for (let attempt = 0; ; attempt++) {
      const server = await this.#take(signal);
      try {
        const reply = await this.#ask(server, path, text, signal);
        if (reply === "full" && attempt >= MOST_TRIES) this.#retire(server, "full for too long");
        else if (reply !== "full") return parsed(reply, `${server.url}${path}`);
      } catch (thrown) {
        signal?.throwIfAborted();
        if (thrown instanceof NlaError) throw thrown;
        this.#retire(server, messageOf(thrown));
      } finally {
        server.busy--;
        this.#waiting.shift()?.();
      }
      await new Promise((resolve) => setTimeout(resolve, Math.min(1000, 50 * (attempt + 1))));
    }
  }

  async #take(signal?: AbortSignal): Promise<Remote> {
    for (;;) {
      signal?.throwIfAborted();
      if (this.#alive.length === 0) {
        const next = "Start a server again, or leave --server out.";
        throw remoteError("none", "the servers", "none that answers", "at least one", next);
      }
      const best = this.#alive.reduce((a, b) => (b.busy < a.busy ? b : a));
      if (best.busy < this.#concurrency) {
        best.busy++;
        return best;
      }
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  async #ask(server: Remote, path: string, body: string, signal?: AbortSignal): Promise<string> {
    const { timeoutMs = 120_000, apiKey } = this.#options;
    const limit = AbortSignal.timeout(timeoutMs);
    const response = await fetch(`${server.url}${path}`, {
      method: "POST",
      body,
      headers: {
        "content-type": "application/json",
        ...(apiKey ? { authorization: `Bearer ${apiKey}` } : {}),
      },
      redirect: "manual", // a redirect would send the body to a host that nobody named
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
    });
    const text = await response.text();
    if (response.ok) return text;
    if (response.status === 429 || response.status === 503) return "full";
    const found = `status ${response.status}: ${text.slice(0, 200)}`;
    if (response.status >= 500) throw new Error(found);
    const next = "The server does not take this request: check that it serves the same model.";
    throw remoteError("refused", `${server.url}${path}`, found, "status 200", next);
  }

  #retire(server: Remote, reason: string): void {
    const at = this.#alive.indexOf(server);
    if (at < 0) return;
    this.#alive.splice(at, 1);
    this.#options.onRetired?.(server.url, reason);
    for (const each of this.#waiting.splice(0)) each(); // they may have nobody left to wait for
  }
}

function parsed(text: string, subject: string): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (thrown) {
    const next = "Something other than the server answered: check the address.";
    throw remoteError(
      "reply",
      subject,
      `${JSON.stringify(text.slice(0, 80))} (${messageOf(thrown)})`,
      "JSON",
      next,
    );
  }
}
