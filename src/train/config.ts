// Reading a training config: YAML and `a.b=value` overrides in, one whole checked object out, or an error that names the
// file, the line and the key. Also what makes two configs the same: their hash, and the keys in which they differ.
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { isCollection, isNode, LineCounter, parseDocument, stringify } from "yaml";
import type { Document } from "yaml";
import type { z } from "zod";
import { parseHubName } from "../data/hub-name.js";
import { NlaError, messageOf } from "../error.js";
import { worldName, worldSeedOf } from "../world/corpus.js";
import { CONFIG_KEYS, nearestKey } from "./config-keys.js";
import type { ConfigKey } from "./config-keys.js";
import { BUNDLED_TARGETS, WARM_START, configSchema } from "./config-schema.js";
import type { TrainConfig } from "./config-schema.js";

export type { TrainConfig, TrainConfigInput } from "./config-schema.js";

const MAX_CONFIG_BYTES = 1_000_000; // a config has some 30 lines; more is another file given by mistake
const MAX_SHOWN = 80; // characters of a wrong value that an error repeats

/** What a config has to look like: its schema, and what errors say of its keys. */
export interface ConfigForm<T> {
  readonly schema: z.ZodType<T>;
  readonly keys: readonly ConfigKey[];
  /** The page that lists the keys. */
  readonly page: string;
}

/** The form of a config of `nla train`. */
const TRAINING: ConfigForm<TrainConfig> = { schema: configSchema, keys: CONFIG_KEYS, page: "docs/config.md" };

/** Where a config's text came from; for errors and for relative paths. */
export interface ConfigSource {
  /** The name that errors give. Defaults to `"config"`. */
  readonly file?: string;
  /** Folder that relative paths in the text start from. Defaults to the current one. */
  readonly directory?: string;
  /** Folder that relative paths in overrides start from. Defaults to the current one. */
  readonly cwd?: string;
  /** `a.b=value`, the value read as YAML. Later ones win. */
  readonly overrides?: readonly string[];
}

