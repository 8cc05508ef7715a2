// `nla conformance DIR`: compares what a model computes here with the golden values in a folder, or makes such a folder. Thin:
// the checks are model/conformance.ts.
import { conformance, HOLDINGS, writeGolden } from "../model/index.js";
import type { Check, ConformanceReport, Holding } from "../model/index.js";
import { deviceFor } from "./device-for.js";
import { EXIT_CODES } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandEntry } from "./program.js";
import { parseHolding } from "./quantize.js";
import { table } from "./table.js";

interface Flags {
  readonly model?: string;
  readonly write?: boolean;
  readonly threads?: number;
  readonly quantize?: Holding;
}

function number(value: number): string {
  return value === 0 ? "0" : value.toExponential(1);
}

function row({ check, measure, error, bound, passed, compared, worst }: Check): string[] {
  const where = compared === 1 ? worst : `${worst}, of ${compared}`;
  return [check, number(error), number(bound), measure, passed ? "pass" : "FAIL", where];
}

/** The report as a table with a line of judgement under it. */
export function renderConformance({ checks, absent, passed, ...about }: ConformanceReport): string {
  const columns = [
    { header: "check" },
    { header: "error", align: "right" as const },
    { header: "bound", align: "right" as const },
    { header: "measure" },
    { header: "" },
    { header: "largest at", maxWidth: 60 },
  ];
  const failed = checks.filter((check) => !check.passed).length;
  const lines = [
    `${about.directory}: ${about.family}, native kernels ${about.kernels ? "on" : "off"}`,
    "",
    table(columns, checks.map(row)),
    "",
    ...(absent.length > 0 ? [`Not checked, because the folder has no values: ${absent.join("; ")}.`] : []),
    passed ? `All ${checks.length} checks pass.` : `${failed} of ${checks.length} checks fail.`,
  ];
  return `${lines.join("\n")}\n`;
}

/** The report for JSON, in which there is no NaN and no infinity: such an error is text. */
function toJson({ checks, ...rest }: ConformanceReport): object {
  const written = checks.map((check) => {
    return { ...check, error: Number.isFinite(check.error) ? check.error : String(check.error) };
  });
  return { ...rest, checks: written };
}

/** The table entry of `nla conformance`. */
export const conformanceCommand: CommandEntry = {
  name: "conformance",
  summary: "compare what a model computes with golden values made elsewhere",
  arguments: [{ name: "<dir>", description: "a folder with golden.json and golden.safetensors" }],
  examples: [
    {
      command: "nla conformance golden/qwen2",
      does: "a table of errors and bounds; exit code 0 only if all pass",
    },
    { command: "nla conformance my-model --write", does: "make golden values of a model, by nlakit itself" },
  ],
  options: [
    {
      flags: "--model <dir>",
      hub: "folder",
      description:
        "the model, a folder or .gguf file (default: the one in the folder, or that golden.json names)",
    },
    {
      flags: "--write",
      description: "compute golden values for the model in the folder and write them there",
    },
    {
      flags: "--quantize <type>",
      description: `hold the matrices as ${HOLDINGS.join(", ")} and allow for it (default: f32)`,
      parse: parseHolding,
    },
    {
      flags: "--threads <n>",
      description: "CPU threads (default: by the model)",
      parse: wholeNumber("--threads", 1),
    },
  ],
  jsonHelp: "print the checks as JSON",
  action: async ([dir], options, { json, stdout, stderr, signal }) => {
    const directory = dir as string;
    const { model = null, write = false, threads, quantize } = options as Flags;
    using device = await deviceFor([model ?? directory], { threads });
    if (write) {
      await writeGolden(directory, device, { signal });
      stderr.write(`Golden values written into ${directory}; now compared with a second computation.\n`);
    }
    const report = await conformance(directory, device, { model, holding: quantize, signal });
    stdout.write(json ? `${JSON.stringify(toJson(report), null, 2)}\n` : renderConformance(report));
    return report.passed ? EXIT_CODES.ok : EXIT_CODES.failed;
  },
};
