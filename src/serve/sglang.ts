// `POST /generate` as SGLang has it: text, ids or embeddings in; text, ids and log-probabilities out; batches and streaming.
import { randomUUID } from "node:crypto";
import type { Context } from "hono";
import { streamSSE } from "hono/streaming";
import type { z } from "zod";
import { embedsOf, packedEmbedsOf } from "./embeds.js";
import { errorBody, requestError } from "./http-error.js";
import type { GENERATE, Sampling } from "./schemas.js";
import type { Completion, CompletionOptions, Progress, Prompt, ServedModel } from "./served-model.js";

type Request = z.output<typeof GENERATE>;

/** Whether a request with one prompt gets an object, or a list. */
interface Prompts {
  readonly list: readonly Prompt[];
  readonly single: boolean;
}

function promptsOf(request: Request, { tokenizer, decoder }: ServedModel): Prompts {
  const { text, input_ids: ids, input_embeds: embeds, input_embeds_b64_bf16: packed } = request;
  const given = { text, input_ids: ids, input_embeds: embeds, input_embeds_b64_bf16: packed };
  const names = Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  if (names.length !== 1) {
    const wanted = `exactly one of ${Object.keys(given).join(", ")}`;
    throw requestError("prompt", "the request", names.join(" and ") || "no prompt", wanted);
  }
  const { dim, vocabulary } = decoder.config;
  if (text !== undefined) {
    const texts = typeof text === "string" ? [text] : text;
    const list = texts.map((each) => ({ ids: tokenizer.encode(each, { addSpecialTokens: true }) }));
    return { list, single: typeof text === "string" };
  }
  if (ids !== undefined) {
    const single = typeof ids[0] === "number";
    const list = (single ? [ids] : ids) as number[][];
    const bad = list.flat().find((id) => id >= vocabulary);
    if (bad !== undefined)
      throw requestError(
        "ids",
        "input_ids",
        `token ${bad}`,
        `ids below ${vocabulary}, the model's vocabulary`,
      );
    return { list: list.map((each) => ({ ids: each })), single };
  }
  if (embeds !== undefined) {
    const list = embedsOf(embeds, dim).map((each) => ({ embeds: each }));
    const first = embeds[0];
    return { list, single: Array.isArray(first) && !Array.isArray(first[0]) };
  }
  const value = packed as string | string[];
  const list = packedEmbedsOf(value, request.input_embeds_shape, dim).map((each) => ({ embeds: each }));
  return { list, single: typeof value === "string" };
}

/** Options of one completion. */
export function optionsOf(sampling: Sampling, sample: number, signal: AbortSignal): CompletionOptions {
  const stop = sampling.stop ?? [];
  return {
    temperature: sampling.temperature,
    topK: Math.max(0, sampling.top_k),
    topP: sampling.top_p,
    maxNewTokens: sampling.max_new_tokens,
    seed: (sampling.sampling_seed ?? sampling.seed ?? freshSeed()) + sample,
    stopStrings: typeof stop === "string" ? [stop] : stop,
    stopTokens: sampling.stop_token_ids ?? [],
    ignoreEos: sampling.ignore_eos,
    skipSpecialTokens: sampling.skip_special_tokens,
    keepStop: sampling.no_stop_trim,
    signal,
  };
}

/** A seed for a request that states none. */
export function freshSeed(): number {
  return Math.floor(Math.random() * 2 ** 48);
}

function reply(
  progress: Progress,
  finish: object | null,
  facts: { id: string; prompt: number; logProbs: boolean; index: number },
) {
  const { text, tokens, logProbs } = progress;
  return {
    text,
    output_ids: tokens,
    meta_info: {
      id: facts.id,
      finish_reason: finish,
      prompt_tokens: facts.prompt,
      completion_tokens: tokens.length,
      cached_tokens: 0,
      weight_version: "default",
      ...(facts.logProbs && {
        output_token_logprobs: tokens.map((token, i) => [logProbs[i], token, null]),
      }),
    },
    index: facts.index,
  };
}

function finishOf({ finish, tokens }: Completion): object {
  return finish.type === "stop" ? finish : { type: "length", length: tokens.length };
}

/** Answers `POST /generate`. */
export async function generateRoute(c: Context, request: Request, model: ServedModel): Promise<Response> {
  const { list, single } = promptsOf(request, model);
  const { sampling_params: params, return_logprob: wanted } = request;
  for (const [name, value] of Object.entries({ sampling_params: params, return_logprob: wanted })) {
    if (Array.isArray(value) && value.length !== list.length)
      throw requestError("batch", name, `${value.length} of them`, `${list.length}, one per prompt`);
  }
  const leave = new AbortController();
  const signal = AbortSignal.any([c.req.raw.signal, leave.signal]);
  const jobs = list.flatMap((prompt, i) => {
    const sampling = Array.isArray(params) ? (params[i] as Sampling) : params;
    const logProbs = Array.isArray(wanted) ? (wanted[i] as boolean) : wanted;
    return Array.from({ length: sampling.n }, (_, sample) => {
      return {
        prompt,
        options: optionsOf(sampling, sample, signal),
        logProbs,
        id: randomUUID().replaceAll("-", ""),
      };
    });
  });
  const isList = !single || jobs.length > 1;
  const facts = ({ prompt, id, logProbs }: (typeof jobs)[number], index: number) => {
    return { id, index, logProbs, prompt: "ids" in prompt ? prompt.ids.length : prompt.embeds.length };
  };
  if (!request.stream) {
    try {
      const replies = await Promise.all(
        jobs.map(async (job, i) => {
          const completion = await model.complete(job.prompt, job.options);
          return reply(completion, finishOf(completion), facts(job, i));
        }),
      );
      return c.json(isList ? replies : (replies[0] as object));
    } finally {
      leave.abort(); // if one failed, the others are not wanted
    }
  }
  return streamSSE(c, async (stream) => {
    stream.onAbort(() => leave.abort());
    const send = (data: unknown) => void stream.writeSSE({ data: JSON.stringify(data) });
    try {
      await Promise.all(
        jobs.map(async (job, i) => {
          const about = facts(job, i);
          const onProgress = (progress: Progress) =>
            send(reply({ ...progress, tokens: [...progress.tokens] }, null, about));
          const completion = await model.complete(job.prompt, { ...job.options, onProgress });
          send(reply(completion, finishOf(completion), about));
        }),
      );
    } catch (thrown) {
      if (!leave.signal.aborted) send(errorBody(thrown));
    } finally {
      leave.abort();
    }
    await stream.writeSSE({ data: "[DONE]" });
  });
}
