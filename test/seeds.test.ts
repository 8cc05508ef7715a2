// The table over seeds: mean and t interval of evaluations, and what it refuses.
import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const script = path.resolve(import.meta.dirname, "../bench/seeds.mjs");
const evaluation = (fve: number, extra: object = {}) => ({
  fve,
  sampled: { fve: fve - 0.1 },
  warm_start: { fve: 0.4, gain: { fve: fve - 0.4 } },
  controls: { shuffled: { fve: -1 } },
  claims: null,
  ...extra,
});

const line = (name: string, precision: number, recall: number, sentences: number) => ({
  name,
  fve: 0.5,
  tokens: 6 * sentences,
  scores: {
    overall: { precision: { value: precision }, recall: { value: recall } },
    sentences: { value: sentences },
    unparsed: { value: 0 },
  },
});

const cut = (fve: number, precision: number, recall: number) => ({ fve, precision, recall, tokens: 23 });

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(path.join(os.tmpdir(), "nla-seeds-"))));
afterAll(() => rm(folder, { recursive: true }));

async function tableOf(...reports: object[]) {
  const files = reports.map((_, i) => path.join(folder, `s${i}.json`));
  for (const [i, report] of reports.entries()) await writeFile(files[i]!, JSON.stringify(report));
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...files], { encoding: "utf8" });
  return { status, stdout, stderr };
}

describe("bench/seeds.mjs", () => {
  it("gives mean, 95 % t interval and each run", async () => {
    const { status, stdout } = await tableOf(evaluation(0.6), evaluation(0.66), evaluation(0.69));
    expect(status).toBe(0);
    // s = .045826, 4.303 s / sqrt 3 = .11385
    expect(stdout).toMatch(/^FVE, greedy +0\.650 \(0\.536 to 0\.764\) +0\.600 {2}0\.660 {2}0\.690$/m);
    expect(stdout).toMatch(/^FVE, warm start, greedy +0\.400 \(0\.400 to 0\.400\)/m);
  });

  it("says what was gained, also at as many claims", async () => {
    const gained = { fve: { fve: 0.15 }, precision: { value: 0.11 }, recall: { value: 0.04 } };
    const equal = {
      name: "greedy",
      claims: 3.9,
      trained: cut(0.6, 0.8, 0.24),
      warm: cut(0.45, 0.69, 0.2),
      gained,
    };
    const claims = {
      lines: [line("greedy", 0.8, 0.3, 5), line("warm start, greedy", 0.7, 0.2, 4)],
      equal_claims: [equal],
    };
    const { stdout } = await tableOf(evaluation(0.6, { claims }), evaluation(0.6, { claims }));
    expect(stdout).toMatch(/^tokens, greedy +30\.000 /m);
    expect(stdout).toMatch(/^precision gained, greedy +0\.100 /m);
    expect(stdout).toMatch(/^recall gained, greedy +0\.100 /m);
    expect(stdout).toMatch(/^claims at as many claims, greedy +3\.900 /m);
    expect(stdout).toMatch(/^recall gained at as many claims, greedy +0\.040 /m);
    expect(stdout).toMatch(/^FVE, warm start at as many claims, greedy +0\.450 /m);
    expect(stdout).toMatch(/^recall gained at as many claims, sampled, T=1 +not in every run$/m);
    // There are no samples among these lines, and that is no 0.
    expect(stdout).toMatch(/^recall gained, sampled, T=1 +not in every run$/m);
  });

  it("leaves out no run in silence, and refuses one run or another file", async () => {
    const { stdout } = await tableOf(evaluation(0.6), evaluation(0.66, { warm_start: null }));
    expect(stdout).toMatch(/^FVE, warm start, greedy +not in every run$/m);
    expect((await tableOf(evaluation(0.6))).status).toBe(2);
    const other = await tableOf(evaluation(0.6), { name: "nlakit" });
    expect(other.status).toBe(1);
    expect(other.stderr).toMatch(/s1\.json: .*wanted the output of/);
  });
});
