// Cleaning of labelling completions against the reference.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { cleanLabel, isUsableLabel } from "./label-cleaning.js";

const file = sharedPath("golden/nla/train/bullets.json");

interface Golden {
  rows: { raw: string; cleaned: string | null; kept: boolean }[];
}

describeWith(file, "cleaned labels equal the reference's", () => {
  const { rows } = JSON.parse(readFileSync(file as string, "utf8")) as Golden;

  it("covers all completions", () => expect(rows.length).toBe(50));

  it.each(rows.map((row) => [JSON.stringify(row.raw).slice(0, 70), row] as const))("%s", (_, row) => {
    const cleaned = cleanLabel(row.raw);
    expect(cleaned).toBe(row.cleaned);
    expect(cleaned !== null && isUsableLabel(cleaned)).toBe(row.kept);
  });
});

describe("cleaning", () => {
  it("takes linear time on hostile completions", () => {
    const start = performance.now();
    expect(cleanLabel(`<analysis>${" ".repeat(1_000_000)}`)).toBeNull();
    expect(cleanLabel(`<analysis>**${"*".repeat(200_000)}x</analysis>`)).not.toBeNull();
    expect(performance.now() - start).toBeLessThan(5000);
  });
});
