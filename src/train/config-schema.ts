// The schema of a training config: every key, its type, its default and what it means. docs/config.md is made from it.
//
// It checks shapes and the few rules between keys. It knows nothing of files: whether the corpus exists or the layer is
// in the model is found out by the stage that opens them. Names are those of the field (GRPO papers, TRL, verl).
import { z } from "zod";
import { LORA_TARGETS } from "../model/index.js";
import { CATEGORIES } from "../world/facts.js";

/** Targets that ship inside the package and are named, not pathed. */
export const BUNDLED_TARGETS: readonly string[] = ["aidreams260K", "smallworld"];

/** The judge of `rl.judges` that is the run's own warm start. */
export const WARM_START = "warm-start";

// `unit` travels through z.toJSONSchema into the documentation; "" where a key has none.
function key<S extends z.ZodType>(schema: S, description: string, unit = ""): S {
  return schema.meta({ description, unit });
}

function section<T extends z.ZodRawShape>(description: string, shape: T) {
  return z.strictObject(shape).meta({ description });
}

const count = (minimum: number) => z.int().min(minimum);
const fraction = () => z.number().min(0).max(1);

const schedules = ["constant", "linear", "cosine"] as const;

function sft(role: string, description: string, lr: number) {
  return section(description, {
    steps: key(
      count(0).default(400),
      `Optimizer steps of the ${role}'s warm start; 0 leaves it out.`,
      "steps",
    ),
    batch: key(count(1).default(64), "Examples that one optimizer step sees.", "examples"),
    micro_batch: key(
      count(1).default(16),
      "Examples in one forward and backward pass, at most `batch`; gradients add up. Lower it when memory is short.",
      "examples",
    ),
    lr: key(z.number().positive().default(lr), "Peak learning rate of AdamW."),
    schedule: key(
      z.enum(schedules).default("cosine"),
      "Course of the learning rate after the warm-up: stays, falls in a line to 0, or falls as a half cosine to 0.",
    ),
    warmup: key(count(0).default(20), "Steps in which the learning rate rises from 0 in a line.", "steps"),
    weight_decay: key(z.number().min(0).default(0), "Decoupled weight decay of AdamW."),
    clip: key(
      z.number().positive().nullable().default(1),
      "Largest global norm of the gradient; a longer one is scaled down to it. null: never.",
    ),
  });
}

