// The table of commands, in the order in which `nla --help` lists them. A new command is a file beside this one and a line here.
import { createRequire } from "node:module";
import { describeEngine } from "../engine/index.js";
import { benchCommand } from "./bench.js";
import { checkCommand } from "./check.js";
import { conformanceCommand } from "./conformance.js";
import { convertCommand } from "./convert.js";
import { dataCommand } from "./data.js";
import { doctorCommand } from "./doctor.js";
import { evalCommand } from "./eval.js";
import { explainCommand } from "./explain.js";
import { forwardCommand } from "./forward.js";
import { probeCommand } from "./probe.js";
import type { CommandEntry } from "./program.js";
import { pushCommand } from "./push.js";
import { quickstartCommand } from "./quickstart.js";
import { serveCommand } from "./serve.js";
import { trainCommand } from "./train.js";
import { worldCommand } from "./world.js";

// Two folders up from src/cli and from dist/cli alike.
const { version } = createRequire(import.meta.url)("../../package.json") as { version: string };

/** The version in package.json. */
export const VERSION: string = version;

/** Every command of `nla`. */
export const COMMANDS: readonly CommandEntry[] = [
  quickstartCommand,
  trainCommand,
  explainCommand,
  evalCommand,
  dataCommand,
  checkCommand,
  worldCommand,
  probeCommand,
  forwardCommand,
  conformanceCommand,
  convertCommand,
  serveCommand({ version }),
  pushCommand,
  benchCommand(),
  doctorCommand({ version, describeEngine }),
];
