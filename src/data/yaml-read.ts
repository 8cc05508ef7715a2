// Reads one YAML document as PyYAML's safe loader does, into Maps, arrays and scalars.
//
// The yaml package parses; what a scalar means is decided by yaml-scalars.ts, because that package's own YAML 1.1 differs
// from PyYAML (it reads `8e4` as a number and `y` as true). Duplicate keys: the last wins, as there.
import { TextDecoder } from "node:util";
import { type Document, type Node, isAlias, isMap, isScalar, isSeq, parseAllDocuments } from "yaml";

import { NlaError, messageOf } from "../error.js";
import {
  type ScalarTag,
  YamlFloat,
  type YamlMap,
  type YamlScalar,
  type YamlValue,
  scalarValue,
  tagOf,
} from "./yaml-scalars.js";

const MAX_BYTES = 4_000_000; // a sidecar is 2 to 10 KB; stops a forged one before the parser sees it
const MAX_DEPTH = 64; // a sidecar nests three deep

// The characters that PyYAML takes in a stream; a NUL, for one, is refused there.
// oxlint-disable-next-line no-control-regex -- the control characters are the point
const UNPRINTABLE = /[^\t\n\r\u0020-\u007e\u0085\u00a0-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u;

/** Parses the bytes of a YAML file. @throws NlaError `yaml.encoding`, `yaml.syntax`, `yaml.documents`, `yaml.value`, `yaml.size`. */
export function readYaml(bytes: Uint8Array, subject: string): YamlValue {
  if (bytes.byteLength > MAX_BYTES) {
    throw yamlError(subject, "size", `${bytes.byteLength} bytes`, `at most ${MAX_BYTES}`);
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes); // takes a byte-order mark off
  } catch (thrown) {
    throw yamlError(subject, "encoding", messageOf(thrown), "UTF-8", thrown);
  }
  const bad = UNPRINTABLE.exec(text);
  if (bad !== null) {
    const code = (bad[0].codePointAt(0) as number).toString(16).padStart(4, "0");
    throw yamlError(subject, "encoding", `the character U+${code} at index ${bad.index}`, "printable text");
  }
  const documents = parseDocuments(text, subject);
  if (documents.length > 1) throw yamlError(subject, "documents", `${documents.length} documents`, "one");
  const [document] = documents;
  if (document === undefined || document.contents === null) return null;
  return new Builder(document, subject).value(document.contents, 0);
}

function parseDocuments(text: string, subject: string): Document.Parsed[] {
  const options = { version: "1.1", schema: "failsafe", uniqueKeys: false, logLevel: "silent" } as const;
  let parsed: ReturnType<typeof parseAllDocuments>;
  try {
    parsed = parseAllDocuments(text, options);
  } catch (thrown) {
    throw yamlError(subject, "syntax", messageOf(thrown), "YAML", thrown); // nested too deep for the parser's stack
  }
  if (!Array.isArray(parsed)) return []; // how the package says "no document"
  for (const { errors } of parsed) {
    const [first] = errors;
    if (first !== undefined)
      throw yamlError(subject, "syntax", first.message.split("\n")[0] ?? "", "YAML", first);
  }
  return parsed as Document.Parsed[];
}

function yamlError(subject: string, what: string, found: string, wanted: string, cause?: unknown): NlaError {
  return new NlaError({
    code: `yaml.${what}`,
    subject,
    found,
    wanted,
    next: "Correct the file by hand, or write it again with the command that made it.",
    ...(cause === undefined ? {} : { cause }),
  });
}

const CORE_TAG = "tag:yaml.org,2002:";
const EXPLICIT = new Set<string>(["null", "bool", "int", "float", "timestamp", "str"]);

class Builder {
  // An anchored node is built once and shared, so that nested aliases cannot multiply.
  private readonly built = new Map<Node, YamlValue>();

  constructor(
    private readonly document: Document.Parsed,
    private readonly subject: string,
  ) {}