function show(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = typeof value === "number" ? String(value) : JSON.stringify(value);
  return text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}...` : text;
}

function valueAt(value: unknown, keys: readonly PropertyKey[]): unknown {
  return keys.reduce<unknown>(
    (inner, key) =>
      typeof inner === "object" && inner !== null && Object.hasOwn(inner, key)
        ? (inner as never)[key]
        : undefined,
    value,
  );
}

type Locate = (keys: readonly PropertyKey[]) => string;

function issueError(
  issues: readonly z.core.$ZodIssue[],
  value: unknown,
  locate: Locate,
  { keys, page }: Omit<ConfigForm<unknown>, "schema">,
): NlaError {
  // A misspelt key first: it is often why another one is missing.
  const issue = issues.find(({ code }) => code === "unrecognized_keys") ?? issues[0];
  if (!issue) throw new Error("a failed parse without an issue");
  const others = issues.length > 1 ? ` ${issues.length - 1} more of its keys are wrong too.` : "";
  if (issue.code === "unrecognized_keys") {
    const unknown = [...issue.path, issue.keys[0] ?? ""];
    const name = unknown.map(String).join(".");
    const prefix = issue.path.length ? `${issue.path.map(String).join(".")}.` : "";
    const siblings = keys.filter(
      (each) => each.path.startsWith(prefix) && !each.path.slice(prefix.length).includes("."),
    );
    const near = nearestKey(name, keys);
    return new NlaError({
      code: "config.unknown-key",
      subject: locate(unknown),
      found: `the unknown key ${show(name)}`,
      wanted: `one of ${siblings.map((each) => each.path).join(", ")}`,
      next: `${near === null ? `${page} lists every key.` : `Did you mean ${near}?`}${others}`,
    });
  }
  const name = issue.path.map(String).join(".");
  const known = keys.find((each) => each.path === name);
  const details =
    issue.code === "custom" ? (issue.params as { found: string; wanted: string; next: string }) : undefined;
  const found = valueAt(value, issue.path);
  return new NlaError({
    code: found === undefined && !details ? "config.missing-key" : "config.value",
    subject: locate(issue.path),
    found: details?.found ?? show(found),
    wanted: details?.wanted ?? (name === "" ? "a mapping of keys to values" : (known?.type ?? issue.message)),
    next: `${details?.next ?? (known ? `${name}: ${known.description}` : `${page} lists every key.`)}${others}`,
  });
}

/**
 * Checks a config given as a value and fills in the defaults.
 *
 * @throws NlaError `config.unknown-key` with the nearest known key, `config.missing-key`, `config.value`
 */
export function checkConfig(
  value: unknown,
  { file = "config" }: { readonly file?: string } = {},
): TrainConfig {
  return check(value, (keys) => (keys.length ? `${file}: ${keys.map(String).join(".")}` : file), TRAINING);
}

function check<T>(value: unknown, locate: Locate, form: ConfigForm<T>): T {
  const parsed = form.schema.safeParse(value);
  if (!parsed.success) throw issueError(parsed.error.issues, value, locate, form);
  return parsed.data;
}

function override(document: Document, text: string): string[] {
  const equals = text.indexOf("=");
  const keys = text.slice(0, Math.max(equals, 0)).split(".");
  const bad = (found: string, cause?: unknown) =>
    new NlaError({
      code: "config.override",
      subject: `--set ${text}`,
      found,
      wanted: "KEY=VALUE with a dotted key and a YAML value, such as rl.steps=200",
      next: "Quote the whole of it in the shell if the value has spaces.",
      cause,
    });
  if (equals < 1) throw bad(equals < 0 ? "no =" : "no key before =");
  if (keys.some((key) => key.trim() === ""))
    throw bad(`an empty part in the key ${show(text.slice(0, equals))}`);
  const value = parseDocument(text.slice(equals + 1), { logLevel: "silent" });
  if (value.errors[0])
    throw bad(`a value that is not YAML: ${value.errors[0].message.split("\n")[0]}`, value.errors[0]);
  try {
    // A section that the file leaves empty ("rl:") is null to YAML, and nothing can be set in it.
    for (let depth = 1; depth < keys.length; depth++) {
      if (document.getIn(keys.slice(0, depth)) === null) document.deleteIn(keys.slice(0, depth));
    }
    document.setIn(keys, value.toJS());
  } catch (cause) {
    throw bad(`a key that cannot be set: ${messageOf(cause)}`, cause);
  }
  return keys;
}

/**
 * Reads a config from text. Relative paths (`target`, `corpus.path`, `rl.judges`) become absolute, and names stay, so that the resolved
 * config means the same wherever it is read.
 *
 * @throws NlaError `config.yaml` with the line, `config.override`, and what {@link checkConfig} throws
 */
export function parseConfig(text: string, source: ConfigSource = {}): TrainConfig {
  const { directory = process.cwd(), cwd = process.cwd() } = source;
  const { config, overridden } = parseForm(text, source, TRAINING);
  const resolve = (key: string, given: string) => path.resolve(overridden.has(key) ? cwd : directory, given);
  return {
    ...config,
    target: isName(config.target, resolve("target", config.target))
      ? config.target
      : resolve("target", config.target),
    corpus: {
      ...config.corpus,
      path:
        worldSeedOf(config.corpus.path) === null
          ? resolve("corpus.path", config.corpus.path)
          : config.corpus.path,
    },
    rl: {
      ...config.rl,
      judges: config.rl.judges.map((judge) => (judge === WARM_START ? judge : resolve("rl.judges", judge))),
    },
  };
}

/** Whether a target is named, bundled or on the hub, rather than a path; a folder that is there comes first. */
function isName(target: string, folder: string): boolean {
  return BUNDLED_TARGETS.includes(target) || (!existsSync(folder) && parseHubName(target) !== null);
}

/**
 * Reads a config of any form from text; paths in it are left as they are.
 *
 * @returns the config, and the dotted keys that overrides gave
 * @throws as {@link parseConfig}
 */
export function parseForm<T>(
  text: string,
  { file = "config", overrides = [] }: Pick<ConfigSource, "file" | "overrides">,
  form: ConfigForm<T>,
): { readonly config: T; readonly overridden: ReadonlySet<string> } {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, logLevel: "silent" });
  const fault = document.errors[0];
  if (fault) {
    throw new NlaError({
      code: "config.yaml",
      subject: `${file}, line ${fault.linePos?.[0].line ?? 1}`,
      found: fault.message.split("\n")[0] ?? fault.code,
      wanted: "YAML, one key: value a line",
      next: "Check the indentation and the quotes there.",
      cause: fault,
    });
  }
  const set = new Map<string, string>();
  for (const each of overrides) set.set(override(document, each).join("."), each);
  const locate: Locate = (keys) => {
    const name = keys.map(String).join(".");
    for (let depth = keys.length; depth > 0; depth--) {
      const from = set.get(keys.slice(0, depth).map(String).join("."));
      if (from !== undefined) return `--set ${from}: ${name}`;
    }
    const line = lineOf(document, lines, keys);
    // A section that only overrides made.
    const [, inside] = [...set].find(([key]) => line === null && key.startsWith(`${name}.`)) ?? [];
    if (inside !== undefined) return `--set ${inside}: ${name}`;
    return `${file}${line === null ? "" : `, line ${line}`}${name === "" ? "" : `: ${name}`}`;
  };
  let value: unknown;
  try {
    value = document.toJS();
  } catch (cause) {
    // The yaml library stops documents whose aliases expand to very much.
    throw new NlaError({
      code: "config.yaml",
      subject: file,
      found: messageOf(cause),
      wanted: "YAML with few or no aliases",
      next: "Write the values out.",
      cause,
    });
  }
  return { config: check(value, locate, form), overridden: new Set(set.keys()) };
}

// The line of a key or of the nearest one above it; null where the document has none (a value from an override).
function lineOf(document: Document, lines: LineCounter, keys: readonly PropertyKey[]): number | null {
  for (let depth = keys.length; depth > 0; depth--) {
    const parent: unknown = depth === 1 ? document.contents : document.getIn(keys.slice(0, depth - 1), true);
    if (!isCollection(parent)) continue;
    for (const item of parent.items) {
      const key = (item as { key?: unknown }).key;
      if (isNode(key) && key.range && String(key) === String(keys[depth - 1]))
        return lines.linePos(key.range[0]).line;
    }
  }
  return null;
}

/**
 * Reads a config file and applies `overrides` (`a.b=value`, the value read as YAML).
 *
 * @throws NlaError `config.missing`, `config.encoding`, `config.too-large`, and what {@link parseConfig} throws
 */
export async function loadConfig(
  file: string,
  overrides: readonly string[] = [],
  { cwd = process.cwd() }: { readonly cwd?: string } = {},
): Promise<TrainConfig> {
  const text = await readConfigText(file);
  return parseConfig(text, { file, directory: path.dirname(path.resolve(file)), cwd, overrides });
}

/** The text of a config file. Throws NlaError `config.missing`, `config.encoding`, `config.too-large`. */
export async function readConfigText(file: string): Promise<string> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (cause) {
    throw new NlaError({
      code: "config.missing",
      subject: file,
      found: messageOf(cause),
      wanted: "a readable YAML file",
      next: "Give the path of a config; configs/ in the package has examples.",
      cause,
    });
  }
  if (bytes.length > MAX_CONFIG_BYTES) {
    throw new NlaError({
      code: "config.too-large",
      subject: file,
      found: `${bytes.length.toLocaleString("en")} bytes`,
      wanted: `at most ${MAX_CONFIG_BYTES.toLocaleString("en")}`,
      next: "Give the path of a config, not of a corpus or a model.",
    });
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new NlaError({
      code: "config.encoding",
      subject: file,
      found: "bytes that are not UTF-8",
      wanted: "a text file in UTF-8",
      next: "Save it as UTF-8.",
      cause,
    });
  }
}

/** What the corpus is called in document ids: the world's name, `corpus.name`, or the path's last part without its ending. */
export function corpusName({ corpus }: Pick<TrainConfig, "corpus">): string {
  const seed = worldSeedOf(corpus.path);
  if (seed !== null) return worldName(seed);
  return corpus.name ?? path.basename(corpus.path, path.extname(corpus.path));
}

/** A resolved config as YAML that {@link parseConfig} or {@link parseForm} reads back to the same object. */
export function renderConfig(config: object, page = TRAINING.page): string {
  return `# The whole config of this run, defaults included. ${page} says what each key means.\n${stringify(config, { lineWidth: 0 })}`;
}

/** A value as dotted leaf keys and their JSON. */
function leaves(value: unknown, prefix = ""): [string, string][] {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    return [[prefix, JSON.stringify(value)]];
  return Object.entries(value).flatMap(([name, inner]) =>
    leaves(inner, prefix === "" ? name : `${prefix}.${name}`),
  );
}

/** One key in which two configs differ, with both values as JSON; null where one lacks the key. */
export interface ConfigDifference {
  readonly key: string;
  readonly left: string | null;
  readonly right: string | null;
}

/** The keys in which two configs differ, in the order of the left one, then those that only the right one has. */
export function configDifferences(left: unknown, right: unknown): ConfigDifference[] {
  const a = new Map(leaves(left));
  const b = new Map(leaves(right));
  return [...new Set([...a.keys(), ...b.keys()])]
    .map((key) => ({ key, left: a.get(key) ?? null, right: b.get(key) ?? null }))
    .filter((each) => each.left !== each.right);
}

/** sha256, in hex, of a config's keys and values, whatever their order. */
export function configHash(config: object): string {
  const text = leaves(config)
    .map(([key, value]) => `${key}=${value}\n`)
    .sort()
    .join("");
  return createHash("sha256").update(text).digest("hex");
}
