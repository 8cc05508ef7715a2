// The command line from arguments to exit code: help, usage errors, named and unexpected errors, --json, Ctrl-C.
import path from "node:path";
import { describe, expect, it } from "vitest";
import { writeFileAtomic } from "../data/files.js";
import { NlaError } from "../error.js";
import { UsageError } from "./output.js";
import { runCli, wholeNumber } from "./program.js";
import type { CommandAction, CommandEntry } from "./program.js";
import type { SignalSource } from "./signal.js";

const fault = new NlaError({
  code: "safetensors.truncated",
  subject: "model.safetensors",
  found: "4,096 bytes",
  wanted: "9,214",
  next: "Download it again.",
});

/** A process made of variables: SIGINT comes when `interrupt` is called. */
function shell(): { source: SignalSource; interrupt: () => void; exits: number[]; listeners: () => number } {
  const listeners = new Set<() => void>();
  const exits: number[] = [];
  return {
    source: {
      on: (_, listener) => listeners.add(listener),
      off: (_, listener) => listeners.delete(listener),
      exit: (code) => exits.push(code),
    },
    interrupt: () => listeners.forEach((listener) => listener()),
    exits,
    listeners: () => listeners.size,
  };
}

async function nla(
  args: string[],
  action: CommandAction = async () => undefined,
  { tty = false, env = {} } = {},
) {
  const process = shell();
  const text = { out: "", err: "" };
  const read: CommandEntry = {
    name: "read",
    summary: "read a file",
    arguments: [{ name: "<file>", description: "what to read" }],
    options: [
      { flags: "--threads <n>", description: "CPU threads", default: 2, parse: wholeNumber("--threads", 1) },
      { flags: "--compute <type>", description: "precision", choices: ["f32", "bf16"] },
    ],
    examples: [{ command: "nla read a.txt", does: "reads it" }],
    action,
  };
  const data: CommandEntry = {
    name: "data",
    summary: "the stages",
    examples: [{ command: "nla data show a.parquet", does: "prints rows" }],
    commands: [
      {
        name: "show",
        summary: "print rows",
        examples: [{ command: "nla data show a.parquet", does: "prints rows" }],
        action,
      },
    ],
  };
  const code = await runCli(args, [read, data], {
    version: "1.2.3",
    signals: process.source,
    streams: {
      stdout: { write: (more) => void (text.out += more) },
      stderr: { write: (more) => void (text.err += more), isTTY: tty },
      env,
    },
  });
  return { code, ...text, process };
}

describe("what was asked for", () => {
  it("reaches the action", async () => {
    let seen: unknown;
    const { code, out, err } = await nla(
      ["read", "a.txt", "--threads", "4", "--json"],
      async (positional, options, context) => {
        seen = { positional, options, json: context.json, aborted: context.signal.aborted };
        context.stdout.write("hello");
      },
    );
    expect(seen).toEqual({
      positional: ["a.txt"],
      options: { threads: 4, json: true },
      json: true,
      aborted: false,
    });
    expect({ code, out, err }).toEqual({ code: 0, out: "hello", err: "" });
  });

  it("sets the exit code", async () => {
    expect((await nla(["read", "a"], async () => 1)).code).toBe(1);
  });

  it.each([[["--version"]], [["-V"]]])("prints the version (%j)", async (args) => {
    expect(await nla(args)).toMatchObject({ code: 0, out: "1.2.3\n", err: "" });
  });

  it.each([[[]], [["--help"]], [["help"]]])("lists the commands (%j)", async (args) => {
    const { code, out, err } = await nla(args);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/read .*read a file/);
    expect(out).toMatch(/data .*the stages/);
  });

  it.each([[["read", "--help"]], [["help", "read"]]])("shows help with an example (%j)", async (args) => {
    const { code, out } = await nla(args);
    expect(code).toBe(0);
    expect(out).toContain("Usage: nla read [options] <file>");
    expect(out).toContain("--json");
    expect(out).toContain("Examples:\n  nla read a.txt  reads it");
  });

  it("shows help deep in the tree", async () => {
    expect((await nla(["data", "show", "--help"])).out).toContain("nla data show a.parquet");
  });
});

describe("a mistake in the command line", () => {
  it.each([
    ["an unknown command", ["raed"], "unknown command 'raed'", "(Did you mean read?)", "nla --help"],
    [
      "an unknown option",
      ["read", "a", "--thread", "1"],
      "unknown option '--thread'",
      "(Did you mean --threads?)",
      "nla read --help",
    ],
    ["a missing argument", ["read"], "missing required argument 'file'", "", "nla read --help"],
    ["too many arguments", ["read", "a", "b"], "too many arguments", "", "nla read --help"],
    ["an option without its value", ["read", "a", "--threads"], "argument missing", "", "nla read --help"],
    [
      "a value that is no choice",
      ["read", "a", "--compute", "f16"],
      "Allowed choices are f32, bf16",
      "",
      "nla read --help",
    ],
    [
      "an unknown command under another",
      ["data", "shwo"],
      "unknown command 'shwo'",
      "(Did you mean show?)",
      "nla data --help",
    ],
  ])("%s", async (_, args, found, hint, help) => {
    const { code, out, err } = await nla(args);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(/^error {3}/);
    for (const text of [found, hint, help]) expect(err.replaceAll(/\s+/g, " ")).toContain(text);
  });

  it("is JSON with --json", async () => {
    const { code, out, err } = await nla(["read", "--json"]);
    expect({ code, err }).toEqual({ code: 2, err: "" });
    expect(JSON.parse(out)).toEqual({
      error: {
        code: "cli.missingArgument",
        subject: "nla read",
        found: "missing required argument 'file'",
        wanted: "a command line that `--help` describes",
        next: "Run `nla read --help`.",
      },
    });
  });

  it.each(["0", "-1", "2.5", "two", "", "1e3", "99999999999999999999"])(
    "refuses %j as a whole number",
    async (text) => {
      const { code, err } = await nla(["read", "a", `--threads=${text}`]);
      expect(code).toBe(2);
      expect(err).toContain("--threads");
      expect(err).toContain("a whole number of at least 1");
    },
  );

  it("is told too where a command only has commands under it", async () => {
    const { code, out, err } = await nla(["data"]);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toContain("show");
  });
});

