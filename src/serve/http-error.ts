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

// Folders of this machine are nobody's business; the last name in a path says which file it was. Greedy, so that folders with blanks go
// too. Only what stands after a blank, a quote or a bracket begins a path: "and/or" and "</tag>" do not.
const FOLDERS = /(?<=^|[\s"'`([=])(?:[A-Za-z]:\\[^"'`\n:]*\\|\/[^"'`\n:]*\/)/g;

function withoutFolders(text: string): string {
  return text.replaceAll(FOLDERS, "");
}

/** A model's name for strangers: of a path the last part. */
export function publicName(name: string): string {
  return /^([/\\.]|[A-Za-z]:\\)/.test(name)
    ? (name.split(/[/\\]/).findLast((part) => part !== "") ?? name)
    : name;
}

/**
 * The body of an error: `{error: {message, type, code, subject, found, wanted, next}}`. It shows no stack and no folder of this machine.
 * Errors about the request (`http.*`) are made of what the client sent, and stay as they are.
 */
export function errorBody(thrown: unknown): { readonly error: Readonly<Record<string, string>> } {
  const type = statusOf(thrown) >= 500 ? "server_error" : "invalid_request_error";
  if (!(thrown instanceof NlaError)) {
    const message = withoutFolders(messageOf(thrown));
    return { error: { message: `unexpected: ${message}`, type, code: "unexpected" } };
  }
  const facts = Object.entries({ message: thrown.message, type, ...thrown.toJSON() });
  const shown = thrown.code.startsWith("http.") ? (text: string) => text : withoutFolders;
  return { error: Object.fromEntries(facts.map(([key, text]) => [key, shown(String(text))])) };
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
