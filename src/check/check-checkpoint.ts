// A checkpoint folder: config.json, tokenizer, every tensor, and what the sidecar says of them. Nothing is loaded onto a device, and
// one tensor is in memory at a time, so that a large model can be checked where it would not fit.
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { writeFileAtomic } from "../data/files.js";
import { openSafetensors, openWeights } from "../data/safetensors.js";
import type { WeightsFile } from "../data/safetensors.js";
import type { ModelSidecar } from "../data/sidecar.js";
import { messageOf } from "../error.js";
import {
  checkDummies,
  EMBEDDING,
  hasAdapter,
  HEAD,
  isDummy,
  loadConfig,
  parameterShapes,
} from "../model/index.js";
import type { DecoderConfig } from "../model/index.js";
import { formatShape } from "../tensor/index.js";
import { loadTokenizer } from "../text/tokenizer.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { checkAdapter } from "./check-adapter.js";
import { checkSidecar } from "./check-sidecar.js";
import type { Findings } from "./finding.js";

const SIDECAR = "nla_meta.yaml";
const VALUE_HEAD = "value_head.safetensors";
const INDEX = "model.safetensors.index.json";
const FLOATS = new Set(["F32", "F16", "BF16", "F64"]);
const IGNORED = /(^|\.)rotary_emb\.inv_freq$/;

/** What a checkpoint turned out to be. */
export interface CheckedCheckpoint {
  readonly role: "av" | "ar" | "target";
  readonly config: DecoderConfig | null;
  readonly sidecar: ModelSidecar | null;
}

/** Whether a path is there. */
export async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    (thrown: NodeJS.ErrnoException) => {
      if (thrown.code === "ENOENT" || thrown.code === "ENOTDIR") return false;
      throw thrown;
    },
  );
}

/** Checks a checkpoint folder. Without a sidecar and a value head it is a model to be read, and needs neither. */
export async function checkCheckpoint(directory: string, findings: Findings): Promise<CheckedCheckpoint> {
  const config = await findings.of(() => loadConfig(directory));
  const isNla = await exists(path.join(directory, SIDECAR));
  const bare = !isNla && !(await hasTokenizerFile(directory));
  if (bare) {
    findings.notes.push({
      code: "check.no-tokenizer",
      subject: directory,
      found: "a model without a tokenizer",
      next: "It reads token ids (`nla forward`, `nla conformance`); to read texts, put its tokenizer.json there.",
    });
  }
  const tokenizer = bare ? null : await findings.of(() => loadTokenizer(directory));
  const head = path.join(directory, VALUE_HEAD);
  const hasHead = await exists(head);
  if (hasHead && !isNla) {
    findings.add("error", {
      code: "sidecar.missing",
      subject: directory,
      found: `${VALUE_HEAD} without ${SIDECAR}`,
      wanted: "the sidecar of the reconstructor",
      next: "Copy it from where the checkpoint was made; its templates and scales are nowhere else.",
    });
  }
  const read = isNla ? await checkSidecar(path.join(directory, SIDECAR), findings, tokenizer) : null;
  if (read?.kind === "nla_dataset") {
    findings.add("error", {
      code: "sidecar.kind",
      subject: path.join(directory, SIDECAR),
      found: '"nla_dataset"',
      wanted: '"nla_model", in the folder of a model',
      next: "Copy the checkpoint's own sidecar.",
    });
  }
  const sidecar = read?.kind === "nla_model" ? read : null;
  const stated = sidecar?.role ?? (hasHead ? "ar" : isNla ? "av" : "target");
  if (stated === "ar" && !hasHead) {
    findings.add("error", {
      code: "check.value-head-absent",
      subject: head,
      found: "no such file",
      wanted: "the value head of the reconstructor that the sidecar states",
      next: "Copy it; without it the checkpoint predicts nothing.",
    });
  }
  if (stated === "av" && hasHead) {
    findings.add("error", {
      code: "nla.role",
      subject: directory,
      found: `a verbalizer's sidecar and ${VALUE_HEAD}`,
      wanted: "one or the other",
      next: "The sidecar is of the other half of the pair.",
    });
  }
  if (config !== null) {
    const places = { model: directory, sidecar: path.join(directory, SIDECAR) };
    checkAgainstConfig(places, config, sidecar, findings);
    await checkWeights(directory, config, stated, findings);
    if (await hasAdapter(directory)) await checkAdapter(directory, config, findings);
    if (hasHead) await checkHead(head, sidecar?.dModel ?? config.dim, findings);
  }
  await checkIndex(directory, findings);
  if (tokenizer !== null) {
    const file = path.join(directory, "tokenizer.json");
    checkTokenizer({ model: directory, tokenizer: file }, tokenizer, config, findings);
    if (stated === "ar") await checkPadding(path.join(directory, "tokenizer_config.json"), findings);
  }
  return { role: stated, config, sidecar };
}

