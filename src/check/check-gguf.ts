// One GGUF file: header, config, every tensor's shape and values, tokenizer, and the sidecar beside it. Nothing is loaded onto a device,
// and one tensor is in memory at a time.
import { openGguf } from "../data/gguf.js";
import type { ModelSidecar } from "../data/sidecar.js";
import { checkStored, openModelWeights, parameterShapes } from "../model/index.js";
import { ggufSidecar, loadModelTokenizer } from "../nla/checkpoint-place.js";
import { RECONSTRUCTOR_PARTS, valueHeadOf } from "../nla/pair-files.js";
import { checkAgainstConfig, checkTokenizer } from "./check-checkpoint.js";
import { checkSidecar } from "./check-sidecar.js";
import type { Findings } from "./finding.js";

/** Checks a file. With a sidecar beside it it is a verbalizer or reconstructor, else a model to be read. */
export async function checkGguf(file: string, findings: Findings): Promise<void> {
  const opened = await findings.of(() => openGguf(file));
  if (opened === null) return;
  const bare = opened.metadata.get("tokenizer.ggml.model") === "no_vocab";
  await opened.close();
  if (bare) {
    findings.notes.push({
      code: "check.no-tokenizer",
      subject: file,
      found: "a model without a tokenizer",
      next: "It reads token ids only; to read texts, convert the model again with its tokenizer, if GGUF can say it.",
    });
  }
  const tokenizer = bare ? null : await findings.of(() => loadModelTokenizer(file));
  const place = await ggufSidecar(file);
  const sidecar = place === null ? null : await modelSidecar(place, findings, tokenizer);
  const parts = sidecar?.role === "ar" ? RECONSTRUCTOR_PARTS : {};
  const source = await findings.of(() => openModelWeights(file, parts));
  if (source === null) return;
  try {
    const { config } = source;
    if (place !== null) checkAgainstConfig({ model: file, sidecar: place }, config, sidecar, findings);
    for (const name of parameterShapes(config, parts).keys()) {
      const bytes = await source.bytes(name);
      await findings.of(() => checkStored(file, name, source.stored(name).dtype, bytes));
    }
    if (sidecar?.role === "ar") await findings.of(() => valueHeadOf(file, config.dim));
    if (tokenizer !== null) checkTokenizer({ model: file, tokenizer: file }, tokenizer, config, findings);
  } finally {
    await source.close();
  }
}

async function modelSidecar(
  place: string,
  findings: Findings,
  tokenizer: Awaited<ReturnType<typeof loadModelTokenizer>> | null,
): Promise<ModelSidecar | null> {
  const read = await checkSidecar(place, findings, tokenizer);
  if (read === null || read.kind === "nla_model") return read;
  findings.add("error", {
    code: "sidecar.kind",
    subject: place,
    found: '"nla_dataset"',
    wanted: '"nla_model", beside a model',
    next: "Copy the checkpoint's own sidecar.",
  });
  return null;
}
