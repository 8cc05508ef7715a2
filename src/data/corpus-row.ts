// What one row of a corpus says: a text or a conversation, found under a field name. Shared by JSON lines and Parquet.
//
// A row that has neither is an error with the names that are there, never an empty document.
import { NlaError } from "../error.js";

/** One turn of a conversation. */
export interface CorpusMessage {
  readonly role: string;
  readonly content: string;
}

/** A row: exactly one of the two is not null. */
export interface CorpusRow {
  readonly text: string | null;
  readonly messages: readonly CorpusMessage[] | null;
}

const MAX_NAMES = 20; // of fields in an error; a table of a thousand columns must stay readable

/**
 * The field to read among `names`: the one asked for, else `text`, else `messages`. Throws `corpus.field` with the names that are
 * there; `where` says in which file and line.
 */
export function chosenField(names: readonly string[], field: string | undefined, where: string): string {
  const wanted = field === undefined ? ["text", "messages"] : [field];
  const chosen = wanted.find((name) => names.includes(name));
  if (chosen !== undefined) return chosen;
  const shown = names.slice(0, MAX_NAMES).map((name) => JSON.stringify(name));
  if (names.length > MAX_NAMES) shown.push(`and ${names.length - MAX_NAMES} more`);
  throw new NlaError({
    code: "corpus.field",
    subject: where,
    found: names.length === 0 ? "no fields" : `the fields ${shown.join(", ")}`,
    wanted: wanted.map((name) => JSON.stringify(name)).join(" or "),
    next: "Name the field that holds the text (or the chat messages).",
  });
}

/** The row of a JSON object. */
export function rowOfRecord(
  record: Readonly<Record<string, unknown>>,
  field: string | undefined,
  where: string,
): CorpusRow {
  const name = chosenField(Object.keys(record), field, where);
  return rowOfValue(record[name], name, where);
}

/**
 * The row of a field's value: a string is a text, a list of `{role, content}` is a conversation. Throws `corpus.value` for anything
 * else (null, numbers, messages whose content is no string).
 */
export function rowOfValue(value: unknown, name: string, where: string): CorpusRow {
  if (typeof value === "string") return { text: value, messages: null };
  if (!Array.isArray(value)) throw badValue(where, `${JSON.stringify(name)} is ${kindOf(value)}`);
  const messages = value.map((entry: unknown, i): CorpusMessage => {
    const { role, content } = (typeof entry === "object" && entry !== null ? entry : {}) as Record<
      string,
      unknown
    >;
    if (typeof role === "string" && typeof content === "string") return { role, content };
    throw badValue(
      where,
      `message ${i} of ${JSON.stringify(name)} with role ${kindOf(role)}, content ${kindOf(content)}`,
    );
  });
  return { text: null, messages };
}

function badValue(where: string, found: string): NlaError {
  return new NlaError({
    code: "corpus.value",
    subject: where,
    found,
    wanted: "a text, or a list of messages {role, content} that are both text",
    next: "Name another field, or correct the row.",
  });
}

function kindOf(value: unknown): string {
  if (value === undefined) return "absent";
  return value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
}
