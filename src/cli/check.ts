// `nla check`: everything that is wrong with a sidecar, data file, checkpoint or run folder. The rules are in check/; here they are
// printed, and mended where that is safe.
import { checkPath } from "../check/check-path.js";
import type { Checked } from "../check/check-path.js";
import type { Finding, Note } from "../check/finding.js";
import { localFolder } from "./hub-names.js";
import { EXIT_CODES, wantsColour } from "./output.js";
import type { CommandContext, CommandEntry } from "./program.js";
import { printable, wrap } from "./table.js";

const WIDTH = 110;
const INDENT = " ".repeat(9);

function render({ kind, path, checked, findings, notes }: Checked, mended: number, colour: boolean): string {
  const paint = (text: string, code: number) => (colour ? `\u001B[${code}m${text}\u001B[0m` : text);
  const parts = findings.map(({ severity, code, subject, found, wanted, next, fix }) => {
    const head = `${paint(severity.padEnd(8), severity === "error" ? 31 : 33)} ${printable(subject)} (${code})`;
    const lines = [
      ["found", found],
      ["wanted", wanted],
      ["next", fix === null ? next : `${next} [--fix]`],
    ].map(([name, text]) => {
      const wrapped = wrap(printable(text as string), WIDTH - INDENT.length - 8).join(`\n${INDENT}        `);
      return `${INDENT}${(name as string).padEnd(7)} ${wrapped}\n`;
    });
    return `${head}\n${lines.join("")}`;
  });
  parts.push(...notes.map((each) => renderNote(each)));
  const errors = findings.filter(({ severity }) => severity === "error").length;
  const counts = `${errors} errors, ${findings.length - errors} warnings`;
  const what = `${kind} ${path}: ${checked.length} checked, ${findings.length === 0 ? "nothing found" : counts}`;
  return `${parts.join("\n")}${parts.length > 0 ? "\n" : ""}${what}${mended > 0 ? `; ${mended} mended before` : ""}\n`;
}

function renderNote({ code, subject, found, next }: Note): string {
  const lines = [found, next].flatMap((text) => wrap(printable(text), WIDTH - INDENT.length));
  return `note     ${printable(subject)} (${code})\n${lines.map((line) => `${INDENT}${line}\n`).join("")}`;
}

/** Mends what can be mended; how many were. */
async function mend(findings: readonly Finding[]): Promise<number> {
  let mended = 0;
  for (const { fix } of findings) {
    if (fix === null) continue;
    await fix();
    mended++;
  }
  return mended;
}

/** The `check` command. */
export const checkCommand: CommandEntry = {
  name: "check",
  summary: "look for faults in a sidecar, data file, checkpoint or run folder",
  arguments: [{ name: "<path>", description: "what to check" }],
  options: [
    { flags: "--fix", description: "mend what can be mended without losing anything, then check again" },
    {
      flags: "--tokenizer <dir>",
      hub: "folder",
      description: "compare data files and lone sidecars with this tokenizer; checkpoints have their own",
    },
  ],
  examples: [
    { command: "nla check runs/quickstart", does: "the pair and all data files of a run" },
    { command: "nla check av --fix --json", does: "a checkpoint, for a program" },
  ],
  jsonHelp:
    "{path, kind, checked, mended, findings: [...], notes: [...]}; exit code 1 if a finding is an error",
  action: async ([argument], options, context: CommandContext) => {
    const { stdout, env, json } = context;
    const { fix = false, tokenizer } = options as { readonly fix?: boolean; readonly tokenizer?: string };
    const target = await localFolder(argument as string, context);
    const settings = tokenizer === undefined ? {} : { tokenizer };
    let checked = await checkPath(target, settings);
    const mended = fix ? await mend(checked.findings) : 0;
    if (mended > 0) checked = await checkPath(target, settings);
    if (json) {
      const findings = checked.findings.map(({ fix: mends, ...facts }) => ({
        ...facts,
        fixable: mends !== null,
      }));
      stdout.write(`${JSON.stringify({ ...checked, mended, findings })}\n`);
    } else stdout.write(render(checked, mended, wantsColour(stdout, env)));
    const failed = checked.findings.some(({ severity }) => severity === "error");
    return failed ? EXIT_CODES.failed : EXIT_CODES.ok;
  },
};
