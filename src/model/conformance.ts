// Does a model compute here what it computed elsewhere? Each check compares one kind of value with those of a golden folder:
// hidden states, logits, padding, injection, greedy tokens, loss, gradients, optimizer steps. The tests of nlakit and `nla
// conformance` are both this file.
import path from "node:path";
import type { Device, Dtype } from "../tensor/index.js";
import { loadDecoder, openModelWeights } from "./checkpoint.js";
import { Findings } from "./conformance-findings.js";
import type { Check, Subject } from "./conformance-findings.js";
import {
  checkBatching,
  checkConfigs,
  checkGreedy,
  checkInjection,
  checkMerged,
  checkNll,
  checkStates,
  checkUnpacked,
} from "./conformance-checks.js";
import { checkTraining } from "./conformance-training.js";
import { ggufFilesOf, goldenError, isThere, openGoldenFolder } from "./golden-folder.js";
import type { GgufValues } from "./golden-folder.js";
import { parameterShapes } from "./parameters.js";
import type { Holding } from "./storage.js";
import { isGguf, storedTypes } from "./weight-source.js";

/** What {@link conformance} found. */
export interface ConformanceReport {
  readonly directory: string;
  readonly model: string;
  readonly family: string;
  readonly kernels: boolean;
  readonly checks: readonly Check[];
  /** Checks for which the folder holds no values: not made, and so not passed. */
  readonly absent: readonly string[];
  readonly passed: boolean;
}

/** Options of {@link conformance}. */
export interface ConformanceOptions {
  /** The folder or GGUF file of the model, where it is not the one that the golden folder names. */
  readonly model?: string | null;
  /** How matrices are held. Defaults to f32: bounds are wider otherwise, and nothing is trained. */
  readonly holding?: Holding | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onCheck?: (check: Check) => void;
}

/**
 * How far hidden states and logits may be from those of the unrounded matrices: about twice what the golden families show, whose
 * matrices are large. Within it nothing is broken; that the mathematics is right is what f32 shows.
 */
// prettier-ignore
const ROUNDED: Readonly<Partial<Record<Dtype, number>>> = {
  f16: 4e-3, bf16: 4e-2, q8_0: 1e-1, q6_k: 2e-1, q5_k: 3e-1, q5_1: 3e-1, q5_0: 3e-1, q4_k: 5e-1, q4_1: 5e-1, q4_0: 5e-1,
};

/**
 * Makes every check that a golden folder has values for, in f32 unless asked for otherwise. A folder of GGUF files has its values by
 * type: each file is checked with its matrices unpacked to f32, to the same bounds, and held as they are stored, to what its
 * golden.json says that rounding does.
 *
 * @throws NlaError `model.golden` where the folder is of another format or has no values at all; those of the loaders
 */
export async function conformance(
  directory: string,
  device: Device,
  { model = null, holding = "f32", signal, onCheck = () => undefined }: ConformanceOptions = {},
): Promise<ConformanceReport> {
  const findings = new Findings(onCheck);
  const files = model === null ? await ggufFilesOf(directory) : [];
  const about =
    files.length > 0
      ? await checkFiles(directory, files, device, findings, signal)
      : await checkModel(directory, device, findings, { model, holding, signal });
  const { checks, absent } = findings;
  if (checks.length === 0) throw goldenError(directory, "no values that could be checked", "some");
  return {
    directory,
    ...about,
    kernels: device.kernels !== null,
    checks,
    absent,
    passed: checks.every(({ passed }) => passed),
  };
}

type About = Pick<ConformanceReport, "model" | "family">;

async function checkModel(
  directory: string,
  device: Device,
  findings: Findings,
  {
    model: place,
    holding,
    signal,
  }: { model: string | null; holding: Holding; signal: AbortSignal | undefined },
): Promise<About> {
  const golden = await openGoldenFolder(directory, place);
  try {
    const types = isGguf(golden.model) ? await typesAnew(golden.model, directory) : [];
    using model = await loadDecoder(golden.model, device, {}, holding);
    const held = [...model.parameters.tensors.values()].map(({ dtype }) => dtype);
    const bound = Math.max(...[...types, ...held].map((type) => ROUNDED[type] ?? 0));
    const subject: Subject = { device, model, golden, signal, ...(bound > 0 ? { bound } : {}) };
    await checkStates(subject, findings);
    if (holding === "f32") await checkBatching(subject, findings); // blocks of activations depend on the number of rows
    await checkInjection(subject, findings);
    if (bound === 0) {
      await checkGreedy(subject, findings);
      await checkNll(subject, findings);
      await checkTraining(subject, findings);
      if (!isGguf(golden.model)) await checkConfigs(subject, findings);
      await checkMerged(subject, findings); // last: it changes the model
    }
    return { model: golden.model, family: model.config.family };
  } finally {
    await golden.close();
  }
}

/** The types in a GGUF file that the golden folder's own weights do not have: to those its matrices were rounded. */
async function typesAnew(file: string, directory: string): Promise<Dtype[]> {
  const types = await storedTypes(file);
  if (!(await isThere(path.join(directory, "config.json")))) return types;
  const own = await openModelWeights(directory);
  try {
    const known = new Set([...parameterShapes(own.config).keys()].map((name) => own.stored(name).dtype));
    return types.filter((type) => !known.has(type));
  } finally {
    await own.close();
  }
}

async function checkFiles(
  directory: string,
  files: readonly GgufValues[],
  device: Device,
  findings: Findings,
  signal: AbortSignal | undefined,
): Promise<About> {
  let family = "";
  for (const { file, type, rounding } of files) {
    const golden = await openGoldenFolder(directory, file, type);
    try {
      using unpacked = await loadDecoder(file, device, {}, "f32");
      const subject: Subject = { device, model: unpacked, golden, signal };
      const named = findings.under(`${type} as f32`);
      await checkUnpacked(subject, named);
      await checkStates(subject, named);
      await checkBatching(subject, named);
      await checkGreedy(subject, named);
      using stored = await loadDecoder(file, device, {}, "stored");
      await checkStates({ ...subject, model: stored, bound: rounding }, findings.under(`${type} as stored`));
      family = unpacked.config.family;
    } finally {
      await golden.close();
    }
  }
  return { model: files.map(({ file }) => path.basename(file)).join(", "), family };
}
