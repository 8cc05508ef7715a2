// What `nla COMMAND --json` must print for bad input: one object with the four facts that a reader needs, and no stack.
import { expect } from "vitest";
import type { Ended } from "./built-command.js";

type Expected = string | RegExp;

/** The error that is expected; a text is the whole part, a pattern some of it. */
export interface ErrorShape {
  /** Exit code. Defaults to 1. */
  readonly exit?: 1 | 2;
  readonly code: Expected;
  readonly subject?: Expected;
  readonly found: Expected;
  readonly wanted: Expected;
  readonly next?: Expected;
}

/** Checks how a command with --json ended. */
export function expectError({ code, stdout, stderr }: Ended, { exit = 1, ...shape }: ErrorShape): void {
  expect({ code, stdout, stderr }).toMatchObject({ code: exit });
  const { error } = JSON.parse(stdout) as { error: Record<string, string> };
  // Nothing else: an unexpected error would have a stack too.
  expect(Object.keys(error)).toEqual(["code", "subject", "found", "wanted", "next"]);
  for (const part of ["subject", "found", "wanted", "next"]) expect(error[part], part).toMatch(/\S/);
  for (const [part, expected] of Object.entries(shape) as [string, Expected][]) {
    if (typeof expected === "string") expect(error[part], part).toBe(expected);
    else expect(error[part], part).toMatch(expected);
  }
  expect(stderr).not.toMatch(/^\s+at /m);
}
