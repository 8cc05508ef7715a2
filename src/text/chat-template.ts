// Chat templates: from messages to the text that the model was trained on, by the Jinja of the ecosystem's library with the
// environment that transformers gives a template.
//
// A template may ask for today's date; a prompt that changes overnight is no contract, so the date is pinned or refused.
import * as jinja from "@huggingface/jinja";
import { messageOf, NlaError } from "../error.js";
import { isObject, type TokenizerFiles } from "./tokenizer-files.js";

/** One turn of a conversation. */
export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/** A compiled template. */
export interface ChatTemplate {
  /**
   * Renders with the given variables. `date` (`YYYY-MM-DD`, or with `THH:MM:SS`) is what `strftime_now` formats.
   * Throws NlaError: `chat.raised` when the template refuses the messages (its own words in `found`), `chat.date` when it asks for
   * the date and none is pinned, `chat.render` for anything else that goes wrong in it.
   */
  render(variables: Readonly<Record<string, unknown>>, options?: { readonly date?: string }): string;
}

/** The template of a tokenizer: chat_template.jinja wins over the config; of named ones, "default" or the only one. */
export function chatTemplateOf({ templateFile, config }: TokenizerFiles): string | null {
  if (templateFile !== null) return templateFile;
  const stored = config["chat_template"];
  if (typeof stored === "string") return stored;
  const named = namedTemplates(stored);
  return named.get("default") ?? (named.size === 1 ? ([...named.values()][0] as string) : null);
}

/** Names of the stored templates, for an error that says what there was to choose from. */
export function templateNames({ config }: TokenizerFiles): string[] {
  return [...namedTemplates(config["chat_template"]).keys()];
}

function namedTemplates(stored: unknown): Map<string, string> {
  const named = new Map<string, string>();
  for (const entry of Array.isArray(stored) ? stored : []) {
    if (!isObject(entry)) continue;
    const { name, template } = entry;
    if (typeof name === "string" && typeof template === "string") named.set(name, template);
  }
  return named;
}

/** What is used of the Jinja library. Its own declarations do not resolve under Node's module rules. */
const { Template, Environment, Interpreter } = jinja as unknown as {
  Template: new (source: string) => { parsed: unknown };
  Environment: new (parent?: TemplateScope) => TemplateScope;
  Interpreter: new (scope: TemplateScope) => { run(program: unknown): { value: string } };
};

interface TemplateScope {
  set(name: string, value: unknown): unknown;
}

/** Compiles a template. `subject` names it in errors. Throws NlaError `chat.syntax`. */
export function compileChatTemplate(source: string, subject: string): ChatTemplate {
  let program: unknown;
  try {
    program = new Template(source).parsed;
  } catch (cause) {
    throw new NlaError({
      code: "chat.syntax",
      subject,
      found: messageOf(cause),
      wanted: "a Jinja template",
      next: "Correct the template, or take it from the model's repository again.",
      cause,
    });
  }
  return {
    render(variables, { date } = {}) {
      // Not Template.render: there the date is the clock's, and its globals cannot be replaced.
      const globals = new Environment();
      for (const [name, value] of Object.entries(CONSTANTS)) globals.set(name, value);
      globals.set("range", range);
      globals.set("raise_exception", (message: unknown) => {
        throw raised(subject, String(message));
      });
      globals.set("strftime_now", (format: unknown) => formatDate(date, String(format), subject));
      const scope = new Environment(globals);
      try {
        for (const [name, value] of Object.entries(variables)) scope.set(name, value);
        return new Interpreter(scope).run(program).value;
      } catch (cause) {
        if (cause instanceof NlaError) throw cause;
        throw new NlaError({
          code: "chat.render",
          subject,
          found: messageOf(cause),
          wanted: "a template that renders these messages",
          next: "Check the roles and contents of the messages against the template.",
          cause,
        });
      }
    },
  };
}

const CONSTANTS = { true: true, false: false, none: null, True: true, False: false, None: null };
const MAX_RANGE = 100_000; // far above any template's loop; Jinja's own sandbox has the same limit

/** Python's `range(stop)` and `range(start, stop, step)`. */
function range(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second];
  const length = Math.ceil((stop - start) / step);
  if (!(Math.abs(length) <= MAX_RANGE)) throw new Error(`range of ${length} numbers (limit ${MAX_RANGE})`);
  return Array.from({ length: Math.max(0, length) }, (_, i) => start + i * step);
}

function raised(subject: string, message: string): NlaError {
  return new NlaError({
    code: "chat.raised",
    subject,
    found: `the template's own refusal: ${message}`,
    wanted: "messages that the template accepts",
    next: "Change the order, roles or contents of the messages.",
  });
}

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = "January,February,March,April,May,June,July,August,September,October,November,December".split(
  ",",
);

/** Python's `strftime` in the C locale, for the directives that templates use; the time of a bare date is midnight. */
function formatDate(date: string | undefined, format: string, subject: string): string {
  const moment = date === undefined ? null : parseDate(date);
  if (moment === null) {
    throw new NlaError({
      code: "chat.date",
      subject,
      found:
        date === undefined
          ? `strftime_now(${JSON.stringify(format)}) and no date`
          : `date ${JSON.stringify(date)}`,
      wanted: "a pinned date, written 2025-07-10 or 2025-07-10T09:30:00",
      next: "Pass `date`: a prompt must not change from one day to the next.",
    });
  }
  const [year, month, day] = [moment.getUTCFullYear(), moment.getUTCMonth(), moment.getUTCDate()];
  const hour = moment.getUTCHours();
  const monthName = MONTHS[month] as string;
  const dayName = DAYS[moment.getUTCDay()] as string;
  const dayOfYear = Math.round((Date.UTC(year, month, day) - Date.UTC(year, 0, 0)) / 86_400_000);
  const fields: Record<string, string> = {
    "%": "%",
    A: dayName,
    B: monthName,
    H: pad(hour),
    I: pad(hour % 12 === 0 ? 12 : hour % 12),
    M: pad(moment.getUTCMinutes()),
    S: pad(moment.getUTCSeconds()),
    Y: pad(year, 4),
    a: dayName.slice(0, 3),
    b: monthName.slice(0, 3),
    d: pad(day),
    j: pad(dayOfYear, 3),
    m: pad(month + 1),
    p: hour < 12 ? "AM" : "PM",
    y: pad(year % 100),
  };
  return format.replaceAll(/%(-?)([a-zA-Z%])/g, (directive, bare: string, letter: string) => {
    const value = fields[letter];
    if (value === undefined) {
      throw new NlaError({
        code: "chat.date",
        subject,
        found: `strftime directive ${directive}`,
        wanted: `one of %${Object.keys(fields).join(" %")}`,
        next: "Write the date into the template instead.",
      });
    }
    return bare === "" ? value : value.replace(/^0+(?=\d)/, ""); // "%-d" is glibc's day without the leading zero
  });
}

function pad(value: number, width = 2): string {
  return String(value).padStart(width, "0");
}

function parseDate(text: string): Date | null {
  if (!/^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2})?$/.test(text)) return null;
  const moment = new Date(text.length === 10 ? `${text}T00:00:00Z` : `${text}Z`);
  // 30 February parses as a day of March in some engines and as no date in others.
  return Number.isNaN(moment.getTime()) || !moment.toISOString().startsWith(text.slice(0, 10))
    ? null
    : moment;
}