// With some file of a tokenizer there, the others are missing; with none, the folder is one of weights only.
async function hasTokenizerFile(directory: string): Promise<boolean> {
  const names = ["tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "merges.txt"];
  for (const name of names) if (await exists(path.join(directory, name))) return true;
  return false;
}

/** Width and number of blocks against what the sidecar says. */
export function checkAgainstConfig(
  places: { readonly model: string; readonly sidecar: string },
  config: DecoderConfig,
  sidecar: ModelSidecar | null,
  findings: Findings,
): void {
  if (sidecar === null) return;
  if (sidecar.dModel !== config.dim) {
    findings.add("error", {
      code: "contract.width",
      subject: `${places.sidecar}: d_model`,
      found: String(sidecar.dModel),
      wanted: `${config.dim}, hidden_size in config.json`,
      next: "The sidecar and the weights must be of the same checkpoint.",
    });
  }
  const { layerIndex: layer } = sidecar;
  if (layer === null) return;
  if (sidecar.role === "ar" && config.layers !== layer + 1) {
    const trap = config.layers === layer;
    findings.add("error", {
      code: trap ? "check.k-blocks" : "contract.layer",
      subject: `${places.model}: number of blocks`,
      found: trap
        ? `K = ${layer} blocks: the output of block ${layer}, which is to be reconstructed, is never computed`
        : `${config.layers} blocks`,
      wanted: `K + 1 = ${layer + 1}: layer ${layer} is the output of block ${layer}, counted from 0`,
      next: trap
        ? "The critic was cut one block short, or the sidecar means hidden_states[K] of Hugging Face: K is one less there."
        : "Sidecar and weights are of two layers; take both from one checkpoint.",
    });
  }
  if (sidecar.role !== "ar" && layer >= config.layers) {
    findings.add("error", {
      code: "contract.layer",
      subject: `${places.model}: layer`,
      found: `layer ${layer} of a model of ${config.layers} blocks`,
      wanted: `a layer from 0 to ${config.layers - 1}`,
      next: "The sidecar is of another model.",
    });
  }
}

async function checkWeights(
  directory: string,
  config: DecoderConfig,
  role: CheckedCheckpoint["role"],
  findings: Findings,
): Promise<void> {
  const weights = await findings.of(() => openWeights(directory));
  if (weights === null) return;
  try {
    const parts = role === "ar" ? { finalNorm: false, head: false } : {};
    const wanted = parameterShapes(config, parts);
    const { weightPrefix: prefix } = config;
    for (const [bare, shape] of wanted) {
      const entry = weights.entries.get(prefix + bare);
      if (entry !== undefined && formatShape(entry.shape) === formatShape(shape)) continue;
      findings.add("error", {
        code: "model.weights",
        subject: `${weights.path}, tensor ${prefix}${bare}`,
        found: entry === undefined ? "no such tensor" : `the shape ${formatShape(entry.shape)}`,
        wanted: `the shape ${formatShape(shape)} that config.json asks for`,
        next: "config.json and the weights must be of the same model.",
      });
    }
    await findings.of(() => checkDummies(config, weights, parts));
    for (const [name, { dtype }] of weights.entries) {
      const bare = name.startsWith(prefix) ? name.slice(prefix.length) : null;
      if (bare === null) continue; // another tower's
      if (isDummy(bare, parts)) continue;
      const known = wanted.has(bare) || IGNORED.test(bare) || (config.tied && bare === HEAD);
      if (!known) {
        findings.add("error", {
          code: "check.extra-tensor",
          subject: `${weights.path}, tensor ${name}`,
          found: "a tensor that config.json does not account for",
          wanted: `the tensors of ${config.layers} blocks${role === "ar" ? " without last norm and head" : ""}`,
          next: "It would be left out silently elsewhere: check num_hidden_layers and the sidecar's role.",
        });
      } else if (!FLOATS.has(dtype)) {
        findings.add("error", {
          code: "check.dtype",
          subject: `${weights.path}, tensor ${name}`,
          found: dtype,
          wanted: [...FLOATS].join(", "),
          next: "Convert the weights.",
        });
      } else await checkValues(weights, name, bare === EMBEDDING, findings);
    }
  } finally {
    await weights.close();
  }
}

async function checkValues(
  weights: WeightsFile,
  name: string,
  zeroRows: boolean,
  findings: Findings,
): Promise<void> {
  const values = await findings.of(() => weights.readF32(name));
  if (values === null) return;
  const at = values.findIndex((value) => !Number.isFinite(value));
  const subject = `${weights.path}, tensor ${name}`;
  if (at >= 0) {
    findings.add("error", {
      code: "model.not-finite",
      subject,
      found: `${values[at]} at element ${at}`,
      wanted: "finite numbers",
      next: "The training diverged or the file is damaged: download it again, or take an earlier checkpoint.",
    });
  } else if (!zeroRows && /(proj|embed_tokens|lm_head)\.weight$/.test(name) && values.every((v) => v === 0)) {
    findings.add("warning", {
      code: "check.all-zero",
      subject,
      found: "zeros only",
      wanted: "trained numbers",
      next: "The tensor was probably never written.",
    });
  }
}

async function checkHead(file: string, dim: number, findings: Findings): Promise<void> {
  const weights = await findings.of(() => openSafetensors(file));
  if (weights === null) return;
  try {
    const entry = weights.entries.get("weight");
    const wanted = `[${dim}, ${dim}]`;
    if (entry === undefined || entry.shape.join() !== `${dim},${dim}`) {
      findings.add("error", {
        code: "contract.value-head",
        subject: file,
        found: entry
          ? `a matrix ${formatShape(entry.shape)}`
          : `tensors ${[...weights.entries.keys()].join(", ")}`,
        wanted: `a tensor "weight" of ${wanted}`,
        next: "The file must be of the same checkpoint as the model beside it.",
      });
    } else await checkValues(weights, "weight", true, findings);
  } finally {
    await weights.close();
  }
}

// Beside a single file the index is not read here, but the reference's embedding loader reads it first.
async function checkIndex(directory: string, findings: Findings): Promise<void> {
  const file = path.join(directory, INDEX);
  if (!(await exists(file))) return;
  let shards: string[] = [];
  try {
    const { weight_map: map } = JSON.parse(await readFile(file, "utf8")) as { weight_map?: object };
    shards = [...new Set(Object.values(map ?? {}) as string[])];
  } catch (thrown) {
    findings.add("error", {
      code: "safetensors.index",
      subject: file,
      found: messageOf(thrown),
      wanted: "a JSON object with weight_map",
      next: "Download it again.",
    });
  }
  for (const shard of shards) {
    if (typeof shard === "string" && (await exists(path.join(directory, shard)))) continue;
    const known = findings.list.some(
      ({ code, found }) => code === "safetensors.shard-missing" && found.includes(shard),
    );
    if (known) continue;
    findings.add("error", {
      code: "safetensors.shard-missing",
      subject: file,
      found: `the shard ${String(shard)}, which is not there`,
      wanted: "every file that the index names",
      next: "Download the missing file, or remove the index if model.safetensors is whole.",
    });
  }
}

/** Its size against the embedding's rows, and BOS. */
export function checkTokenizer(
  places: { readonly model: string; readonly tokenizer: string },
  tokenizer: Tokenizer,
  config: DecoderConfig | null,
  findings: Findings,
): void {
  if (config !== null && tokenizer.size > config.vocabulary) {
    findings.add("error", {
      code: "contract.vocabulary",
      subject: places.model,
      found: `a tokenizer of ${tokenizer.size} ids`,
      wanted: `at most ${config.vocabulary}, the rows of the model's embedding`,
      next: "Use the tokenizer that belongs to the model.",
    });
  }
  // Gemma without BOS gives a third of the fidelity (nla-facts, trap 3); Llama 3 was never trained without it.
  const needsBos = config !== null && /^(gemma|llama)/.test(config.family) && tokenizer.bosId !== null;
  if (needsBos && tokenizer.encode("a", { addSpecialTokens: true })[0] !== tokenizer.bosId) {
    findings.add("error", {
      code: "check.bos",
      subject: places.tokenizer,
      found: `a text that begins with token ${tokenizer.encode("a", { addSpecialTokens: true })[0]}`,
      wanted: `BOS (${tokenizer.bosId}) first, as ${config.family} models are trained`,
      next: "Take the post-processor of the base model's tokenizer.json; the reconstructor's fidelity falls by half without BOS.",
    });
  }
}

async function checkPadding(file: string, findings: Findings): Promise<void> {
  if (!(await exists(file))) return;
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
  } catch (thrown) {
    if (thrown instanceof SyntaxError) return; // the tokenizer's own finding
    throw thrown;
  }
  if (json["padding_side"] !== "left") return;
  findings.add("warning", {
    code: "check.padding-side",
    subject: `${file}: padding_side`,
    found: '"left"',
    wanted: '"right": programs that count the mask would read a reconstructor at the wrong token',
    next: "Set it to right (--fix does it; nlakit itself does not read it).",
    fix: () => writeFileAtomic(file, `${JSON.stringify({ ...json, padding_side: "right" }, null, 2)}\n`),
  });
}
