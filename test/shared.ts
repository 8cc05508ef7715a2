// Where expected values made by other software lie: the whole set outside the package, in ../shared, or the small part of it
// that is in test/fixtures. A test that needs what is in neither skips with a printed reason.
import { existsSync } from "node:fs";
import path from "node:path";
import { describe, test } from "vitest";

const PLACES = [
  path.resolve(import.meta.dirname, "../../shared"),
  path.resolve(import.meta.dirname, "fixtures"),
];
const announced = new Set<string>();

/** The path of a file or folder of that set, or null (with the reason printed once) where it is absent. */
export function sharedPath(relative: string): string | null {
  const found = PLACES.map((place) => path.join(place, relative)).find((each) => existsSync(each));
  if (found !== undefined) return found;
  if (!announced.has(relative)) {
    announced.add(relative);
    console.warn(`skipped: ../shared/${relative} is absent, so tests that need it do not run`);
  }
  return null;
}

/**
 * `describe` for tests that read one of those files while they are collected: where it is absent the body does not run (vitest
 * collects the bodies of skipped suites too) and one skipped test stands for it.
 */
export function describeWith(file: string | null, name: string, body: () => void): void {
  if (file !== null) describe(name, body);
  else describe.skip(name, () => test("needs files that are absent", () => undefined));
}
