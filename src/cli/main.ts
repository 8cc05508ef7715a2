#!/usr/bin/env node
// The `nla` command: hands the process's arguments and streams to the program and its answer to the shell. Nothing else, so
// that everything else can be called by a test.
import { COMMANDS, VERSION } from "./commands.js";
import { runCli } from "./program.js";

// `nla data show | head` closes the pipe early; that is no fault of anybody.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

const { stdout, stderr, env } = process;
process.exitCode = await runCli(process.argv.slice(2), COMMANDS, {
  version: VERSION,
  streams: { stdout, stderr, env },
});