  value(node: unknown, depth: number): YamlValue {
    if (depth > MAX_DEPTH) throw yamlError(this.subject, "value", `more than ${MAX_DEPTH} levels`, "fewer");
    if (node === null || node === undefined) return null;
    if (isAlias(node)) {
      const target = node.resolve(this.document);
      const value = target === undefined ? undefined : this.built.get(target as Node);
      if (value !== undefined) return value;
      // Undefined, or inside itself: neither is a value.
      throw yamlError(
        this.subject,
        "syntax",
        `the alias *${node.source}`,
        "an alias of an earlier, finished value",
      );
    }
    const value = this.fresh(node, depth);
    if ((node as Node & { anchor?: string }).anchor !== undefined) this.built.set(node as Node, value);
    return value;
  }

  private fresh(node: unknown, depth: number): YamlValue {
    if (isScalar(node)) return this.scalar(node as ScalarNode);
    const tag = (node as Node).tag;
    if (isSeq(node)) {
      this.checkCollectionTag(tag, "seq");
      return node.items.map((item) => this.value(item, depth + 1));
    }
    if (isMap(node)) {
      this.checkCollectionTag(tag, "map");
      return this.map(node.items, depth);
    }
    throw yamlError(this.subject, "value", "a node of an unknown kind", "a mapping, a list or a scalar");
  }

  private checkCollectionTag(tag: string | undefined, wanted: string): void {
    if (tag === undefined || tag === "!" || tag === CORE_TAG + wanted) return;
    throw yamlError(this.subject, "value", `the tag ${tag}`, "plain data");
  }

  private scalar(node: ScalarNode): YamlScalar | YamlFloat {
    const text = typeof node.value === "string" ? node.value : (node.source ?? "");
    const { tag } = node;
    if (tag === undefined) {
      if (node.type !== "PLAIN") return text;
      const resolved = tagOf(text);
      if (resolved === "merge" || resolved === "value") return text;
      return scalarValue(text, resolved) as YamlScalar | YamlFloat;
    }
    const name = tag.startsWith(CORE_TAG) ? tag.slice(CORE_TAG.length) : tag;
    const value = name === "!" ? text : EXPLICIT.has(name) ? scalarValue(text, name as ScalarTag) : undefined;
    if (value === undefined) {
      throw yamlError(
        this.subject,
        "value",
        `${JSON.stringify(text.slice(0, 40))} tagged ${tag}`,
        "plain data",
      );
    }
    return value;
  }

  private map(items: readonly { key: unknown; value: unknown }[], depth: number): YamlMap {
    const own = new Map<YamlScalar, YamlValue>();
    const merged = new Map<YamlScalar, YamlValue>();
    for (const { key, value } of items) {
      if (isScalar(key) && key.type === "PLAIN" && key.value === "<<" && key.tag === undefined) {
        this.merge(this.value(value, depth + 1), merged);
        continue;
      }
      const name = this.value(key, depth + 1);
      if (name instanceof YamlFloat || (typeof name === "object" && name !== null)) {
        throw yamlError(this.subject, "value", "a key that is a float, a list or a mapping", "text");
      }
      own.set(name, this.value(value, depth + 1));
    }
    return merged.size === 0 ? own : new Map([...merged, ...own]);
  }

  /** Adds what `<<` names; of several mappings in a list the first wins. */
  private merge(value: YamlValue, into: Map<YamlScalar, YamlValue>): void {
    const sources = Array.isArray(value) ? (value as readonly YamlValue[]) : [value];
    for (const source of sources) {
      if (!(source instanceof Map)) throw yamlError(this.subject, "value", "<< of no mapping", "a mapping");
      for (const [key, entry] of source as YamlMap) if (!into.has(key)) into.set(key, entry);
    }
  }
}

interface ScalarNode {
  readonly value: unknown;
  readonly source?: string;
  readonly type?: string | null;
  readonly tag?: string;
}
