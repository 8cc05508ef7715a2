// `nla doctor --nla DIR`: whether the activation reaches a verbalizer. Thin: what is done and judged is nla/injection-check.ts.
import { existsSync } from "node:fs";
import path from "node:path";
import { NlaError } from "../error.js";
import { loadNla, PAIR_FOLDERS } from "../nla/read.js";
import { judgeInjection, observeInjection } from "../nla/injection-check.js";
import type { InjectionFinding, InjectionObservations } from "../nla/injection-check.js";
import { activationsOf, loadTarget } from "../nla/target.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import { loadVerbalizer } from "../nla/pair-files.js";
import type { Device } from "../tensor/index.js";
import { PythonRandom } from "../data/python-random.js";
import { deviceFor, verbalizerFolders } from "./device-for.js";
import { printable, table, truncate, wrap } from "./table.js";
import type { CommandContext } from "./program.js";
import { bringTarget } from "./target-of.js";

/** What to examine. */
export interface NlaDoctorSettings {
  readonly nla: string;
  readonly ar?: string;
  /** Sidecars in the place of those that lie with the two. */
  readonly contract?: string;
  readonly arContract?: string;
  readonly model?: string;
  readonly threads?: number;
}

/** What was found, as `--json` prints it. */
export interface NlaDoctorReport {
  readonly nla: string;
  readonly injection: { readonly kind: string; readonly scale: number | null; readonly site: number };
  /** Where the vectors are from: a target's name, or null where they are made up. */
  readonly target: string | null;
  readonly findings: readonly InjectionFinding[];
  readonly responses: readonly string[];
  readonly without_vector: string;
  readonly ok: boolean;
}

// Short, and of different kinds, so that activations of their last tokens differ.
const TEXTS = [
  "Once upon a time there was a little dog",
  "The king is dead, and all the lords",
  "import numpy as np\nfor i in range(10",
  "Dear Sir, I regret to inform you that",
  "In 1969 two astronauts landed on the",
  "Mix the flour with butter and three",
  "Shall I compare thee to a summer's",
  "The patient was given a dose of",
];

/** Examines the injection of a pair, or of a verbalizer alone. */
export async function examineNla(
  settings: NlaDoctorSettings,
  context: Pick<CommandContext, "env" | "stderr" | "json" | "signal">,
): Promise<NlaDoctorReport> {
  const { nla: directory, ar, model, threads, contract, arContract } = settings;
  using device = await deviceFor(verbalizerFolders(directory), { threads });
  const whole = existsSync(path.join(directory, PAIR_FOLDERS.verbalizer));
  if (whole || ar !== undefined) {
    const places = { reconstructor: ar, contract, reconstructorContract: arContract };
    using pair = await loadNla(directory, device, places);
    return await examine(pair.verbalizer, pair.target);
  }
  const { model: alone, sidecar } = await loadVerbalizer(directory, device, { contract });
  using verbalizer = alone;
  return await examine(verbalizer, sidecar.baseCheckpoint);

  async function examine(of: Verbalizer, stated: string | null): Promise<NlaDoctorReport> {
    const target = await targetFor(model, stated, context);
    const vectors =
      target === null ? madeUp(of.contract.dim) : await activationsFor(target, of.contract.layer, device);
    const seen = await observeInjection(of, vectors, { signal: context.signal });
    return reportOf(directory, of, target, seen);
  }
}

/** The target, brought from the hub if the sidecar names one of it; null where only the sidecar names it and it cannot be had. */
async function targetFor(
  named: string | undefined,
  stated: string | null,
  context: Pick<CommandContext, "env" | "stderr" | "json" | "signal">,
): Promise<string | null> {
  try {
    return await bringTarget(named, stated, context);
  } catch (thrown) {
    // Made-up vectors do for whether injection works at all; the report says that they are.
    if (named !== undefined || !(thrown instanceof NlaError) || thrown.code !== "cli.target") throw thrown;
    return null;
  }
}

function reportOf(
  nla: string,
  { contract, prompt }: Verbalizer,
  target: string | null,
  seen: InjectionObservations,
): NlaDoctorReport {
  const findings = judgeInjection(seen);
  return {
    nla,
    injection: { ...contract.injection, site: prompt.site },
    target,
    findings,
    responses: seen.responses,
    without_vector: seen.withoutVector,
    ok: findings.every(({ passed }) => passed),
  };
}

async function activationsFor(name: string, layer: number, device: Device): Promise<Float32Array[]> {
  using target = await loadTarget(name, device);
  const { tokenizer, model } = target;
  const ids = TEXTS.map((text) => tokenizer.encode(text, { addSpecialTokens: true }));
  const { dim } = model.config;
  return (await activationsOf(target, layer, ids)).map((values) => values.slice(-dim));
}

/** Directions at random: they have no meaning, but one that reaches the model moves it. */
function madeUp(dim: number): Float32Array[] {
  const random = new PythonRandom(42);
  return TEXTS.map(() => Float32Array.from({ length: dim }, () => random.random() + random.random() - 1));
}

function line(name: string, text: string): string {
  return `  ${name}: ${truncate(printable(text.trim()), 90)}`;
}

/** The report as a page. */
export function renderNlaDoctor(report: NlaDoctorReport): string {
  const { injection, target, findings, responses } = report;
  const { kind, scale, site } = injection;
  const columns = [{ header: "check" }, { header: "" }, { header: "found" }];
  const rows = findings.map(({ check, found, passed }) => [check, passed ? "pass" : "FAIL", found]);
  const steps = new Set(findings.flatMap(({ next }) => (next === null ? [] : [next])));
  const parts = [
    `${report.nla}: ${kind}, scale ${scale ?? "the vector's own"}, at token ${site} of the prompt\n` +
      `vectors: ${target === null ? "made up, because the target is not here (--model names it)" : `activations of ${target}`}`,
    table(columns, rows),
    [
      "what is written",
      ...responses.slice(0, 3).map((text, i) => line(`vector ${i}`, text)),
      line("none", report.without_vector),
    ].join("\n"),
    ...[...steps].map((next) => wrap(`next: ${next}`, 100).join("\n  ")),
    report.ok ? "The activation reaches the verbalizer." : "Injection does not work as it should.",
  ];
  return `${parts.join("\n\n")}\n`;
}
