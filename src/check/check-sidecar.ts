// A sidecar for itself and against a tokenizer: fields, templates, marker, neighbours, suffix, scales. What it says of the weights
// is checked with them (check-checkpoint.ts).
import { formatSidecar, readSidecarFile } from "../data/sidecar.js";
import type { DatasetSidecar, ModelSidecar, Sidecar } from "../data/sidecar.js";
import { writeFileAtomic } from "../data/files.js";
import { suffixIdsOf, verbalizerPrompt } from "../nla/contract.js";
import { contractOf } from "../nla/sidecar-contract.js";
import { EXPLANATION_PLACEHOLDER, INJECTION_PLACEHOLDER, parseTemplate } from "../nla/template.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { Finding, Findings } from "./finding.js";

/** Reads and checks a sidecar; null where it cannot be read. Without a tokenizer only what needs none is checked. */
export async function checkSidecar(
  file: string,
  findings: Findings,
  tokenizer: Tokenizer | null = null,
): Promise<Sidecar | null> {
  const sidecar = await findings.of(() => readSidecarFile(file));
  if (sidecar === null) return null;
  const before = findings.list.length;
  await checkTemplates(sidecar, findings);
  if (sidecar.kind === "nla_model") checkModel(sidecar, file, findings);
  else checkDataset(sidecar, file, findings);
  if (tokenizer !== null && sidecar.tokens !== null) await checkTokens(sidecar, file, tokenizer, findings);
  // A template or a marker names itself, not the file that it stands in.
  for (let i = before; i < findings.list.length; i++) {
    const finding = findings.list[i] as Finding;
    if (!finding.subject.includes(file))
      findings.list[i] = { ...finding, subject: `${file}: ${finding.subject}` };
  }
  return sidecar;
}

async function checkTemplates({ templates }: Sidecar, findings: Findings): Promise<void> {
  const { av, ar } = templates;
  if (av !== null) await findings.of(() => parseTemplate(av, INJECTION_PLACEHOLDER));
  if (ar !== null) await findings.of(() => parseTemplate(ar, EXPLANATION_PLACEHOLDER));
}

function checkModel(sidecar: ModelSidecar, file: string, findings: Findings): void {
  const { role, injectionScale, layerIndex, layerKeys, notes } = sidecar;
  if (role !== "ar" && injectionScale === null) {
    findings.add("error", {
      code: "check.scale-absent",
      subject: `${file}: extraction.injection_scale`,
      found: "nothing",
      wanted: 'the length that vectors are scaled to, or "raw"',
      next: "Take it from the training's command line or the released sidecar; the 75th percentile of norms is usual.",
    });
  }
  if (role === "av" && injectionScale === "raw") {
    findings.add("warning", {
      code: "check.scale-raw",
      subject: `${file}: extraction.injection_scale`,
      found: "raw: vectors enter at their own length",
      wanted: "a number, which the reference's training and client demand of a verbalizer",
      next: "Fine for nlakit; the reference will not start from this checkpoint.",
    });
  }
  for (const note of notes) {
    findings.add("error", {
      code: "check.layer-contradiction",
      subject: file,
      found: note,
      wanted: "one layer",
      next: "Remove the spellings that are wrong.",
    });
  }
  // Of the five spellings the reference reads two.
  if (role === "ar" && layerIndex !== null && !layerKeys.some((key) => key.startsWith("critic."))) {
    findings.add("warning", {
      code: "check.layer-spelling",
      subject: file,
      found: `the layer (${layerIndex}) only in a spelling that the reference's training does not read`,
      wanted: "critic.extraction_layer_index",
      next: "Write the sidecar again (--fix does it; nothing else changes).",
      fix: () => writeFileAtomic(file, formatSidecar(sidecar)),
    });
  }
}

function checkDataset(sidecar: DatasetSidecar, file: string, findings: Findings): void {
  const { extraction, unknown, stage, tokens, templates } = sidecar;
  if (extraction.norm !== "none") {
    findings.add("error", {
      code: "data.norm",
      subject: `${file}: extraction.norm`,
      found: JSON.stringify(extraction.norm),
      wanted: '"none": raw activations',
      next: "Extract again; a transformation of the vectors cannot be undone.",
    });
  }
  if (stage !== "base" && tokens === null) {
    findings.add("error", {
      code: "check.tokens-absent",
      subject: `${file}: tokens`,
      found: "nothing",
      wanted: `the marker and its neighbours, which a set of stage ${stage} is trained with`,
      next: "Build the set again.",
    });
  }
  if (stage !== "base" && templates.av === null) {
    findings.add("error", {
      code: "check.template-absent",
      subject: `${file}: prompt_templates.actor`,
      found: "nothing",
      wanted: "the verbalizer's prompt",
      next: "Build the set again.",
    });
  }
  // The reference makes dataclasses of these three, and stops at a key that they do not have.
  for (const { path } of unknown) {
    if (path.length < 2 || !["extraction", "tokens", "api_summaries"].includes(path[0] as string)) continue;
    findings.add("warning", {
      code: "check.unknown-key",
      subject: `${file}: ${path.join(".")}`,
      found: "a key that the reference does not know",
      wanted: "such keys at the top level only",
      next: "Move it to the top level, or the reference stops at this file.",
    });
  }
}

async function checkTokens(
  sidecar: Sidecar,
  file: string,
  tokenizer: Tokenizer,
  findings: Findings,
): Promise<void> {
  const { tokens, templates, format } = sidecar;
  if (tokens === null) return;
  const { av, ar } = templates;
  if (sidecar.kind === "nla_model") {
    // Scale and layer have findings of their own.
    const complete = { ...sidecar, injectionScale: sidecar.injectionScale ?? 1 } as const;
    const contract = await findings.of(() => contractOf(complete, file, tokenizer, sidecar.layerIndex ?? 0));
    // A reconstructor never sees the marker, and its tokenizer need not have it.
    if (contract !== null && sidecar.role !== "ar")
      await findings.of(() => verbalizerPrompt(contract, tokenizer));
    return;
  }
  if (av === null) return;
  const verbalizer = await findings.of(() => parseTemplate(av, INJECTION_PLACEHOLDER));
  if (verbalizer === null) return;
  const marker = {
    char: tokens.injectionChar,
    tokenId: tokens.injectionTokenId,
    left: tokens.leftNeighborId,
    right: tokens.rightNeighborId,
  };
  const part = { marker, templates: { verbalizer } };
  await findings.of(() => verbalizerPrompt(part as Parameters<typeof verbalizerPrompt>[0], tokenizer));
  if (ar === null || tokens.criticSuffixIds === null) return;
  const live = await findings.of(() =>
    suffixIdsOf(parseTemplate(ar, EXPLANATION_PLACEHOLDER), format.kind, tokenizer),
  );
  if (live === null || live.join() === tokens.criticSuffixIds.join()) return;
  findings.add("error", {
    code: "contract.suffix-drift",
    subject: `${file}: tokens.critic_suffix_ids`,
    found: `[${tokens.criticSuffixIds.join(", ")}]`,
    wanted: `[${live.join(", ")}], the end of the reconstructor's template in ${tokenizer.directory}`,
    next: "The sidecar is of another template or tokenizer.",
  });
}
