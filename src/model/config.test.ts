// Reading config.json: what each family means by it, and what is refused instead of ignored.
import { describe, expect, test } from "vitest";
import { NlaError } from "../error.js";
import { parseConfig } from "./config.js";
import { frequencyDivisors, ropeMagnitude } from "./rope-scaling.js";

const LLAMA = {
  model_type: "llama",
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  vocab_size: 100,
};
const parse = (changes: Record<string, unknown> = {}) => parseConfig({ ...LLAMA, ...changes }, "config.json");

function failure(act: () => unknown): NlaError {
  try {
    act();
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(NlaError);
    const error = thrown as NlaError;
    for (const part of [error.code, error.subject, error.found, error.wanted, error.next]) {
      expect(part).toMatch(/\S/);
      expect(part).not.toMatch(/undefined|\[object/);
    }
    return error;
  }
  throw new Error("nothing was thrown");
}

test("what a Llama's file leaves out", () => {
  expect(parse()).toMatchObject({
    kvHeads: 4,
    headDim: 16,
    contextLength: 2048,
    normEps: 1e-6,
    tied: false,
    attentionBias: false,
    attentionScale: 0.25,
    windows: [null, null, null, null],
    bosId: null,
    eosIds: [],
    weightPrefix: "",
  });
  expect(parse().rope[3]).toEqual({ theta: 10_000, scaling: null });
  expect(parse({ eos_token_id: [2, 5], bos_token_id: 1 })).toMatchObject({ bosId: 1, eosIds: [2, 5] });
});

const windows = (changes: Record<string, unknown>) => parse(changes).windows;

test("windows by family", () => {
  expect(windows({ model_type: "mistral" })).toEqual([4096, 4096, 4096, 4096]);
  expect(windows({ model_type: "mistral", sliding_window: null })).toEqual([null, null, null, null]);
  expect(windows({ model_type: "mistral", sliding_window: 8 })).toEqual([8, 8, 8, 8]);
  expect(windows({ model_type: "qwen2", sliding_window: 8, use_sliding_window: false })[0]).toBe(null);
  expect(windows({ model_type: "gemma2", sliding_window: 8 })).toEqual([8, null, 8, null]);
  expect(windows({ model_type: "gemma3_text", sliding_window: 8 })).toEqual([8, 8, 8, 8]);
  expect(windows({ model_type: "gemma3_text", sliding_window: 8, sliding_window_pattern: 2 })).toEqual([
    8,
    null,
    8,
    null,
  ]);
  const types = ["full_attention", "sliding_attention", "full_attention", "full_attention"];
  expect(windows({ model_type: "gemma3_text", sliding_window: 8, layer_types: types })).toEqual([
    null,
    8,
    null,
    null,
  ]);
});

test("Gemma 3 turns its windowed blocks by the local base, unscaled, the others by the scaled one", () => {
  const { rope } = parse({
    model_type: "gemma3_text",
    sliding_window_pattern: 2,
    rope_scaling: { rope_type: "linear", factor: 8 },
  });
  const local = { theta: 10_000, scaling: null };
  const full = { theta: 1_000_000, scaling: { kind: "linear", factor: 8 } };
  expect(rope).toEqual([local, full, local, full]);
});

test("YaRN keeps fast pairs, divides slow ones, and scales cos and sin", () => {
  const scaling = { type: "yarn", factor: 4, original_max_position_embeddings: 256 };
  const [rope] = parse({ rope_scaling: scaling, head_dim: 128 }).rope;
  const divisors = frequencyDivisors(rope!, 128)!;
  expect(divisors[0]).toBe(1);
  expect(divisors.at(-1)).toBe(4);
  expect([...divisors]).toEqual([...divisors].sort((a, b) => a - b));
  expect(ropeMagnitude(rope!)).toBeCloseTo(0.1 * Math.log(4) + 1, 12);
  const [stated] = parse({ rope_scaling: { ...scaling, attention_factor: 1.5 } }).rope;
  expect(ropeMagnitude(stated!)).toBe(1.5);
  const [none] = parse({ rope_scaling: { ...scaling, factor: 1 } }).rope;
  expect(ropeMagnitude(none!)).toBe(1);
  const [absent] = parse({ max_position_embeddings: 512, rope_scaling: { type: "yarn", factor: 4 } }).rope;
  expect(absent!.scaling).toMatchObject({ originalLength: 512 });
});

describe("unknown models", () => {
  test.each(["gpt2", "LlamaForCausalLM", "constructor", "__proto__", "", 7, null, undefined])(
    "model_type %j",
    (family) => {
      const error = failure(() => parse({ model_type: family }));
      expect(error.code).toBe("model.family");
      expect(error.found).toContain(JSON.stringify(family) ?? "nothing");
      expect(error.wanted).toMatch(/llama, mistral, qwen2, qwen3, gemma2, gemma3_text, gemma3/);
    },
  );
});

describe("values that cannot be", () => {
  test.each<[Record<string, unknown>, string, RegExp, RegExp]>([
    [{ hidden_size: undefined }, "hidden_size", /nothing/, /a number/],
    [{ hidden_size: "64" }, "hidden_size", /"64"/, /a number/],
    [{ hidden_size: 0 }, "hidden_size", /^0$/, /from 1 to/],
    [{ hidden_size: -64 }, "hidden_size", /-64/, /from 1 to/],
    [{ vocab_size: 1e12 }, "vocab_size", /1000000000000/, /from 1 to 16,777,216/],
    [{ num_hidden_layers: 2.5 }, "num_hidden_layers", /2\.5/, /integer/],
    [{ hidden_size: 66 }, "head_dim", /16\.5/, /integer/],
    [{ head_dim: 15 }, "head_dim", /15/, /even/],
    [{ num_key_value_heads: 3 }, "num_attention_heads", /4/, /num_key_value_heads \(3\)/],
    [{ rms_norm_eps: 0 }, "rms_norm_eps", /0/, /above 0/],
    [{ rope_theta: -1 }, "rope_theta", /-1/, /above 0/],
    [{ tie_word_embeddings: "yes" }, "tie_word_embeddings", /"yes"/, /true or false/],
  ])("%o", (changes, key, found, wanted) => {
    const error = failure(() => parse(changes));
    expect(error.code).toBe("model.config");
    expect(error.subject).toBe(`config.json, ${key}`);
    expect(error.found).toMatch(found);
    expect(error.wanted).toMatch(wanted);
  });
});

describe("settings that would change the mathematics are refused, not ignored", () => {
  test.each<[Record<string, unknown>, string]>([
    [{ hidden_act: "gelu" }, "hidden_act"],
    [{ attention_bias: true }, "attention_bias"],
    [{ mlp_bias: true }, "mlp_bias"],
    [{ partial_rotary_factor: 0.5 }, "partial_rotary_factor"],
    [{ quantization_config: { bits: 4 } }, "quantization_config"],
    [{ residual_multiplier: 0.2 }, "residual_multiplier"],
    [{ logits_scaling: 8 }, "logits_scaling"],
    [{ num_local_experts: 8 }, "num_local_experts"],
    [{ sliding_window: 64 }, "sliding_window"],
    [{ use_qk_norm: true }, "use_qk_norm"],
    [{ attn_logit_softcapping: 30 }, "attn_logit_softcapping"],
    [{ no_rope_layers: [1, 0] }, "no_rope_layers"],
    [{ model_type: "qwen2", use_sliding_window: true }, "use_sliding_window"],
    [{ model_type: "qwen3", attention_bias: true }, "attention_bias"],
    [{ model_type: "gemma2", hidden_activation: "gelu" }, "hidden_activation"],
    [{ model_type: "gemma3_text", use_bidirectional_attention: true }, "use_bidirectional_attention"],
    [{ model_type: "qwen2", layer_types: ["full_attention"] }, "layer_types"],
    [{ model_type: "qwen2", layer_types: Array(4).fill("sliding_attention") }, "layer_types[0]"],
    [{ model_type: "gemma2", layer_types: Array(4).fill("chunked_attention") }, "layer_types[0]"],
    [{ model_type: "gemma3" }, "text_config"],
  ])("%o", (changes, key) => {
    const error = failure(() => parse(changes));
    expect(error.code).toBe("model.config");
    expect(error.subject).toBe(`config.json, ${key}`);
  });

  test.each<[Record<string, unknown>, RegExp]>([
    [{ rope_type: "dynamic", factor: 2 }, /"dynamic"; wanted default, linear, llama3 or yarn/],
    [{ type: "longrope", factor: 2 }, /"longrope"/],
    [{ rope_type: "llama3", factor: 8 }, /low_freq_factor: found nothing/],
    [{ rope_type: "linear" }, /factor: found nothing/],
    [{ rope_type: "linear", factor: 0 }, /factor: found 0/],
    [{ rope_type: "yarn", factor: 4, mscale: 0.7 }, /mscale: found 0.7/],
    [{ rope_type: "linear", factor: 4, surprise: 1 }, /surprise: found 1/],
  ])("rope scaling %o", (scaling, message) => {
    const old = failure(() => parse({ rope_scaling: scaling }));
    expect(old.code).toBe("model.config");
    expect(old.message).toMatch(message);
    const nested = { rope_parameters: { ...scaling, rope_theta: 500 } };
    expect(failure(() => parse(nested)).message).toMatch(message);
  });

  test("what changes nothing is let through", () => {
    const harmless = {
      attention_dropout: 0.1,
      initializer_range: 0.02,
      use_cache: true,
      pretraining_tp: 1,
      torch_dtype: "bfloat16",
      transformers_version: "4.43.0",
      _attn_implementation_autoset: true,
      rope_scaling: null,
      sliding_window: null,
      quantization_config: null,
      nla: { role: "verbalizer" },
    };
    expect({ ...parse(harmless), json: null }).toEqual({ ...parse(), json: null });
  });
});
