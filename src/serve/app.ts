// The HTTP application: one table of routes, from which they are registered and the OpenAPI document is made; the key, the limits and
// the errors that all share. It listens nowhere (listen.ts), so that a test can call it.
import { createHash, timingSafeEqual } from "node:crypto";
import { Hono } from "hono";
import type { Context } from "hono";
import { z } from "zod";
import { messageOf } from "../error.js";
import { errorBody, requestError, statusOf } from "./http-error.js";
import { explainRoute, reconstructRoute, scoreRoute, sourcesRoute } from "./nla-routes.js";
import type { ServedNla } from "./nla-routes.js";
import { chatRoute, completionRoute } from "./openai.js";
import {
  CHAT,
  COMPLETION,
  EXPLAIN,
  GENERATE,
  GENERATED,
  READING,
  RECONSTRUCT,
  RECONSTRUCTED,
  SCORE,
  SCORED,
  SOURCES,
} from "./schemas.js";
import type { ServedModel } from "./served-model.js";
import { generateRoute } from "./sglang.js";

/** What the application serves. */
export interface AppOptions {
  readonly version: string;
  /** Behind the OpenAI routes. */
  readonly target: ServedModel;
  /** Behind `/generate`: the verbalizer where there is an NLA, else the target. */
  readonly generator: ServedModel;
  readonly nla: ServedNla | null;
  /** Defaults to none: everybody may ask. */
  readonly apiKey?: string;
  /** Bytes of a request. Defaults to 64 MiB: a prompt of 500 rows of width 8192 as JSON is about 45. */
  readonly maxBody?: number;
}

interface Route {
  readonly method: "get" | "post";
  readonly path: string;
  readonly summary: string;
  readonly body?: z.ZodType;
  readonly reply?: z.ZodType;
  readonly open?: boolean;
  readonly answer: (c: Context, body: unknown) => Response | Promise<Response>;
}

const MAX_BODY = 64 * 2 ** 20;

const post = <S extends z.ZodType>(
  path: string,
  summary: string,
  body: S,
  answer: (c: Context, body: z.output<S>) => Response | Promise<Response>,
  reply?: z.ZodType,
): Route => {
  const checked = (c: Context, value: unknown) => answer(c, value as z.output<S>);
  return { method: "post", path, summary, body, answer: checked, ...(reply ? { reply } : {}) };
};

const get = (path: string, summary: string, answer: Route["answer"], more: Partial<Route> = {}): Route => {
  return { method: "get", path, summary, answer, ...more };
};

const workers = (c: Context) => c.json({ urls: [new URL(c.req.url).origin] });

function routesOf({ target, generator, nla, version }: AppOptions): Route[] {
  const withNla = (): ServedNla => {
    if (nla !== null) return nla;
    throw requestError("route", "this server", "no NLA", "one", "Start it with `nla serve --nla DIR`.");
  };
  const { dim, contextLength } = generator.decoder.config;
  return [
    get(
      "/health",
      "whether the server lives, and its load",
      (c) => c.json({ status: "ok", ...generator.batcher.load }),
      { open: true },
    ),
    get("/get_model_info", "what stands behind /generate", (c) =>
      c.json({
        model_path: generator.name,
        tokenizer_path: generator.name,
        is_generation: true,
        weight_version: "default",
        hidden_size: dim,
        context_length: contextLength,
        max_total_tokens: generator.batcher.maxTokens,
        server: `nlakit ${version}`,
      }),
    ),
    get("/workers", "the servers to ask, as SGLang's router lists them: this one", workers),
    get("/v1/models", "the target, as OpenAI lists models", (c) =>
      c.json({ object: "list", data: [{ id: target.name, object: "model", owned_by: "nlakit" }] }),
    ),
    post(
      "/generate",
      "continue text, ids or embeddings, as SGLang does",
      GENERATE,
      (c, body) => generateRoute(c, body, generator),
      GENERATED,
    ),
    post("/v1/completions", "continue a text, as OpenAI does", COMPLETION, (c, body) =>
      completionRoute(c, body, target),
    ),
    post("/v1/chat/completions", "continue a conversation, as OpenAI does", CHAT, (c, body) =>
      chatRoute(c, body, target),
    ),
    post(
      "/v1/nla/explain",
      "what the activations of a text say: one event per finished position",
      EXPLAIN,
      (c, body) => explainRoute(c, body, withNla()),
      READING,
    ),
    post(
      "/v1/nla/score",
      "how well activations can be got back from descriptions",
      SCORE,
      (c, body) => scoreRoute(c, body, withNla()),
      SCORED,
    ),
    post(
      "/v1/nla/reconstruct",
      "activations made of descriptions",
      RECONSTRUCT,
      (c, body) => reconstructRoute(c, body, withNla()),
      RECONSTRUCTED,
    ),
    get("/v1/nla/sources", "the NLAs of this server", (c) => sourcesRoute(c, nla), { reply: SOURCES }),
  ];
}