/** The schema; `prefault` fills the sections that a file leaves out with their own defaults. */
export const configSchema = z
  .strictObject({
    target: key(
      z.string().min(1),
      `The model whose activations are read: a Hugging Face folder, a name of the hub (org/name, org/name@revision), or a bundled name (${BUNDLED_TARGETS.join(", ")}).`,
    ),
    layer: key(
      count(0),
      "Block K whose OUTPUT is read (`hidden_states[K+1]`), counted from 0. Two thirds of the way up is usual.",
      "block",
    ),
    corpus: section("The text that activations are taken from.", {
      path: key(
        z.string().min(1),
        "A .txt, .jsonl or .parquet file, or a folder of them; or `world:SEED`, the documents of the world of that seed (docs/world.md), from `start` on, `length` of them.",
      ),
      name: key(
        z.string().min(1).nullable().default(null),
        "What the corpus is called in document ids, and so part of what decides the positions drawn. null: the path's last part without its ending.",
      ),
      field: key(
        z.string().min(1).default("text"),
        "The field or column that holds the text; `messages` for chats. Not used for .txt.",
      ),
      cut: key(
        z.union([z.enum(["file", "paragraphs"]), count(1)]).default("file"),
        "How .txt files become documents: a file is one, every paragraph is one, or every so many characters.",
        "characters",
      ),
      split: key(z.string().min(1).default("train"), "Name of the split, the middle part of document ids."),
      start: key(count(0).default(0), "Documents left out at the beginning.", "documents"),
      length: key(count(1).nullable().default(null), "Documents used after `start`. null: all.", "documents"),
    }),
    positions: section("Which tokens of a document an activation is taken from.", {
      per_document: key(
        count(1).default(10),
        "Activations per document, fewer where it is short.",
        "positions",
      ),
      min_position: key(
        count(0).default(50),
        "First position that may be drawn, counted from 0; earlier ones have seen little text.",
        "tokens",
      ),
      max_length: key(count(2).default(2048), "Documents are cut to this many tokens.", "tokens"),
      seed: key(count(0).default(42), "With the document's id it decides the positions."),
    }).prefault({}),
    splits: section(
      "How documents are shared out. The four add up to 1, and no document is in two of them.",
      {
        ar_sft: key(fraction().default(0.24), "Warm start of the reconstructor.", "fraction of documents"),
        av_sft: key(fraction().default(0.24), "Warm start of the verbalizer.", "fraction of documents"),
        rl: key(fraction().default(0.47), "Reinforcement learning.", "fraction of documents"),
        eval: key(
          z.number().positive().max(1).default(0.05),
          "Held out from all training; every reported FVE is on these.",
          "fraction of documents",
        ),
      },
    ).prefault({}),
    labels: section("The texts of the warm start.", {
      kind: key(
        z.enum(["extractive", "world"]).default("extractive"),
        "How they are made. extractive: words of the document around the position, offline and deterministic. world: facts that are true at the position, for a corpus `world:SEED`, made imperfect by the dials below.",
      ),
      words_before: key(count(0).default(24), "Words taken from before the position.", "words"),
      words_after: key(count(0).default(8), "Words taken from after the position.", "words"),
      keep: key(fraction().default(0.7), "world: share of the true facts that a label names."),
      garble: key(
        fraction().default(0.1),
        "world: share of claims whose value is another one, and so false.",
      ),
      generic: key(fraction().default(0), "world: share of claims that name no value."),
      most: key(
        count(1).nullable().default(null),
        "world: claims of a label, at most. null: no limit.",
        "claims",
      ),
      rich: key(
        fraction().default(0),
        "world: share of labels that are not limited and keep `rich_keep` of the facts, so that the reconstructor knows long labels too.",
      ),
      rich_keep: key(fraction().default(0.9), "world: share of the true facts that such a label names."),
      seldom: key(
        z.array(z.enum(CATEGORIES)).default([]),
        "world: categories of which other labels keep `seldom_keep` instead of `keep`; rich ones keep them as all.",
      ),
      seldom_keep: key(fraction().default(0.1), "world: share of the facts of `seldom` that a label names."),
      reordered: key(
        fraction().default(0),
        "world: share of the reconstructor's labels whose claims stand in a random order, so that it does not lean on where a claim stands. Those of the verbalizer keep the order of categories.",
      ),
    }).prefault({}),
    templates: section(
      "Wording of the two prompts. null: nlakit's own, in the plainest format that the tokenizer allows.",
      {
        verbalizer: key(
          z.string().nullable().default(null),
          "Prompt of the verbalizer; contains `{injection_char}` once, and no other placeholder.",
        ),
        reconstructor: key(
          z.string().nullable().default(null),
          "Prompt of the reconstructor; contains `{explanation}` once, and no other placeholder.",
        ),
      },
    ).prefault({}),
    injection: section("How the activation enters the verbalizer.", {
      kind: key(
        z.enum(["replace"]).default("replace"),
        "replace: the embedding of the marker token is replaced by the scaled activation.",
      ),
      scale: key(
        z.union([z.enum(["p75"]), z.number().positive()]).default("p75"),
        "Length that the injected vector is scaled to. p75: the 75th percentile of the norms of the training activations.",
        "L2 norm",
      ),
    }).prefault({}),
    lora: section(
      "Low-rank adapters: the target's matrices stay as they are while small ones beside them are trained, through all stages, and are merged into them at the end of the run.",
      {
        rank: key(
          count(0).default(0),
          "Rank of the adapters of verbalizer and reconstructor. 0: none, every parameter is trained.",
        ),
        alpha: key(
          z.number().positive().default(16),
          "What the adapters add is scaled by alpha / rank, or alpha / √rank with `rslora`.",
        ),
        rslora: key(z.boolean().default(false), "Divide alpha by √rank instead of rank."),
        target_modules: key(
          z
            .array(z.enum(LORA_TARGETS))
            .min(1)
            .default([...LORA_TARGETS]),
          "The linear maps of each block that get one, by peft's names. All of them by default.",
        ),
      },
    ).prefault({}),
    reconstructor: sft("reconstructor", "Warm start of the reconstructor (AR-SFT).", 1e-4).prefault({}),
    verbalizer: sft("verbalizer", "Warm start of the verbalizer (AV-SFT).", 5e-5).prefault({}),
    rl: section("Reinforcement learning: GRPO for the verbalizer, regression for the reconstructor.", {
      steps: key(
        count(0).default(200),
        "Steps; each samples, scores and updates once. 0 leaves it out.",
        "steps",
      ),
      prompts: key(count(1).default(64), "Activations per step.", "activations"),
      group: key(
        count(2).default(8),
        "Explanations sampled per activation; advantages are relative to them.",
        "samples",
      ),
      micro_batch: key(count(1).default(16), "Explanations in one forward and backward pass.", "samples"),
      max_new_tokens: key(
        count(1).default(150),
        "Cap on an explanation. One that reaches it counts as failed.",
        "tokens",
      ),
      max_sentences: key(
        count(1).nullable().default(null),
        "Sentences (ended by a stop that stands alone) that an explanation may have; one with more counts as failed. null: no limit.",
        "sentences",
      ),
      temperature: key(z.number().positive().default(1), "Sampling temperature of rollouts."),
      top_p: key(z.number().positive().max(1).default(1), "Nucleus of rollouts; 1 is off."),
      top_k: key(count(0).default(0), "Most likely tokens that rollouts choose from; 0 is off.", "tokens"),
      lr_verbalizer: key(z.number().positive().default(1e-5), "Peak learning rate of the verbalizer."),
      lr_reconstructor: key(z.number().positive().default(5e-5), "Peak learning rate of the reconstructor."),
      schedule: key(
        z.enum(schedules).default("constant"),
        "Course of both learning rates after the warm-up.",
      ),
      warmup: key(count(0).default(0), "Steps in which both learning rates rise from 0 in a line.", "steps"),
      weight_decay: key(z.number().min(0).default(0), "Decoupled weight decay of both optimizers."),
      clip: key(
        z.number().positive().nullable().default(1),
        "Largest global norm of each gradient. null: never.",
      ),
      freeze_reconstructor: key(
        z.boolean().default(false),
        "true: the reconstructor stays the warm start's, and only the verbalizer learns. A control: what is gained then is not an agreement between the two.",
      ),
      objective: key(
        z.enum(["reward", "labels"]).default("reward"),
        "labels: no RL; both models go on with their warm start's labels for as many steps of `prompts` · `group` examples, at RL's rates. A control: what more training alone gives.",
      ),
      restart_reconstructor: key(
        count(1).nullable().default(null),
        "Every so many steps the reconstructor begins anew from its warm start, so that no agreement between the two models grows old. null: never.",
        "steps",
      ),
      judges: key(
        z.array(z.string().min(1)).default([]),
        `Further reconstructors of the same target and layer, frozen, that judge explanations beside the live one: folders, or \`${WARM_START}\` for the run's own.`,
      ),
      judgement: key(
        z.enum(["mean", "worst"]).default("mean"),
        "Error of an explanation where there are judges: the mean of all reconstructors' errors, or the largest.",
      ),
      label_rows: key(
        count(0).default(0),
        "Labels of the warm start in every step beside the rollouts, for both models: a supervised anchor. 0: none.",
        "labels",
      ),
      label_weight: key(
        z.number().positive().default(1),
        "Weight of the label loss beside the policy loss in the verbalizer's step, where `label_rows` is not 0.",
      ),
      sentence_credit: key(
        z.number().min(0).default(0),
        "Weight of credit by sentence: an explanation's tokens have its advantage, and those of a sentence more or less by what the reconstruction loses without it, against the other sentences. 0: none, and nothing is computed for it.",
      ),
      kl_coef: key(
        z.number().min(0).default(0.01),
        "Weight of the KL divergence (k3 estimate) from the warm-started verbalizer.",
      ),
      clip_range: key(
        z.number().positive().max(1).default(0.2),
        "The ratio of new to old probability is clipped to 1 - clip_range .. 1 + clip_range.",
      ),
      updates_per_batch: key(
        count(1).default(1),
        "Optimizer steps of the verbalizer on one set of samples. With 1 it is on-policy and nothing is clipped.",
        "steps",
      ),
      reward: key(
        z.enum(["mse", "log_mse"]).default("mse"),
        "mse: minus the error of the normalised reconstruction, -2(1-cos). log_mse: minus its logarithm.",
      ),
      failed_penalty: key(
        z.number().nullable().default(null),
        "Reward of an explanation that cannot be extracted or was cut off. null: that of an orthogonal reconstruction, -2 or -ln 2.",
        "reward",
      ),
      drop_zero_variance: key(
        z.boolean().default(true),
        "Leave out groups whose rewards are all equal: they carry no signal, and only KL would act on them.",
      ),
      advantage_std: key(
        z.boolean().default(true),
        "Divide advantages by the standard deviation of the group's rewards. false: only subtract the mean.",
      ),
    }).prefault({}),
    log: section("What is written while training, and how often.", {
      eval_every: key(count(1).default(20), "Steps between evaluations on held-out activations.", "steps"),
      eval_rows: key(count(2).default(256), "Held-out activations per evaluation, at most.", "activations"),
      sample_every: key(count(1).default(20), "Steps between rows in samples.jsonl.", "steps"),
      samples: key(count(1).default(4), "Explanations written each time.", "samples"),
      checkpoint_every: key(
        count(1).default(20),
        "Steps between checkpoints, and so the most work that a kill loses.",
        "steps",
      ),
      keep_checkpoints: key(count(1).default(2), "Newest checkpoints kept per stage.", "checkpoints"),
    }).prefault({}),
    threads: key(
      count(1).max(512).nullable().default(null),
      "CPU threads. null: every core of this process.",
      "threads",
    ),
    seed: key(count(0).default(42), "Everything random in training follows from it, but the positions."),
    compute: key(
      z.enum(["f32", "bf16"]).default("bf16"),
      "Precision of matrix products. Weights and optimizer state are f32 in both.",
    ),
  })
  .superRefine((config, context) => {
    const refuse = (path: string[], found: string, wanted: string, next: string) =>
      context.addIssue({ code: "custom", path, message: wanted, params: { found, wanted, next } });
    const { splits, positions, templates } = config;
    const sum = splits.ar_sft + splits.av_sft + splits.rl + splits.eval;
    if (Math.abs(sum - 1) > 1e-6) {
      const parts = Object.entries(splits).map(([name, value]) => `${name} ${value}`);
      refuse(
        ["splits"],
        `${parts.join(" + ")} = ${Number(sum.toFixed(6))}`,
        "four fractions that add up to 1",
        "Set all four.",
      );
    }
    const world = /^world:\d{1,15}$/.test(config.corpus.path);
    if (world && config.corpus.length === null) {
      const wanted = "a number of documents";
      refuse(["corpus", "length"], "null", wanted, "The world has no end: say how many of its documents.");
    }
    if (config.labels.kind === "world" && !world) {
      const wanted = "a corpus world:SEED";
      refuse(
        ["labels", "kind"],
        `world with the corpus ${config.corpus.path}`,
        wanted,
        "Use extractive labels.",
      );
    }
    if (positions.min_position >= positions.max_length) {
      refuse(
        ["positions", "min_position"],
        `${positions.min_position} with max_length ${positions.max_length}`,
        "a min_position below max_length",
        "Lower min_position or raise max_length; with these no position could be drawn.",
      );
    }
    const placeholders = { verbalizer: "{injection_char}", reconstructor: "{explanation}" } as const;
    for (const name of ["verbalizer", "reconstructor"] as const) {
      const template = templates[name];
      const times = template === null ? 1 : template.split(placeholders[name]).length - 1;
      if (times !== 1) {
        const wanted = `a template with ${placeholders[name]} in it once`;
        refuse(
          ["templates", name],
          `it ${times} times`,
          wanted,
          "Put it where the activation or the text belongs.",
        );
      }
    }
  });

/** A whole training config: every key present. */
export type TrainConfig = z.output<typeof configSchema>;

/** What a file or caller has to state; the rest has defaults. */
export type TrainConfigInput = z.input<typeof configSchema>;
