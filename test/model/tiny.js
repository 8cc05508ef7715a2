// Small random decoders for tests of the model layer, and the slow way to do what generation does fast.
import { Decoder, parseConfig, randomParameters, run } from "../../src/model/index.js";
import { chooseToken, uniformAt } from "../../src/model/sampling.js";
/** config.json of a Llama with grouped queries; `overrides` replace or add keys. */
export function tinyJson(overrides = {}) {
    return {
        architectures: ["LlamaForCausalLM"],
        model_type: "llama",
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        vocab_size: 61,
        max_position_embeddings: 96,
        rms_norm_eps: 1e-5,
        rope_theta: 10000,
        tie_word_embeddings: true,
        torch_dtype: "float32",
        ...overrides,
    };
}
export function tinyConfig(overrides = {}) {
    return parseConfig(tinyJson(overrides), "tiny");
}
/** Weights are large, so that the model has opinions and mistakes show. */
export function tinyModel(device, overrides = {}, seed = 1) {
    return new Decoder(device, tinyConfig(overrides), randomParameters(seed, 0.25));
}
/** Deterministic ids: the same arguments, the same tokens. */
export function someIds(length, vocabulary, seed = 0) {
    return Array.from({ length }, (_, i) => Math.floor(uniformAt(seed + 77, i) * vocabulary));
}
/** Tokens and log-probs by computing the whole sequence again for each token. */
export async function continueSlowly(model, prompt, options) {
    const { vocabulary, contextLength } = model.config;
    const tokens = [];
    const logProbs = [];
    const entropies = [];
    const { inject = [] } = options;
    while (tokens.length < options.maxNewTokens && prompt.length + tokens.length < contextLength) {
        const { logits } = await run(model, [[...prompt, ...tokens]], { logits: "last", inject });
        const uniform = uniformAt(options.seed, tokens.length);
        const choice = chooseToken(logits, 0, vocabulary, uniform, options);
        tokens.push(choice.token);
        logProbs.push(choice.logProb);
        entropies.push(choice.entropy);
    }
    return { tokens, logProbs, entropies };
}
/** log softmax of one row in float64. */
export function logSoftmax(row) {
    const max = row.reduce((a, b) => Math.max(a, b), -Infinity);
    const total = row.reduce((sum, x) => sum + Math.exp(x - max), 0);
    return [...row].map((x) => x - max - Math.log(total));
}
