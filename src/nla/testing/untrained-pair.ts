// A pair that was never trained, on the bundled target: what training starts from. Its explanations say nothing, but all
// of the path from a text to a scored explanation runs, in a second and without a training.
import { mkdir } from "node:fs/promises";
import path from "node:path";
import type { Device } from "../../tensor/index.js";
import { makeContract } from "../contract.js";
import { saveReconstructor, saveVerbalizer } from "../pair-files.js";
import { PAIR_FOLDERS } from "../read.js";
import type { Nla } from "../read.js";
import { chooseMarker, startReconstructor, startVerbalizer } from "../start.js";
import { loadTarget } from "../target.js";
import type { Target } from "../target.js";

/** The bundled target's name. */
export const TARGET = "aidreams260K";

const FACTS = {
  stage: "init",
  baseCheckpoint: TARGET,
  parentCheckpoints: [TARGET],
  trainedOn: [],
} as const;

/** A pair as training starts from; a full stop ends its explanations, since an untrained one never ends them itself. */
export function untrainedPair(target: Target, { layer = 2 }: { layer?: number } = {}): Nla {
  const { config } = target.model;
  const stop = target.tokenizer.encode("end.").at(-1) as number;
  const eosIds = [...config.eosIds, stop];
  using ending = target.model.copy({ ...config, eosIds, json: { ...config.json, eos_token_id: eosIds } });
  const marker = chooseMarker(target.tokenizer);
  const contract = makeContract(
    {
      layer,
      dim: config.dim,
      char: marker.char,
      verbalizerTemplate: "({injection_char})",
      reconstructorTemplate: "{explanation}",
      injectionScale: 4,
      format: "plain",
    },
    marker.tokenizer,
  );
  const verbalizer = startVerbalizer(ending, marker.tokenizer, contract);
  const reconstructor = startReconstructor(ending, target.tokenizer, contract);
  return {
    verbalizer,
    reconstructor,
    layer,
    target: TARGET,
    [Symbol.dispose]() {
      verbalizer[Symbol.dispose]();
      reconstructor[Symbol.dispose]();
    },
  };
}

/** Writes an untrained pair as the end of a run leaves it: `verbalizer/` and `reconstructor/` in `directory`. */
export async function writeUntrainedPair(
  directory: string,
  device: Device,
  options: { layer?: number } = {},
): Promise<void> {
  using target = await loadTarget(TARGET, device);
  using pair = untrainedPair(target, options);
  const verbalizer = path.join(directory, PAIR_FOLDERS.verbalizer);
  const reconstructor = path.join(directory, PAIR_FOLDERS.reconstructor);
  await mkdir(verbalizer, { recursive: true });
  await mkdir(reconstructor, { recursive: true });
  await saveVerbalizer(verbalizer, pair.verbalizer, FACTS);
  await saveReconstructor(reconstructor, pair.reconstructor, FACTS);
}