async function failing(): Promise<void> {
  throw fault;
}
async function broken(): Promise<number> {
  return (undefined as unknown as { x: { y: number } }).x.y;
}
async function outOfReach(): Promise<void> {
  await writeFileAtomic(path.join(import.meta.dirname, "program.ts", "out.safetensors"), "x");
}
async function misused(): Promise<void> {
  throw new UsageError({ code: "cli.positions", subject: "--positions", found: "x", wanted: "y", next: "z" });
}

describe("an error", () => {
  it("is four labelled lines", async () => {
    expect(await nla(["read", "a"], failing)).toMatchObject({
      code: 1,
      out: "",
      err: "error   model.safetensors\nfound   4,096 bytes\nwanted  9,214\nnext    Download it again.\n",
    });
  });

  it("is coloured on a terminal only, and not with NO_COLOR", async () => {
    expect((await nla(["read", "a"], failing, { tty: true })).err).toContain("\u001B[31merror\u001B[0m");
    expect((await nla(["read", "a"], failing, { tty: true, env: { NO_COLOR: "1" } })).err).not.toContain(
      "\u001B",
    );
  });

  it("is one object on standard output with --json", async () => {
    const { code, out, err } = await nla(["read", "a", "--json"], failing);
    expect({ code, err }).toEqual({ code: 1, err: "" });
    expect(JSON.parse(out)).toEqual({ error: fault.toJSON() });
  });

  it("that is not ours shows its stack and asks for a report", async () => {
    const text = await nla(["read", "a"], broken);
    expect(text.code).toBe(1);
    expect(text.err).toMatch(/TypeError: .*\n\s+at .*program\.test/);
    expect(text.err).toContain("Please report it");
    const json = JSON.parse((await nla(["read", "a", "--json"], broken)).out) as {
      error: Record<string, string>;
    };
    expect(json.error).toMatchObject({
      code: "unexpected",
      found: expect.stringContaining("undefined"),
      stack: expect.any(String),
    });
  });

  it("of the system about a path is the user's to mend, and names no temporary file", async () => {
    const { code, out } = await nla(["read", "a", "--json"], outOfReach);
    const { error } = JSON.parse(out) as { error: Record<string, string> };
    expect({ code, keys: Object.keys(error) }).toEqual({
      code: 1,
      keys: ["code", "subject", "found", "wanted", "next"],
    });
    expect(error.code).toMatch(/^system\.e(notdir|noent)$/); // the second on Windows
    expect(error.subject).toMatch(/program\.ts[/\\]out\.safetensors$/);
    expect(error.found).not.toContain("nla-new");
  });

  it("from an option's parser keeps its exit code", async () => {
    expect((await nla(["read", "a"], misused)).code).toBe(2);
  });
});

// The command waits for its signal as training does, and the shell sends SIGINT in between.
async function interrupted(times: number, args: string[], onAbort: () => unknown = () => undefined) {
  const process = shell();
  const text = { out: "", err: "" };
  const action: CommandAction = async (_, __, { signal }) => {
    const waiting = new Promise((_resolve, reject) => {
      signal.addEventListener("abort", () => reject(onAbort() ?? signal.reason));
    });
    for (let i = 0; i < times; i++) process.interrupt();
    await waiting;
  };
  const code = await runCli(args, [{ name: "train", summary: "s", examples: [], action }], {
    version: "1",
    signals: process.source,
    streams: {
      stdout: { write: (more) => void (text.out += more) },
      stderr: { write: (more) => void (text.err += more) },
      env: {},
    },
  });
  return { code, ...text, exits: process.exits, listeners: process.listeners() };
}

describe("Ctrl-C", () => {
  it("aborts the signal; the command ends with 130 and listens no more", async () => {
    const ended = await interrupted(1, ["train"]);
    expect(ended).toMatchObject({ code: 130, out: "", exits: [], listeners: 0 });
    expect(ended.err).toBe("\nstopping; press Ctrl-C again to stop at once\nstopped\n");
  });

  it("ends the process at once the second time", async () => {
    expect((await interrupted(2, ["train"])).exits).toEqual([130]);
  });

  it("is JSON with --json", async () => {
    const { out } = await interrupted(1, ["train", "--json"]);
    expect(JSON.parse(out)).toMatchObject({ error: { code: "cli.interrupted" } });
  });

  it("does not hide an error that comes while saving", async () => {
    const ended = await interrupted(1, ["train"], () => fault);
    expect(ended.code).toBe(1);
    expect(ended.err).toContain("model.safetensors");
  });
});

it("accepts an entry without examples", async () => {
  const entry: CommandEntry = { name: "a", summary: "b", examples: [], action: async () => undefined };
  const streams = { stdout: { write: () => undefined }, stderr: { write: () => undefined }, env: {} };
  expect(await runCli(["a"], [entry], { version: "1", streams, signals: shell().source })).toBe(0);
});
