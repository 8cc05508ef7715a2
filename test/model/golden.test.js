var __addDisposableResource = (this && this.__addDisposableResource) || function (env, value, async) {
    if (value !== null && value !== void 0) {
        if (typeof value !== "object" && typeof value !== "function") throw new TypeError("Object expected.");
        var dispose, inner;
        if (async) {
            if (!Symbol.asyncDispose) throw new TypeError("Symbol.asyncDispose is not defined.");
            dispose = value[Symbol.asyncDispose];
        }
        if (dispose === void 0) {
            if (!Symbol.dispose) throw new TypeError("Symbol.dispose is not defined.");
            dispose = value[Symbol.dispose];
            if (async) inner = dispose;
        }
        if (typeof dispose !== "function") throw new TypeError("Object not disposable.");
        if (inner) dispose = function() { try { inner.call(this); } catch (e) { return Promise.reject(e); } };
        env.stack.push({ value: value, dispose: dispose, async: async });
    }
    else if (async) {
        env.stack.push({ async: true });
    }
    return value;
};
var __disposeResources = (this && this.__disposeResources) || (function (SuppressedError) {
    return function (env) {
        function fail(e) {
            env.error = env.hasError ? new SuppressedError(e, env.error, "An error was suppressed during disposal.") : e;
            env.hasError = true;
        }
        var r, s = 0;
        function next() {
            while (r = env.stack.pop()) {
                try {
                    if (!r.async && s === 1) return s = 0, env.stack.push(r), Promise.resolve().then(next);
                    if (r.dispose) {
                        var result = r.dispose.call(r.value);
                        if (r.async) return s |= 2, Promise.resolve(result).then(next, function(e) { fail(e); return next(); });
                    }
                    else s |= 1;
                }
                catch (e) {
                    fail(e);
                }
            }
            if (s === 1) return env.hasError ? Promise.reject(env.error) : Promise.resolve();
            if (env.hasError) throw env.error;
        }
        return next();
    };
})(typeof SuppressedError === "function" ? SuppressedError : function (error, suppressed, message) {
    var e = new Error(message);
    return e.name = "SuppressedError", e.error = error, e.suppressed = suppressed, e;
});
// Equality with Hugging Face transformers on the golden folders: logits, hidden states, loss, gradients, AdamW steps, greedy
// tokens, injection, padding. Tolerances are those of the golden README.
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { declareBatch, Decoder, finalNorm, forward, generate, headOf, loadDecoder, packedRows, padBatch, parseConfig, run, } from "../../src/model/index.js";
import { adamw, Device, GradientSums, Graph, ops } from "../../src/tensor/index.js";
import { sharedPath } from "../shared.js";
import { hasConfigV5, openGolden, relativeL2 } from "./golden.js";
const FOLDERS = [
    "llama-mha-tied",
    "llama3-gqa",
    "aidreams260K",
    "qwen2",
    "qwen2-yarn",
    "qwen3",
    "gemma2",
    "gemma3",
    "gemma3-mm",
    "mistral",
];
describe.each(FOLDERS)("golden %s", (name) => {
    const directory = sharedPath(`golden/models/${name}`);
    const modelDirectory = name === "aidreams260K" ? path.resolve(import.meta.dirname, "../../assets/aidreams260K") : directory;
    describe.skipIf(directory === null)("", () => {
        let device;
        let golden;
        let model;
        beforeAll(async () => {
            device = Device.open({ threads: 1 });
            golden = await openGolden(directory, modelDirectory);
            model = await loadDecoder(golden.model, device);
        });
        afterAll(() => {
            model[Symbol.dispose]();
            device[Symbol.dispose]();
        });
        test.each(["right", "left"])("logits and every hidden state, padded on the %s", async (padding) => {
            const layers = Array.from({ length: model.config.layers }, (_, k) => k);
            const result = await run(model, golden.json.sequences, {
                capture: layers,
                embedded: true,
                normed: true,
                logits: "all",
                padding,
            });
            expect(relativeL2(result.embedded, await golden.tensor("hidden.embed"))).toBeLessThan(1e-5);
            for (const k of layers) {
                expect(relativeL2(result.blocks.get(k), await golden.tensor(`hidden.block${k}`)), `block ${k}`).toBeLessThan(1e-5);
            }
            expect(relativeL2(result.normed, await golden.tensor("hidden.norm"))).toBeLessThan(1e-5);
            expect(relativeL2(result.logits, await golden.tensor("logits"))).toBeLessThan(1e-5);
        });
        test("logits of the last tokens, padded on the left", async () => {
            const result = await run(model, golden.json.sequences, { logits: "last", padding: "left" });
            expect(relativeL2(result.logits, await golden.tensor("left.logits"))).toBeLessThan(1e-5);
        });
        test("each sequence alone gives what it gets in the batch", async () => {
            const together = await run(model, golden.json.sequences, { logits: "all" });
            let start = 0;
            for (const sequence of golden.json.sequences) {
                const alone = await run(model, [sequence], { logits: "all" });
                const size = sequence.length * model.config.vocabulary;
                expect(relativeL2(alone.logits, together.logits.slice(start, start + size))).toBeLessThan(1e-5);
                start += size;
            }
        });
        test("injection replaces a row of what enters block 0", async () => {
            const { position, sequence } = golden.json.inject;
            const vector = await golden.tensor("inject.vector");
            const result = await run(model, [golden.json.sequences[sequence]], {
                logits: "all",
                inject: [{ sequence: 0, position, vector }],
            });
            expect(relativeL2(result.logits, await golden.tensor("inject.logits"))).toBeLessThan(1e-5);
        });
        test("a pass that stops after a block gives what the whole one gives there", async () => {
            const { block, sequence } = golden.json.truncated;
            const result = await run(model, [golden.json.sequences[sequence]], { capture: [block] });
            expect(relativeL2(result.blocks.get(block), await golden.tensor(`truncated.block${block}`))).toBeLessThan(1e-5);
        });
        test("greedy continuations, token by token", async () => {
            const { generation } = golden.json;
            const results = await generate(model, generation.map(({ prompt }) => prompt), { maxNewTokens: 24, temperature: 0 });
            results.forEach(({ tokens }, i) => expect(tokens).toEqual(generation[i].tokens));
        });
        test("loss, all gradients, and parameters after one and three AdamW steps", async () => {
            const env_1 = { stack: [], error: void 0, hasError: false };
            try {
                const trained = __addDisposableResource(env_1, model.copy(), false);
                const { tokens, weights } = await lossInputs(golden);
                const batch = padBatch(golden.json.sequences, { maxLength: 4096 });
                const rows = packedRows(batch);
                const sums = __addDisposableResource(env_1, new GradientSums(trained.parameters.tensors), false);
                const g = __addDisposableResource(env_1, new Graph(device), false);
                const declared = declareBatch(g, batch);
                const { blocks } = forward(g, trained, declared);
                const n = batch.rows * batch.length;
                const hidden = finalNorm(g, trained, blocks.at(-1));
                const targets = g.input("targets", [n], "i32");
                const loss = ops.crossEntropy(g, hidden, headOf(trained), targets, g.input("weights", [n]), {
                    chunk: 50,
                    softcap: model.config.logitSoftcap,
                });
                g.output(loss);
                sums.accumulate(g, g.backward(loss));
                const targetValues = new Int32Array(n);
                const weightValues = new Float32Array(n);
                const total = weights.reduce((a, b) => a + b, 0);
                rows.forEach((row, i) => {
                    targetValues[row] = Math.max(0, tokens[i]);
                    weightValues[row] = weights[i] / total;
                });
                const { lr, betas, eps, weight_decay, clip_grad_norm } = golden.json.adamw;
                const optimizer = adamw({
                    beta1: betas[0],
                    beta2: betas[1],
                    eps,
                    weightDecay: weight_decay,
                    clipNorm: clip_grad_norm,
                });
                const state = __addDisposableResource(env_1, optimizer.init(sums), false);
                const starts = new Map([...trained.parameters.tensors].map(([name, t]) => [name, t.readF32()]));
                for (let step = 1; step <= 3; step++) {
                    sums.clear();
                    await g.run({ ...declared.values(batch), targets: targetValues, weights: weightValues });
                    if (step === 1) {
                        expect(Math.abs(loss.readF32()[0] - golden.json.loss)).toBeLessThan(1e-5);
                        for (const [name, sum] of sums.sums.tensors) {
                            expect(relativeL2(sum.readF32(), await golden.tensor(`grad.${name}`)), name).toBeLessThan(1e-4);
                        }
                    }
                    const { gradientNorm } = await optimizer.update(state, lr);
                    if (step === 1)
                        expect(Math.abs(gradientNorm / golden.json.grad_norm - 1)).toBeLessThan(1e-5);
                    if (step === 2)
                        continue;
                    const stored = golden.names.filter((each) => each.startsWith(`step${step}.`));
                    expect(stored.length).toBeGreaterThan(0);
                    for (const each of stored) {
                        const name = each.slice(`step${step}.`.length);
                        const before = starts.get(name);
                        const update = trained
                            .get(name)
                            .readF32()
                            .map((x, i) => x - before[i]);
                        const wanted = (await golden.tensor(each)).map((x, i) => x - before[i]);
                        expect(relativeL2(update, wanted), each).toBeLessThan(1e-2);
                    }
                }
            }
            catch (e_1) {
                env_1.error = e_1;
                env_1.hasError = true;
            }
            finally {
                __disposeResources(env_1);
            }
        });
        test.skipIf(directory === null || !hasConfigV5(directory))("config.json of transformers 5 is the same model", () => {
            const json = JSON.parse(readFileSync(path.join(directory, "config.v5.json"), "utf8"));
            expect({ ...parseConfig(json, "v5"), json: null }).toEqual({ ...model.config, json: null });
        });
    });
});
async function lossInputs(golden) {
    return { tokens: golden.json.targets, weights: await golden.tensor("loss.weights") };
}
