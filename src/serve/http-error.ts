// Errors as HTTP: which status an error of ours has, and its body, in the shape that OpenAI's clients read with our facts beside it.
import { NlaError, messageOf } from "../error.js";

/** Statuses that are used. */
export type Status = 400 | 401 | 404 | 408 | 413 | 429 | 500 | 503;

const STATUS: Readonly<Record<string, Status>> = {
  "http.key": 401,
  "http.route": 404,
  "http.too-large": 413,
  "batch.full": 429,
  "batch.closed": 503,
  "engine.memory": 503,
};
// Of these the request is the cause; every other error is the server's.
const ASKED_WRONG =
  /^(http|batch|read|model\.inject|model\.batch|model\.generate|injection|contract\.width|template\.suffix-merged|chat|tensor\.index|tokenizer\.encode)\b/;

/** The status of an error. */
export function statusOf(thrown: unknown): Status {
  if (!(thrown instanceof NlaError)) return 500;
  return STATUS[thrown.code] ?? (ASKED_WRONG.test(thrown.code) ? 400 : 500);
}

/** The body of an error: `{error: {message, type, code, subject, found, wanted, next}}`. A fault of ours shows no stack to strangers. */
export function errorBody(thrown: unknown): { readonly error: Readonly<Record<string, string>> } {
  const type = statusOf(thrown) >= 500 ? "server_error" : "invalid_request_error";
  if (thrown instanceof NlaError) return { error: { message: thrown.message, type, ...thrown.toJSON() } };
  return { error: { message: `unexpected: ${messageOf(thrown)}`, type, code: "unexpected" } };
}

/** An error about a request. */
export function requestError(
  code: string,
  subject: string,
  found: string,
  wanted: string,
  next = "Correct the request; GET /openapi.json describes it.",
): NlaError {
  return new NlaError({ code: `http.${code}`, subject, found, wanted, next });
}
