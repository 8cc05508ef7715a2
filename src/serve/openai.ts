// `/v1/completions` and `/v1/chat/completions` as OpenAI has them, for the target.
import { randomUUID } from "node:crypto";
import type { Context } from "hono";
import { streamSSE } from "hono/streaming";
import type { z } from "zod";
import { errorBody, requestError } from "./http-error.js";
import type { CHAT, COMPLETION } from "./schemas.js";
import { settled } from "./served-model.js";
import type { Completion, CompletionOptions, ServedModel } from "./served-model.js";
import { freshSeed } from "./sglang.js";

type CompletionRequest = z.output<typeof COMPLETION>;
type ChatRequest = z.output<typeof CHAT>;

const DEFAULT_TOKENS = 16; // OpenAI's for completions
const DEFAULT_CHAT_TOKENS = 512;

function optionsOf(
  request: CompletionRequest | ChatRequest,
  maxNewTokens: number,
  sample: number,
  signal: AbortSignal,
): CompletionOptions {
  const stop = request.stop ?? [];
  return {
    temperature: request.temperature,
    topK: 0,
    topP: request.top_p,
    maxNewTokens,
    seed: (request.seed ?? freshSeed()) + sample,
    stopStrings: typeof stop === "string" ? [stop] : stop,
    stopTokens: [],
    ignoreEos: false,
    skipSpecialTokens: true,
    keepStop: false,
    signal,
  };
}

function checkModel(request: { readonly model?: string | undefined }, model: ServedModel): void {
  if (request.model === undefined || request.model === model.name) return;
  throw requestError("model", "model", JSON.stringify(request.model), JSON.stringify(model.name));
}

interface Shape {
  readonly object: string;
  readonly prefix: string;
  choice(completion: Completion): object;
  delta(text: string): object;
}

function logProbsOf({ tokens, logProbs }: Completion, { tokenizer }: ServedModel) {
  return { tokens: tokenizer.pieces(tokens), token_logprobs: logProbs };
}

/** Answers `POST /v1/completions`. */
export function completionRoute(
  c: Context,
  request: CompletionRequest,
  model: ServedModel,
): Promise<Response> {
  checkModel(request, model);
  const { prompt } = request;
  const isIds = Array.isArray(prompt) && typeof prompt[0] === "number";
  const { tokenizer, decoder } = model;
  const prompts = isIds
    ? [prompt as number[]]
    : [prompt].flat().map((text) => tokenizer.encode(String(text), { addSpecialTokens: true }));
  const bad = prompts.flat().find((id) => id >= decoder.config.vocabulary);
  if (bad !== undefined)
    throw requestError("ids", "prompt", `token ${bad}`, `ids below ${decoder.config.vocabulary}`);
  const wantsLogProbs = request.logprobs !== null && request.logprobs !== undefined;
  return answer(c, request, prompts, request.max_tokens ?? DEFAULT_TOKENS, model, {
    object: "text_completion",
    prefix: "cmpl",
    choice: (completion) => ({
      text: completion.text,
      logprobs: wantsLogProbs ? logProbsOf(completion, model) : null,
    }),
    delta: (text) => ({ text, logprobs: null }),
  });
}

/** Answers `POST /v1/chat/completions`. @throws NlaError `chat.missing` where the model has no chat template */
export function chatRoute(c: Context, request: ChatRequest, model: ServedModel): Promise<Response> {
  checkModel(request, model);
  const { tokenizer } = model;
  const ids = tokenizer.encode(tokenizer.renderChat(request.messages, { addGenerationPrompt: true }));
  const tokens = request.max_completion_tokens ?? request.max_tokens ?? DEFAULT_CHAT_TOKENS;
  return answer(c, request, [ids], tokens, model, {
    object: request.stream ? "chat.completion.chunk" : "chat.completion",
    prefix: "chatcmpl",
    choice: (completion) => ({
      message: { role: "assistant", content: completion.text },
      logprobs: request.logprobs
        ? {
            content: completion.tokens.map((token, i) => {
              return {
                token: tokenizer.pieces([token])[0],
                logprob: completion.logProbs[i],
                top_logprobs: [],
              };
            }),
          }
        : null,
    }),
    delta: (text) => ({ delta: { role: "assistant", content: text } }),
  });
}

async function answer(
  c: Context,
  request: CompletionRequest | ChatRequest,
  prompts: readonly (readonly number[])[],
  maxNewTokens: number,
  model: ServedModel,
  { object, prefix, choice, delta }: Shape,
): Promise<Response> {
  const leave = new AbortController();
  const signal = AbortSignal.any([c.req.raw.signal, leave.signal]);
  const jobs = prompts.flatMap((ids) =>
    Array.from({ length: request.n }, (_, sample) => {
      return { ids, options: optionsOf(request, maxNewTokens, sample, signal) };
    }),
  );
  const head = {
    id: `${prefix}-${randomUUID()}`,
    object,
    created: Math.floor(Date.now() / 1000),
    model: model.name,
  };
  if (!request.stream) {
    try {
      const completions = await Promise.all(jobs.map(({ ids, options }) => model.complete({ ids }, options)));
      const made = completions.reduce((sum, { tokens }) => sum + tokens.length, 0);
      const read = prompts.reduce((sum, ids) => sum + ids.length, 0);
      return c.json({
        ...head,
        choices: completions.map((each, index) =>
          Object.assign({ index, finish_reason: each.finish.type }, choice(each)),
        ),
        usage: { prompt_tokens: read, completion_tokens: made, total_tokens: read + made },
      });
    } finally {
      leave.abort();
    }
  }
  return streamSSE(c, async (stream) => {
    stream.onAbort(() => leave.abort());
    const send = (data: unknown) => void stream.writeSSE({ data: JSON.stringify(data) });
    try {
      await Promise.all(
        jobs.map(async ({ ids, options }, index) => {
          let sent = "";
          const more = (text: string) => {
            // Text is only ever added to; clean-up of blanks may change the last ones, so only a longer text is sent.
            if (!text.startsWith(sent) || text.length === sent.length) return;
            send({ ...head, choices: [{ index, ...delta(text.slice(sent.length)), finish_reason: null }] });
            sent = text;
          };
          const onProgress = ({ text }: { readonly text: string }) => more(settled(text));
          const { text, finish } = await model.complete({ ids }, { ...options, onProgress });
          more(text);
          send({ ...head, choices: [{ index, ...delta(""), finish_reason: finish.type }] });
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
