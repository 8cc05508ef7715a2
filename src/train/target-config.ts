// The config of a target that is trained from scratch on the world: every key, its default and what it means; reading one from a
// file. Not the config of an NLA (config-schema.ts); both are read by config.ts, which names unknown keys and wrong values.
import { z } from "zod";
import { keysOf } from "./config-keys.js";
import { parseForm, readConfigText } from "./config.js";
import type { ConfigForm, ConfigSource } from "./config.js";

function key<S extends z.ZodType>(schema: S, description: string, unit = ""): S {
  return schema.meta({ description, unit });
}

function section<T extends z.ZodRawShape>(description: string, shape: T) {
  return z.strictObject(shape).meta({ description });
}

const count = (minimum: number) => z.int().min(minimum);

/** The schema; `prefault` fills the sections that a file leaves out. */
export const targetSchema = z
  .strictObject({
    world: section("The documents that are learnt from.", {
      seed: key(count(0).default(1), "Which world."),
      start: key(count(0).default(0), "Index of the first document; each is seen once.", "documents"),
    }).prefault({}),
    held_out: section("Documents that the loss is measured on; never trained on.", {
      start: key(count(0).default(5_000_000), "Index of the first one in the same world.", "documents"),
      documents: key(count(1).default(400), "How many.", "documents"),
    }).prefault({}),
    model: section("The shape: a Llama with tied embedding, heads of equal size, SwiGLU.", {
      dim: key(count(2).default(128), "Width of the residual stream.", "elements"),
      layers: key(count(1).default(4), "Blocks.", "blocks"),
      heads: key(count(1).default(4), "Attention heads.", "heads"),
      ffn: key(count(1).default(336), "Width of the feed-forward layer.", "elements"),
      context: key(count(4).default(128), "Longest text, BOS and EOS included.", "tokens"),
    }).prefault({}),
    steps: key(count(1).default(3000), "Optimizer steps.", "steps"),
    batch: key(count(1).default(48), "Documents that one step sees.", "documents"),
    micro_batch: key(
      count(1).default(16),
      "Documents in one forward and backward pass; gradients add up.",
      "documents",
    ),
    lr: key(z.number().positive().default(3e-3), "Peak learning rate of AdamW."),
    floor: key(
      z.number().min(0).max(1).default(0.05),
      "Where the half cosine ends, as a fraction of the peak.",
    ),
    warmup: key(count(0).default(100), "Steps in which the learning rate rises from 0 in a line.", "steps"),
    beta1: key(z.number().min(0).lt(1).default(0.9), "Decay of AdamW's first moment."),
    beta2: key(z.number().min(0).lt(1).default(0.98), "Decay of its second moment."),
    weight_decay: key(z.number().min(0).default(0.01), "Decoupled weight decay."),
    clip: key(
      z.number().positive().nullable().default(1),
      "Largest global norm of the gradient. null: never.",
    ),
    future: section(
      "The future loss: from the residual after block `layer` predict random later content words of the document. A property of this target: it makes every token carry what its document is about.",
      {
        weight: key(z.number().min(0).default(0.5), "What it counts beside the language loss. 0: none."),
        layer: key(count(0).default(2), "Block K whose output has to know the future.", "block"),
        pairs: key(
          z.number().positive().max(16).default(1.5),
          "Pairs of a token and a later content word, drawn for each token.",
          "pairs per token",
        ),
        content: key(
          z.number().positive().max(1).default(0.01),
          "Words rarer than this among the held-out tokens are content words.",
          "fraction of tokens",
        ),
      },
    ).prefault({}),
    log: section("What is written while training, and how often.", {
      eval_every: key(count(1).default(100), "Steps between measurements of the held-out loss.", "steps"),
      checkpoint_every: key(count(1).default(100), "Steps between checkpoints.", "steps"),
      keep_checkpoints: key(count(1).default(2), "Newest checkpoints kept.", "checkpoints"),
    }).prefault({}),
    dtype: key(z.enum(["f32", "bf16"]).default("f32"), "Element type of the finished model's file."),
    threads: key(count(1).max(512).default(1), "CPU threads.", "threads"),
    seed: key(count(0).default(0), "Initial weights and the pairs of the future loss follow from it."),
    compute: key(
      z.enum(["f32", "bf16"]).default("f32"),
      "Precision of matrix products. Weights and optimizer state are f32 in both.",
    ),
  })
  .superRefine(({ model, future, steps, batch, world, held_out }, context) => {
    const refuse = (path: string[], found: string, wanted: string, next: string) =>
      context.addIssue({ code: "custom", path, message: wanted, params: { found, wanted, next } });
    if (model.dim % (2 * model.heads) !== 0) {
      const wanted = "a width that is a multiple of twice the heads";
      const found = `dim ${model.dim} with ${model.heads} heads`;
      refuse(["model", "dim"], found, wanted, "Rotary positions turn pairs of a head's elements.");
    }
    if (future.weight > 0 && future.layer >= model.layers) {
      const wanted = `a block from 0 to ${model.layers - 1}`;
      refuse(["future", "layer"], String(future.layer), wanted, "Blocks are counted from 0.");
    }
    const end = world.start + steps * batch;
    if (end > held_out.start && world.start < held_out.start + held_out.documents) {
      const found = `training documents ${world.start} to ${end - 1}, held-out ones from ${held_out.start}`;
      refuse(["held_out", "start"], found, "two stretches that do not meet", "Raise held_out.start.");
    }
  });

/** A whole config of a target: every key present. */
export type TargetConfig = z.output<typeof targetSchema>;

/** What errors and documentation say of its keys. */
export const TARGET_FORM: ConfigForm<TargetConfig> = {
  schema: targetSchema,
  keys: keysOf(targetSchema),
  page: "docs/target.md",
};

/** Reads a target's config from text. Throws NlaError `config.yaml`, `config.unknown-key`, `config.value` and the like. */
export function parseTargetConfig(
  text: string,
  source: Pick<ConfigSource, "file" | "overrides"> = {},
): TargetConfig {
  return parseForm(text, source, TARGET_FORM).config;
}

/** Reads a target's config from a file, with `a.b=value` overrides. Throws as {@link parseTargetConfig}, or `config.missing`. */
export async function loadTargetConfig(
  file: string,
  overrides: readonly string[] = [],
): Promise<TargetConfig> {
  return parseTargetConfig(await readConfigText(file), { file, overrides });
}
