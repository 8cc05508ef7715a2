// How a new pair starts: both from the target. The verbalizer is a copy of it, with a row more in the embedding where the
// vocabulary has no marker; the reconstructor is its first K + 1 blocks.
import { EMBEDDING, HEAD, truncateConfig } from "../model/index.js";
import type { Decoder, DecoderConfig } from "../model/index.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { Contract } from "./contract.js";
import { Reconstructor } from "./reconstructor.js";
import { responseEndIds } from "./response-end.js";
import { Verbalizer } from "./verbalizer.js";

// Enclosed CJK letters and CJK compatibility: rare in text, and one token each in the large vocabularies. The first that is
// one token is the marker, as the released pairs have it.
const FIRST_MARKER = 0x3200;
const LAST_MARKER = 0x33ff;

/** A marker character and the tokenizer in which it is one token. */
export interface MarkerChoice {
  readonly char: string;
  readonly tokenizer: Tokenizer;
  /** Whether the tokenizer is the given one with a token more. */
  readonly added: boolean;
}

/** The first character of U+3200 to U+33FF that is one token; where none is, U+3200's neighbour U+320E is added. */
export function chooseMarker(tokenizer: Tokenizer): MarkerChoice {
  for (let code = FIRST_MARKER; code <= LAST_MARKER; code++) {
    const char = String.fromCodePoint(code);
    const ids = tokenizer.encode(char);
    if (ids.length === 1 && ids[0] !== tokenizer.unkId) return { char, tokenizer, added: false };
  }
  const char = "\u320e";
  return { char, tokenizer: tokenizer.withAddedToken(char).tokenizer, added: true };
}

/**
 * The verbalizer that training starts from: the target's parameters; a new row of embedding and head is their mean, so that
 * the marker starts as nothing in particular.
 */
export function startVerbalizer(target: Decoder, tokenizer: Tokenizer, contract: Contract): Verbalizer {
  const config = endingResponses(target.config, tokenizer);
  if (tokenizer.size <= config.vocabulary) return new Verbalizer(target.copy(config), tokenizer, contract);
  const json = { ...config.json, vocab_size: tokenizer.size };
  const wider = { ...config, vocabulary: tokenizer.size, json };
  const model = target.copy(wider, target.parts, (name, shape) => {
    if (name !== EMBEDDING && name !== HEAD) return null;
    return withMeanRows(target.get(name).readF32(), shape as [number, number]);
  });
  return new Verbalizer(model, tokenizer, contract);
}

// A base model's EOS ends documents, not turns: without this its explanations would all run into their cap.
function endingResponses(config: DecoderConfig, tokenizer: Tokenizer): DecoderConfig {
  const [end] = responseEndIds(tokenizer) as [number, ...number[]];
  if (config.eosIds.includes(end)) return config;
  const eosIds = [...config.eosIds, end];
  return { ...config, eosIds, json: { ...config.json, eos_token_id: eosIds } };
}

/** The reconstructor that training starts from, with the identity as its value head. */
export function startReconstructor(target: Decoder, tokenizer: Tokenizer, contract: Contract): Reconstructor {
  const config = truncateConfig(target.config, contract.layer + 1);
  return new Reconstructor(target.copy(config, { finalNorm: false, head: false }), tokenizer, contract);
}

function withMeanRows(values: Float32Array, [rows, width]: readonly [number, number]): Float32Array {
  const known = values.length / width;
  const mean = new Float64Array(width);
  for (let i = 0; i < values.length; i++)
    mean[i % width] = (mean[i % width] as number) + (values[i] as number) / known;
  const wider = new Float32Array(rows * width);
  wider.set(values);
  for (let row = known; row < rows; row++) wider.set(mean, row * width);
  return wider;
}
