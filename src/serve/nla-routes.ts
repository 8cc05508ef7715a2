// Our own API: a text's activations explained, one event per finished position; explanations scored and turned back into
// activations; what the server has.
import type { Context } from "hono";
import { streamSSE } from "hono/streaming";
import type { z } from "zod";
import { extractExplanation } from "../nla/explanation.js";
import { reconstructionScores } from "../nla/fidelity.js";
import type { Nla } from "../nla/read.js";
import { activationsOf } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { errorBody, publicName, requestError } from "./http-error.js";
import type { EXPLAIN, READING, RECONSTRUCT, SCORE } from "./schemas.js";
import type { ServedModel } from "./served-model.js";

/** A target with its NLA, and the verbalizer's running batch. */
export interface ServedNla {
  readonly target: Target;
  readonly nla: Nla;
  readonly verbalizer: ServedModel;
  /** Most positions of one request. */
  readonly maxPositions: number;
}

type Explain = z.output<typeof EXPLAIN>;
type ReadingJson = z.output<typeof READING>;

function idsOf({ text, messages }: Explain, { target }: ServedNla): number[] {
  if ((text === undefined) === (messages === undefined)) {
    const found = text === undefined ? "neither" : "both";
    throw requestError("prompt", "text and messages", found, "one of the two");
  }
  const { tokenizer, model } = target;
  const ids =
    text === undefined
      ? tokenizer.encode(tokenizer.renderChat(messages ?? []))
      : tokenizer.encode(text, { addSpecialTokens: true });
  const { contextLength } = model.config;
  if (ids.length >= 1 && ids.length <= contextLength) return ids;
  throw requestError(
    "length",
    "the text",
    `${ids.length} tokens`,
    `1 to ${contextLength}, the target's context`,
  );
}

function positionsOf({ positions }: Explain, length: number, most: number): number[] {
  const all = positions ?? Array.from({ length }, (_, i) => i);
  if (all.length > most) {
    const wanted = `at most ${most}`;
    throw requestError(
      "positions",
      "positions",
      `${all.length} of them`,
      wanted,
      "Ask for fewer positions at a time.",
    );
  }
  return all.map((position) => {
    const at = position < 0 ? length + position : position;
    if (at >= 0 && at < length) return at;
    const wanted = `${-length} to ${length - 1}`;
    throw requestError("positions", "positions", String(position), wanted);
  });
}

/** Scores as JSON; what no number can be is null. */
function scoresOf(
  { nla }: ServedNla,
  prediction: Float32Array | null,
  activation: Float32Array,
): Pick<ReadingJson, "mse" | "cosine_similarity"> {
  if (prediction === null) return { mse: null, cosine_similarity: null };
  const { mseScale } = nla.reconstructor.contract;
  const { mse, cosine } = reconstructionScores(prediction, activation, { mseScale });
  return { mse, cosine_similarity: Number.isNaN(cosine) ? null : cosine };
}

/** Answers `POST /v1/nla/explain`. */
export async function explainRoute(c: Context, request: Explain, served: ServedNla): Promise<Response> {
  const { target, nla, verbalizer, maxPositions } = served;
  const ids = idsOf(request, served);
  const positions = positionsOf(request, ids.length, maxPositions);
  const leave = new AbortController();
  const signal = AbortSignal.any([c.req.raw.signal, leave.signal]);
  const [activations] = (await activationsOf(target, nla.layer, [ids], { signal })) as [Float32Array];
  const pieces = target.tokenizer.pieces(ids);
  const { dim } = target.model.config;
  const { contract, prompt, stopTokens, tokenizer, model } = nla.verbalizer;
  const room = Math.min(model.config.contextLength, verbalizer.batcher.maxTokens) - prompt.ids.length;
  const one = async (position: number, i: number): Promise<ReadingJson> => {
    const vector = activations.slice(position * dim, (position + 1) * dim);
    const { tokens, finish } = await verbalizer.batcher.submit({
      ids: prompt.ids,
      inject: [nla.verbalizer.injection(vector, 0)],
      maxNewTokens: Math.max(1, Math.min(request.max_new_tokens, room)),
      temperature: request.temperature,
      seed: request.seed + i,
      stopTokens,
      signal,
    });
    const cut = finish === "length" && contract.format === "plain";
    const description = cut
      ? null
      : extractExplanation(tokenizer.decode(tokens), { format: contract.format });
    const [prediction] = await nla.reconstructor.reconstructSome([description], { signal });
    return {
      position,
      token: pieces[position] as string,
      token_id: ids[position] as number,
      l2_norm: Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0)),
      description,
      ...scoresOf(served, prediction ?? null, vector),
    };
  };
  const head = { layer_index: nla.layer, total: positions.length, prompt_length: ids.length };
  if (!request.stream) {
    try {
      return c.json({ ...head, results: await Promise.all(positions.map(one)) });
    } finally {
      leave.abort();
    }
  }
  return streamSSE(c, async (stream) => {
    stream.onAbort(() => leave.abort());
    const send = (data: unknown) => stream.writeSSE({ data: JSON.stringify(data) });
    await send(head);
    try {
      await Promise.all(positions.map(async (position, i) => send(await one(position, i))));
    } catch (thrown) {
      if (!leave.signal.aborted) await send(errorBody(thrown));
    } finally {
      leave.abort();
    }
    await stream.writeSSE({ data: "[DONE]" });
  });
}

/** Answers `POST /v1/nla/score`. */
export async function scoreRoute(
  c: Context,
  { items }: z.output<typeof SCORE>,
  served: ServedNla,
): Promise<Response> {
  const { reconstructor } = served.nla;
  const { dim } = reconstructor.contract;
  const activations = items.map(({ activation }, i) => {
    const values = Float32Array.from(activation);
    if (values.length === dim && values.every(Number.isFinite)) return values;
    const found = values.length === dim ? "numbers beyond float32" : `${values.length} numbers`;
    throw requestError("width", `items[${i}].activation`, found, `${dim} finite numbers`);
  });
  const texts = items.map(({ description }) => description);
  const rebuilt = await reconstructor.reconstructSome(texts, { signal: c.req.raw.signal });
  return c.json({
    items: rebuilt.map((prediction, i) => scoresOf(served, prediction, activations[i] as Float32Array)),
  });
}

/** Answers `POST /v1/nla/reconstruct`; null for a text that the reconstructor cannot take. */
export async function reconstructRoute(
  c: Context,
  { descriptions }: z.output<typeof RECONSTRUCT>,
  { nla }: ServedNla,
): Promise<Response> {
  const rebuilt = await nla.reconstructor.reconstructSome(descriptions, { signal: c.req.raw.signal });
  return c.json({ activations: rebuilt.map((each) => (each === null ? null : Array.from(each))) });
}

/** Answers `GET /v1/nla/sources`. */
export function sourcesRoute(c: Context, served: ServedNla | null): Response {
  if (served === null) return c.json({ sources: [] });
  const { contract } = served.nla.verbalizer;
  const source = {
    id: `${publicName(served.target.name)}-l${contract.layer}`,
    model: publicName(served.target.name),
    layer_index: contract.layer,
    d_model: contract.dim,
    format: contract.format,
    injection_scale: contract.injection.scale,
    mse_scale: served.nla.reconstructor.contract.mseScale,
  };
  return c.json({ sources: [source] });
}
