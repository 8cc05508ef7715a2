// Between a model sidecar and a contract: what the file says, in the terms of nla/, and back.
import type { ModelSidecar } from "../data/sidecar.js";
import { createdAtNow } from "../data/sidecar.js";
import { NlaError } from "../error.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { suffixIdsOf } from "./contract.js";
import type { Contract } from "./contract.js";
import { EXPLANATION_PLACEHOLDER, INJECTION_PLACEHOLDER, parseTemplate } from "./template.js";

/** What a checkpoint's sidecar says besides its contract. */
export interface CheckpointFacts {
  readonly role: "av" | "ar";
  /** `init`, `sl` or `rl`. */
  readonly stage: string;
  /** The target: a path, a bundled name or a hub name. */
  readonly baseCheckpoint: string;
  readonly parentCheckpoints: readonly string[];
  readonly trainedOn: readonly string[];
}

/** The sidecar of a checkpoint in the released spelling, with nlakit's two keys where they say something new. */
export function sidecarOf(contract: Contract, facts: CheckpointFacts, endId: number | null): ModelSidecar {
  const { marker, templates, injection, mseScale, format } = contract;
  return {
    kind: "nla_model",
    role: facts.role,
    stage: facts.stage,
    baseCheckpoint: facts.baseCheckpoint,
    dModel: contract.dim,
    injectionScale: injection.scale ?? "raw",
    mseScale,
    tokens: {
      injectionChar: marker.char,
      injectionTokenId: marker.tokenId,
      leftNeighborId: marker.left,
      rightNeighborId: marker.right,
      criticSuffixIds: [...contract.suffixIds],
    },
    templates: { av: templates.verbalizer.raw, ar: templates.reconstructor.raw },
    trainedOn: facts.trainedOn,
    parentCheckpoints: facts.parentCheckpoints,
    createdAt: createdAtNow(),
    createdBy: "nlakit",
    layerIndex: contract.layer,
    layerKeys: [],
    training: null,
    spelling: "released",
    injection: { kind: injection.kind },
    format: { kind: format, end: format === "plain" ? endId : null },
    extensions: true,
    unknown: [],
    notes: [],
  };
}

/**
 * The contract of a sidecar.
 *
 * Stricter than the released code, which looks at the suffix ids of one training row only: they must be those of the
 * template in this tokenizer, and both prompts must be there.
 *
 * @param layerFallback the layer where the file does not say it: a reconstructor's number of blocks less one
 * @param tokenizer makes the suffix ids, which must be the file's where it has some
 * @throws NlaError `contract.incomplete` naming what the file lacks, `contract.suffix-drift`, and those of the templates
 */
export function contractOf(
  sidecar: ModelSidecar,
  file: string,
  tokenizer: Tokenizer,
  layerFallback: number | null,
): Contract {
  const layer = sidecar.layerIndex ?? layerFallback;
  const { av, ar } = sidecar.templates;
  if (layer === null) throw incomplete(file, "no layer", "extraction_layer_index");
  if (av === null || ar === null)
    throw incomplete(
      file,
      `no ${av === null ? "verbalizer" : "reconstructor"} prompt`,
      "prompt_templates of both",
    );
  const reconstructor = parseTemplate(ar, EXPLANATION_PLACEHOLDER);
  const { tokens } = sidecar;
  return {
    layer,
    dim: sidecar.dModel,
    marker: {
      char: tokens.injectionChar,
      tokenId: tokens.injectionTokenId,
      left: tokens.leftNeighborId,
      right: tokens.rightNeighborId,
    },
    templates: { verbalizer: parseTemplate(av, INJECTION_PLACEHOLDER), reconstructor },
    injection: { kind: sidecar.injection.kind, scale: injectionScaleOf(sidecar, file) },
    mseScale: sidecar.mseScale,
    format: sidecar.format.kind,
    suffixIds: checkedSuffix(
      tokens.criticSuffixIds,
      suffixIdsOf(reconstructor, sidecar.format.kind, tokenizer),
      file,
    ),
  };
}

function checkedSuffix(
  stated: readonly number[] | null,
  live: readonly number[],
  file: string,
): readonly number[] {
  if (stated === null || (stated.length === live.length && stated.every((id, i) => id === live[i])))
    return live;
  throw new NlaError({
    code: "contract.suffix-drift",
    subject: `${file}: tokens.critic_suffix_ids`,
    found: `[${stated.join(", ")}]`,
    wanted: `[${live.join(", ")}], the end of the reconstructor's template in the tokenizer beside it`,
    next: "The sidecar belongs to another template or another tokenizer; take the one of this checkpoint.",
  });
}

// A reconstructor's sidecar need not say how the verbalizer injects; a verbalizer's must (its absence was trained with once,
// and gave a model that ignored its vector).
// What is added after a block takes its length from there.
function injectionScaleOf({ injectionScale, role, injection }: ModelSidecar, file: string): number | null {
  if (injectionScale === "raw") return null;
  if (injection.kind === "add-normed") return injectionScale;
  if (injectionScale !== null || role === "ar") return injectionScale;
  throw incomplete(
    file,
    "no injection_scale",
    "extraction.injection_scale: a number, or raw for the vector's own length",
  );
}

function incomplete(file: string, found: string, wanted: string): NlaError {
  return new NlaError({
    code: "contract.incomplete",
    subject: file,
    found,
    wanted,
    next: "Take the sidecar of the released checkpoint, or add the key.",
  });
}
