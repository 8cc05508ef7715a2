// The command line as a value: a table of commands in, one function from arguments to exit code out. A command is one file
// that exports one entry of the table; nothing here knows what any of them does.
import { Command, CommanderError, Option } from "commander";
import { localFolder } from "./hub-names.js";
import { EXIT_CODES, reportError, UsageError } from "./output.js";
import type { CliStreams } from "./output.js";
import { listenForInterrupt } from "./signal.js";
import type { SignalSource } from "./signal.js";

/** What a command's action gets besides its arguments and options. */
export interface CommandContext extends CliStreams {
  /** Aborted by Ctrl-C; every long operation takes it. */
  readonly signal: AbortSignal;
  /** `--json` was given. */
  readonly json: boolean;
}

/** An action: positional arguments, options by their camelCase names, context. What it returns is the exit code, 0 if nothing. */
export type CommandAction = (
  positional: readonly (string | readonly string[] | undefined)[],
  options: Readonly<Record<string, unknown>>,
  context: CommandContext,
) => Promise<number | void>;

/** One option, in commander's syntax. */
export interface CommandOption {
  /** `--run <dir>`, `--set <key=value...>`, `--threads <n>`. */
  readonly flags: string;
  readonly description: string;
  readonly default?: string | number | boolean;
  readonly choices?: readonly string[];
  readonly required?: boolean;
  /**
   * The value may be a name of the hub, which is downloaded before the action runs: `name` leaves it as it is (the model that data came
   * from keeps its name), `folder` makes it the path of the files.
   */
  readonly hub?: "name" | "folder";
  /** Turns the text into a value; throws a {@link UsageError} for a bad one. */
  readonly parse?: (text: string, previous: unknown) => unknown;
}

/** A command of the table. `--json` and `--help` need no mention. */
export interface CommandEntry {
  readonly name: string;
  readonly summary: string;
  /** Shown under the options: a command that works as it stands, with what it does. */
  readonly examples: readonly { readonly command: string; readonly does: string }[];
  readonly arguments?: readonly { readonly name: string; readonly description: string }[];
  readonly options?: readonly CommandOption[];
  /** What `--json` gives, in a few words. Defaults to "print JSON". */
  readonly jsonHelp?: string;
  /** A command either acts or has commands under it (`nla data extract`). */
  readonly action?: CommandAction;
  readonly commands?: readonly CommandEntry[];
}

/** What {@link runCli} needs of the outside. */
export interface CliOptions {
  readonly version: string;
  readonly streams: CliStreams;
  /** Defaults to `process`. */
  readonly signals?: SignalSource;
}

/** An option parser for whole numbers from `minimum`. */
export function wholeNumber(name: string, minimum = 0): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= minimum) return value;
    throw new UsageError({
      code: "cli.option",
      subject: name,
      found: JSON.stringify(text),
      wanted: `a whole number of at least ${minimum}`,
      next: "Give the number alone, without units or separators.",
    });
  };
}

// Commander's own errors, in the form that all our errors have.
function usageError(thrown: CommanderError, path: string): UsageError {
  const message = thrown.message.replace(/^error: /, "").trim();
  const [found = message, ...hint] = message.split("\n");
  return new UsageError({
    code: thrown.code.replace(/^commander\./, "cli."),
    subject: path,
    found,
    wanted: "a command line that `--help` describes",
    next: [...hint, `Run \`${path} --help\`.`].join(" ").trim(),
  });
}

function option({
  flags,
  description,
  default: value,
  choices,
  required = false,
  parse,
}: CommandOption): Option {
  const made = new Option(flags, description);
  if (value !== undefined) made.default(value);
  if (choices) made.choices(choices);
  if (required) made.makeOptionMandatory();
  if (parse) made.argParser(parse);
  return made;
}

type Run = (entry: CommandEntry, command: Command) => Promise<void>;

