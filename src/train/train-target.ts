// A target from scratch over one run folder: pretraining on documents of the world, then a Hugging Face folder that loadTarget opens.
// The loop is language-model.ts; an NLA of it is trained by run.ts.
import path from "node:path";
import { writeFileAtomic } from "../data/files.js";
import { Decoder, loadDecoder, parseConfig, randomParameters, saveDecoder } from "../model/index.js";
import { Device } from "../tensor/index.js";
import { worldDocument } from "../world/documents.js";
import { writeWorldTokenizer } from "../world/tokenizer-folder.js";
import { SPECIAL_TOKENS, worldVocabulary } from "../world/vocabulary.js";
import { configHash, renderConfig } from "./config.js";
import { CHECKPOINT_MODEL, trainLanguageModel } from "./language-model.js";
import type { DocumentSource, LanguageDocument } from "./language-model.js";
import { resumePoint } from "./loop.js";
import type { LoopOutputs } from "./loop.js";
import type { RunOptions } from "./run-context.js";
import { openRunFolder } from "./run-folder.js";
import { RUN_LAYOUT } from "./run-layout.js";
import { TARGET_FORM } from "./target-config.js";
import type { TargetConfig } from "./target-config.js";

/** Where the finished model lies in the run folder. */
export const TARGET_FOLDER = "target";
const STAGE = "pretrain";

/** Documents of a world from `start` on as token ids: BOS, the words, EOS. */
export function worldSource({
  seed,
  start,
}: {
  readonly seed: number;
  readonly start: number;
}): DocumentSource {
  const ids = new Map(worldVocabulary().map((token, id) => [token, id]));
  const idOf = (word: string) => ids.get(word) as number; // the vocabulary is made from the words of the kinds
  const [, bos, eos] = SPECIAL_TOKENS;
  return {
    count: Infinity,
    document(index): LanguageDocument {
      const { words, kind, nats } = worldDocument(seed, start + index);
      return { ids: [idOf(bos), ...words.map(idOf), idOf(eos)], kind, nats };
    },
  };
}

/** config.json of a Llama over the world's vocabulary. */
export function targetModelConfig({ model }: Pick<TargetConfig, "model">): Record<string, unknown> {
  const [pad, bos, eos] = SPECIAL_TOKENS;
  const vocabulary = worldVocabulary();
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: model.dim,
    intermediate_size: model.ffn,
    num_hidden_layers: model.layers,
    num_attention_heads: model.heads,
    num_key_value_heads: model.heads,
    head_dim: model.dim / model.heads,
    vocab_size: vocabulary.length,
    max_position_embeddings: model.context,
    rope_theta: 10000,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    attention_bias: false,
    pad_token_id: vocabulary.indexOf(pad),
    bos_token_id: vocabulary.indexOf(bos),
    eos_token_id: vocabulary.indexOf(eos),
    torch_dtype: "float32",
  };
}

/**
 * Trains a target, or goes on with a run that was stopped.
 *
 * @returns the folder of the finished model
 * @throws NlaError of the config, the folder or the device; the signal's reason after saving
 */
export async function trainTarget(config: TargetConfig, options: RunOptions): Promise<string> {
  await using run = await openRunFolder(options.directory, config);
  using device = Device.open({ threads: config.threads });
  await run.runStage(STAGE, async (stage) => {
    const outputs: LoopOutputs = {
      place: { root: run.path(RUN_LAYOUT.checkpoints), stage: STAGE, configHash: configHash(config) },
      metricsFile: run.path(RUN_LAYOUT.metrics),
      samplesFile: run.path(RUN_LAYOUT.samples),
      progress: options.progress,
      checkpointEvery: config.log.checkpoint_every,
      keepCheckpoints: config.log.keep_checkpoints,
      signal: options.signal,
    };
    const resumed = await resumePoint(outputs);
    using model = resumed
      ? await loadDecoder(path.join(resumed.directory, CHECKPOINT_MODEL), device)
      : new Decoder(
          device,
          parseConfig(targetModelConfig(config), "the target's config"),
          randomParameters(config.seed),
        );
    const { world, held_out } = config;
    const heldOut = worldSource({ seed: world.seed, start: held_out.start });
    await trainLanguageModel(model, {
      documents: worldSource(world),
      heldOut: Array.from({ length: held_out.documents }, (_, i) => heldOut.document(i)),
      settings: config,
      specialIds: new Set(SPECIAL_TOKENS.keys()),
      outputs,
    });
    const out = await stage.output(TARGET_FOLDER);
    await saveDecoder(out, model, { dtype: config.dtype === "bf16" ? "BF16" : "F32" });
    await writeWorldTokenizer(out);
    await writeFileAtomic(path.join(out, "training.yaml"), renderConfig(config, TARGET_FORM.page));
  });
  return run.path(TARGET_FOLDER);
}
