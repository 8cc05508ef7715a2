// Reading prompts into a cache, with vectors injected: what generate.ts does before its first step and batcher.ts for each newcomer.
// It says what may follow each prompt; choosing a token, and copying the cache to where it is used, is theirs.
import { Graph, ops } from "../tensor/index.js";
import type { Tensor } from "../tensor/index.js";
import { padBatch } from "./batch.js";
import type { KvCache } from "./cache.js";
import type { Decoder } from "./decoder.js";
import { attendWithin, forward } from "./forward.js";
import { declareBatch } from "./graph-inputs.js";
import { nextTokens } from "./next-token.js";
import type { NextTokenRows } from "./next-token.js";
import { declareInjection, lastRows } from "./run.js";
import type { Injection } from "./run.js";

/** Options of {@link readPrompts}. */
export interface ReadPromptsOptions {
  /** Most tokens of a prompt. Defaults to the model's context. */
  readonly maxLength?: number;
  /** Vectors that replace embedding rows of the prompts; `sequence` is the prompt's number. */
  readonly inject?: readonly Injection[];
  readonly compute?: "f32" | "bf16";
  readonly temperature?: number;
  readonly signal?: AbortSignal | undefined;
  /** Called with the seconds that building the graph took: for benchmarks. */
  readonly onGraph?: ((seconds: number) => void) | undefined;
}

/**
 * Reads prompts into the first rows of a cache, each from slot 0 on.
 *
 * @returns the model's distribution after the last token of each prompt, row by row
 * @throws NlaError as {@link padBatch} and injection do; the signal's reason once it is aborted
 */
export async function readPrompts(
  model: Decoder,
  prompts: readonly (readonly number[])[],
  cache: KvCache,
  options: ReadPromptsOptions = {},
): Promise<NextTokenRows> {
  const { config } = model;
  const {
    maxLength = config.contextLength,
    inject = [],
    compute = "f32",
    temperature = 1,
    signal,
    onGraph,
  } = options;
  const started = performance.now();
  const batch = padBatch(prompts, { maxLength });
  using g = new Graph(model.device, { recording: false, compute });
  const declared = declareBatch(g, batch);
  const injection = declareInjection(g, inject, batch, config.dim);
  const within = attendWithin(g, model, declared);
  const use = cache.layout.prompts(g, cache, batch.length);
  const { blocks } = forward(g, model, declared, {
    ...(injection ? { inject: injection.tensors } : {}),
    attend: (k, q, key, value) => {
      use.store(k, key, value);
      return within(k, q, key, value);
    },
    keep: (k, key, value) => use.store(k, key, value),
  });
  const last = ops.gatherRows(g, blocks.at(-1) as Tensor, g.input("last", [batch.rows], "i32"));
  const next = nextTokens(g, model, last, temperature);
  g.compile();
  onGraph?.((performance.now() - started) / 1000);
  const lasts = lastRows(batch);
  await g.run({ ...declared.values(batch), ...injection?.values, ...use.inputs(lasts), last: lasts }, signal);
  return next.read();
}