/** The options with hub names downloaded. */
async function withHubNames(
  { options = [] }: CommandEntry,
  values: Readonly<Record<string, unknown>>,
  context: CommandContext,
): Promise<Record<string, unknown>> {
  const resolved: Record<string, unknown> = { ...values };
  for (const each of options) {
    const key = option(each).attributeName();
    const value = resolved[key];
    if (each.hub === undefined || typeof value !== "string") continue;
    const folder = await localFolder(value, context);
    if (each.hub === "folder") resolved[key] = folder;
  }
  return resolved;
}

function register(parent: Command, entry: CommandEntry, path: string, run: Run): void {
  const command = parent.command(entry.name).summary(entry.summary).description(entry.summary);
  const own = `${path} ${entry.name}`;
  for (const argument of entry.arguments ?? []) command.argument(argument.name, argument.description);
  for (const each of entry.options ?? []) command.addOption(option(each));
  const { action } = entry;
  if (action) {
    command.option("--json", entry.jsonHelp ?? "print JSON");
    command.action(() => run(entry, command));
  }
  const width = Math.max(...entry.examples.map((each) => each.command.length));
  const examples = entry.examples.map((each) => `  ${each.command.padEnd(width)}  ${each.does}`);
  command.addHelpText("after", `\nExamples:\n${examples.join("\n")}`);
  for (const each of entry.commands ?? []) register(command, each, own, run);
}

function commandPath(command: Command): string {
  return command.parent ? `${commandPath(command.parent)} ${command.name()}` : command.name();
}

// Commander stops at the first thing it cannot understand, so the command that it happened in is found by its name.
function deepest(program: Command, args: readonly string[]): Command {
  let command = program;
  for (const word of args) {
    const next = command.commands.find((each) => each.name() === word);
    if (next === undefined) break;
    command = next;
  }
  return command;
}

/**
 * Runs `nla` with `args` (without node and script) and returns the exit code; it never throws and never exits.
 *
 * 0 well, 1 an error, 2 a mistake in the command line, 130 after Ctrl-C.
 */
export async function runCli(
  args: readonly string[],
  commands: readonly CommandEntry[],
  { version, streams, signals = process }: CliOptions,
): Promise<number> {
  const { stdout, stderr } = streams;
  const program = new Command("nla");
  let code: number = EXIT_CODES.ok;
  program
    .description("Reads what a language model is thinking: trains and runs Natural Language Autoencoders.")
    .version(version, "-V, --version", "print the version")
    .helpOption("-h, --help", "show this help")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void stdout.write(text),
      writeErr: () => undefined, // its errors are thrown as well and printed once, in our form
      getOutHelpWidth: () => stdout.columns ?? 100,
    })
    .showSuggestionAfterError(true);
  const json = args.slice(0, args.includes("--") ? args.indexOf("--") : undefined).includes("--json");
  const run: Run = async (entry, command) => {
    using interruption = listenForInterrupt({
      source: signals,
      onFirst: () => void stderr.write("\nstopping; press Ctrl-C again to stop at once\n"),
    });
    const { signal } = interruption;
    const context: CommandContext = { ...streams, signal, json };
    const values = await withHubNames(entry, command.opts(), context);
    code = (await entry.action?.(command.processedArgs, values, context)) ?? EXIT_CODES.ok;
  };
  for (const entry of commands) register(program, entry, "nla", run);
  try {
    if (args.length === 0) {
      stdout.write(program.helpInformation());
      return EXIT_CODES.ok;
    }
    await program.parseAsync([...args], { from: "user" });
    return code;
  } catch (thrown) {
    if (!(thrown instanceof CommanderError)) return reportError(thrown, streams, { json });
    if (thrown.exitCode === 0) return EXIT_CODES.ok; // help or version was asked for
    const command = deepest(program, args);
    // A command that only has commands under it prints its help when it is named alone; that is a mistake too.
    if (thrown.code === "commander.help") {
      stderr.write(command.helpInformation());
      return EXIT_CODES.usage;
    }
    return reportError(usageError(thrown, commandPath(command)), streams, { json });
  }
}