function contentOf(schema: z.ZodType, io: "input" | "output"): object {
  return { "application/json": { schema: z.toJSONSchema(schema, { io, unrepresentable: "any" }) } };
}

/** The OpenAPI document of a table of routes. */
function openApi(routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const { method, path, summary, body, reply, open = false } of routes) {
    (paths[path] ??= {})[method] = {
      summary,
      ...(body ? { requestBody: { required: true, content: contentOf(body, "input") } } : {}),
      responses: {
        200: { description: "ok", ...(reply ? { content: contentOf(reply, "output") } : {}) },
        default: { description: "{error: {message, type, code, subject, found, wanted, next}}" },
      },
      ...(open ? { security: [] } : {}),
    };
  }
  return {
    openapi: "3.1.0",
    info: { title: "nlakit", version },
    paths,
    components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
    security: [{ key: [] }, {}],
  };
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function sameKey(given: string, key: string): boolean {
  return timingSafeEqual(digest(given), digest(key)); // in the same time whatever the difference
}

function checkKey(c: Context, key: string | undefined): void {
  if (key === undefined) return;
  const given =
    c.req.header("x-secret-key") ?? c.req.header("authorization")?.replace(/^Bearer\s+/i, "") ?? "";
  if (sameKey(given, key)) return;
  const found = given === "" ? "no API key" : "another API key";
  throw requestError("key", "the request", found, "Authorization: Bearer KEY", "Send the server's key.");
}

/** The body as JSON, read up to a limit, whatever content-length says. */
async function bodyOf(c: Context, most: number): Promise<unknown> {
  const tooLarge = (found: string) =>
    requestError(
      "too-large",
      "the body",
      found,
      `at most ${most}`,
      "Send less at a time, or base64 bfloat16.",
    );
  const stated = Number(c.req.header("content-length") ?? 0);
  if (stated > most) throw tooLarge(`${stated} bytes`);
  const parts: Uint8Array[] = [];
  let size = 0;
  const stream = c.req.raw.body;
  if (stream !== null) {
    for await (const part of stream as unknown as AsyncIterable<Uint8Array>) {
      size += part.byteLength;
      if (size > most) throw tooLarge(`more than ${most} bytes`);
      parts.push(part);
    }
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts));
  } catch (thrown) {
    throw requestError("json", "the body", messageOf(thrown), "JSON in UTF-8");
  }
  try {
    return JSON.parse(text);
  } catch (thrown) {
    throw requestError("json", "the body", messageOf(thrown), "a JSON object; NaN and Infinity are no JSON");
  }
}

type Issue = z.core.$ZodIssue;

/** The issue that says most: of a union's the one that came furthest. */
function deepest(issue: Issue): Issue {
  if (issue.code !== "invalid_union") return issue;
  const inner = issue.errors.flat().map((each) => {
    return deepest({ ...each, path: [...issue.path, ...each.path] });
  });
  return inner.reduce((best, each) => (each.path.length > best.path.length ? each : best), inner[0] ?? issue);
}

function checkBody(schema: z.ZodType, value: unknown): unknown {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = deepest(parsed.error.issues[0] as Issue);
  const found = issue.path.reduce<unknown>(
    (at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key],
    value,
  );
  const shown = (JSON.stringify(found) ?? "nothing").slice(0, 80);
  throw requestError("body", issue.path.join(".") || "the body", shown, issue.message);
}

/** Makes the application. */
export function createApp(options: AppOptions): Hono {
  const { apiKey, maxBody = MAX_BODY, version } = options;
  const routes = routesOf(options);
  const document = openApi(routes, version);
  const app = new Hono();
  app.onError((thrown, c) => {
    // A client that is gone reads nothing; the status is for the log.
    if (c.req.raw.signal.aborted) return c.body(null, 408);
    const status = statusOf(thrown);
    if (status === 413) c.header("connection", "close"); // what was not read would be taken for the next request
    return c.json(errorBody(thrown), status);
  });
  app.notFound((c) => {
    const wanted = routes.map(({ path }) => path).join(", ");
    return c.json(errorBody(requestError("route", "the path", `${c.req.method} ${c.req.path}`, wanted)), 404);
  });
  for (const { method, path, body, open = false, answer } of routes) {
    app[method](path, async (c) => {
      if (!open) checkKey(c, apiKey);
      return answer(c, body ? checkBody(body, await bodyOf(c, maxBody)) : undefined);
    });
  }
  app.get("/openapi.json", (c) => c.json(document));
  return app;
}
