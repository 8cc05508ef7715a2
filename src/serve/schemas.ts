// The shapes of requests and replies, from which they are checked and the OpenAPI document is made. Numbers of embeddings are left to
// embeds.ts: half a million of them are checked in one loop there.
import { z } from "zod";

const stop = z.union([z.string(), z.array(z.string()).max(16)]).nullish();

/** SGLang's sampling parameters, those that have an effect here. */
export const SAMPLING = z.strictObject({
  temperature: z.number().min(0).max(100).default(1),
  max_new_tokens: z.number().int().min(1).default(128),
  top_p: z.number().gt(0).max(1).default(1),
  top_k: z.number().int().min(-1).default(-1),
  stop,
  stop_token_ids: z.array(z.number().int().min(0)).max(64).nullish(),
  ignore_eos: z.boolean().default(false),
  skip_special_tokens: z.boolean().default(true),
  no_stop_trim: z.boolean().default(false),
  n: z.number().int().min(1).max(64).default(1),
  seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).nullish(),
  sampling_seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).nullish(),
  // These are refused unless they do nothing.
  min_p: z.literal(0).optional(),
  frequency_penalty: z.literal(0).optional(),
  presence_penalty: z.literal(0).optional(),
  repetition_penalty: z.literal(1).optional(),
  min_new_tokens: z.literal(0).optional(),
  spaces_between_special_tokens: z.boolean().optional(),
});
export type Sampling = z.output<typeof SAMPLING>;

const tokenIds = z.array(z.number().int().min(0));
const flag = z.boolean().default(false);

/** `POST /generate`. */
export const GENERATE = z.looseObject({
  text: z.union([z.string(), z.array(z.string()).min(1)]).optional(),
  input_ids: z.union([tokenIds.min(1), z.array(tokenIds.min(1)).min(1)]).optional(),
  input_embeds: z.array(z.unknown()).min(1).optional().describe("[tokens][width], or a list of those"),
  input_embeds_b64_bf16: z
    .union([z.string(), z.array(z.string()).min(1)])
    .optional()
    .describe("base64 of little-endian bfloat16 [tokens, width]"),
  input_embeds_shape: z.array(z.unknown()).min(1).optional().describe("[tokens, width], or a list of those"),
  sampling_params: z.union([SAMPLING, z.array(SAMPLING).min(1)]).prefault({}),
  return_logprob: z.union([z.boolean(), z.array(z.boolean())]).default(false),
  stream: flag,
  rid: z.unknown().optional(),
});

const temperature = z.number().min(0).max(2).default(1);

const openAiSampling = {
  model: z.string().optional(),
  max_tokens: z.number().int().min(1).nullish(),
  temperature,
  top_p: z.number().gt(0).max(1).default(1),
  n: z.number().int().min(1).max(64).default(1),
  stop,
  seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).nullish(),
  stream: flag,
};

/** `POST /v1/completions`. */
export const COMPLETION = z.looseObject({
  prompt: z.union([z.string(), z.array(z.string()).min(1).max(256), tokenIds.min(1)]),
  logprobs: z.number().int().min(0).max(1).nullish().describe("0 or 1: log-probability of each chosen token"),
  echo: z.literal(false).optional(),
  ...openAiSampling,
});

/** `POST /v1/chat/completions`. */
export const CHAT = z.looseObject({
  messages: z.array(z.looseObject({ role: z.string(), content: z.string() })).min(1),
  max_completion_tokens: z.number().int().min(1).nullish(),
  logprobs: flag,
  ...openAiSampling,
});

/** `POST /v1/nla/explain`. */
export const EXPLAIN = z.strictObject({
  text: z.string().min(1).max(1_000_000).optional(),
  messages: z
    .array(z.strictObject({ role: z.string(), content: z.string() }))
    .min(1)
    .optional(),
  positions: z
    .array(z.number().int())
    .min(1)
    .optional()
    .describe("negative ones count from the end; all by default"),
  temperature: z.number().min(0).max(2).default(0),
  max_new_tokens: z.number().int().min(1).default(200),
  seed: z.number().int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
  stream: z.boolean().default(true),
});

const activation = z.array(z.number()).min(1).max(100_000);

/** `POST /v1/nla/score`. */
export const SCORE = z.strictObject({
  items: z
    .array(z.strictObject({ description: z.string(), activation }))
    .min(1)
    .max(512),
});

/** `POST /v1/nla/reconstruct`. */
export const RECONSTRUCT = z.strictObject({ descriptions: z.array(z.string()).min(1).max(512) });

/** The reply to {@link EXPLAIN} for one position. */
export const READING = z.object({
  position: z.number(),
  token: z.string(),
  token_id: z.number(),
  l2_norm: z.number(),
  description: z.string().nullable(),
  mse: z.number().nullable(),
  cosine_similarity: z.number().nullable(),
});
export const SCORED = z.object({
  items: z.array(z.object({ mse: z.number().nullable(), cosine_similarity: z.number().nullable() })),
});
export const RECONSTRUCTED = z.object({ activations: z.array(z.array(z.number()).nullable()) });
export const SOURCES = z.object({
  sources: z.array(
    z.object({
      id: z.string(),
      model: z.string(),
      layer_index: z.number(),
      d_model: z.number(),
      format: z.string(),
      injection_scale: z.number().nullable(),
      mse_scale: z.number().nullable(),
    }),
  ),
});
export const GENERATED = z.object({
  text: z.string(),
  output_ids: z.array(z.number()),
  meta_info: z.looseObject({ finish_reason: z.looseObject({ type: z.enum(["stop", "length"]) }) }),
});
