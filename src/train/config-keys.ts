// What is known about the keys of a training config, read off the schema: type in words, default, unit. From it come the
// suggestions for misspelt keys, the "wanted" of errors and docs/config.md, so that none of them can drift from it.
import { z } from "zod";
import { configSchema } from "./config-schema.js";

/** One key, or one section (then `type` is "section"). */
export interface ConfigKey {
  /** Dotted: `rl.group`. */
  readonly path: string;
  readonly type: string;
  readonly unit: string;
  readonly description: string;
  /** As JSON; null where the key has to be given. */
  readonly default: string | null;
}

interface SchemaNode {
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, SchemaNode>>;
  readonly anyOf?: readonly SchemaNode[];
  readonly enum?: readonly unknown[];
  readonly items?: SchemaNode;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly default?: unknown;
  readonly description?: string;
  readonly unit?: string;
}

// Names that people bring from other trainers.
const SYNONYMS: Readonly<Record<string, string>> = {
  actor_lr: "rl.lr_verbalizer",
  beta: "rl.kl_coef",
  clip_eps: "rl.clip_range",
  clip_ratio: "rl.clip_range",
  critic_lr: "rl.lr_reconstructor",
  cliprange: "rl.clip_range",
  dtype: "compute",
  epsilon: "rl.clip_range",
  gradient_clip: "rl.clip",
  group_size: "rl.group",
  kl_loss_coef: "rl.kl_coef",
  layer_index: "layer",
  lora_alpha: "lora.alpha",
  lora_r: "lora.rank",
  lora_rank: "lora.rank",
  learning_rate: "rl.lr_verbalizer",
  max_completion_length: "rl.max_new_tokens",
  max_grad_norm: "rl.clip",
  min_lr: "rl.schedule",
  model: "target",
  num_generations: "rl.group",
  positions_per_doc: "positions.per_document",
  rollout_batch_size: "rl.prompts",
  text_column: "corpus.field",
  use_rslora: "lora.rslora",
};

function bounds({ minimum, maximum, exclusiveMinimum }: SchemaNode): string {
  const top = maximum !== undefined && maximum < Number.MAX_SAFE_INTEGER ? maximum : undefined;
  if (exclusiveMinimum !== undefined)
    return top === undefined ? ` above ${exclusiveMinimum}` : ` above ${exclusiveMinimum}, at most ${top}`;
  if (minimum !== undefined && minimum > Number.MIN_SAFE_INTEGER)
    return top === undefined ? ` of at least ${minimum}` : ` from ${minimum} to ${top}`;
  return top === undefined ? "" : ` of at most ${top}`;
}

function typeInWords(node: SchemaNode): string {
  if (node.anyOf) return node.anyOf.map(typeInWords).join(" or ");
  if (node.items) return `list of ${typeInWords(node.items)}`;
  if (node.enum) return node.enum.join(" or ");
  if (node.properties) return "section";
  const { type } = node;
  if (Array.isArray(type))
    return type.map((each: string) => typeInWords({ ...node, type: each })).join(" or ");
  if (node.type === "integer") return `whole number${bounds(node)}`;
  if (node.type === "number") return `number${bounds(node)}`;
  if (node.type === "boolean") return "true or false";
  if (node.type === "null") return "null";
  return "text";
}

function walk(node: SchemaNode, prefix: string, into: ConfigKey[] = []): ConfigKey[] {
  for (const [name, child] of Object.entries(node.properties ?? {})) {
    into.push({
      path: prefix + name,
      type: typeInWords(child),
      unit: child.unit ?? "",
      description: child.description ?? "",
      default: child.default === undefined ? null : JSON.stringify(child.default),
    });
    walk(child, `${prefix}${name}.`, into);
  }
  return into;
}

/** Every key and section of a schema, in its order. */
export function keysOf(schema: z.ZodType): readonly ConfigKey[] {
  return walk(z.toJSONSchema(schema, { io: "input" }) as SchemaNode, "");
}

/** Every key and section of a training config. */
export const CONFIG_KEYS: readonly ConfigKey[] = keysOf(configSchema);

// The right name in another section counts a little worse than one wrong letter in this one.
const ELSEWHERE = 1.1;

/** How many letters have to be put in, taken out, exchanged or swapped with their neighbour to make `a` into `b`. */
export function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  const at = (i: number, j: number) => rows[i]?.[j] ?? Infinity;
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    rows.push(row);
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let least = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, at(i - 2, j - 2) + 1);
      row.push(least);
    }
  }
  return at(a.length, b.length);
}

/**
 * The known key that an unknown one most likely meant, or null where none is near. A key of the same section is
 * preferred; a key of the right name in the wrong section is found too, and so are the names of other trainers.
 */
export function nearestKey(unknown: string, keys: readonly ConfigKey[] = CONFIG_KEYS): string | null {
  const cut = unknown.lastIndexOf(".") + 1;
  const name = unknown.slice(cut).slice(0, 80); // the work is quadratic, and no key is longer
  let best: string | null = null;
  let least = Math.max(2, Math.floor(name.length / 3)) + 0.5;
  for (const { path } of keys) {
    const start = path.lastIndexOf(".") + 1;
    const elsewhere = path.slice(0, start) === unknown.slice(0, cut) ? 0 : ELSEWHERE;
    const distance = editDistance(name, path.slice(start)) + elsewhere;
    if (distance < least && distance < name.length) [best, least] = [path, distance];
  }
  const synonym = Object.hasOwn(SYNONYMS, name) ? SYNONYMS[name] : undefined;
  const known = keys.some(({ path }) => path === synonym);
  return least <= ELSEWHERE || !known ? best : (synonym ?? best);
}

/** The text of docs/config.md; a test keeps the file equal to it. */
export function configMarkdown(): string {
  const lines = [
    "# Training config",
    "",
    "A config is a YAML file that states only what differs from the defaults below. `nla train CONFIG --set a.b=c` changes",
    "single keys; the value is read as YAML. The whole, resolved config is written into the run folder as `config.yaml`.",
    "Paths in the file are relative to the file, paths given with `--set` to the current folder.",
    "",
    "This page is made from the schema in `src/train/config-schema.ts`; do not edit it by hand",
    "(`npx vitest run src/train/config-docs.test.ts -u` writes it anew).",
  ];
  return `${[...lines, ...keyTables(CONFIG_KEYS)].join("\n")}\n`;
}

/** A Markdown table of the keys at the top, and one for each section. */
export function keyTables(all: readonly ConfigKey[]): string[] {
  const lines: string[] = [];
  const table = (keys: readonly ConfigKey[]) => {
    lines.push("", "| key | type | default | unit | what it is |", "| --- | --- | --- | --- | --- |");
    for (const { path, type, default: value, unit, description } of keys) {
      lines.push(
        `| \`${path}\` | ${type} | ${value === null ? "required" : `\`${value}\``} | ${unit || "-"} | ${description} |`,
      );
    }
  };
  lines.push("", "## Top level");
  table(all.filter(({ path, type }) => !path.includes(".") && type !== "section"));
  for (const { path, description } of all.filter(({ type }) => type === "section")) {
    lines.push("", `## ${path}`, "", description);
    table(all.filter((each) => each.path.startsWith(`${path}.`)));
  }
  return lines;
}
