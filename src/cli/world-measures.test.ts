// The measurements of Smallworld on the command line: controls of an evaluation, unspoken facts, a gain taken apart, on the bundled pair.
import { existsSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { reportClaims } from "../evaluate/claim-report.js";
import { evaluateRows } from "../evaluate/evaluation.js";
import { explainRows } from "../evaluate/explained-rows.js";
import { takeApart } from "../evaluate/gain-apart.js";
import { worldRows } from "../evaluate/world-rows.js";
import { loadNla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import { Device } from "../tensor/index.js";
import { renderClaims } from "./eval-claims.js";
import { controlsOf } from "./eval-controls.js";
import { runNla } from "./testing/run-nla.js";
import { renderApart } from "./world-apart.js";

const bundle = path.resolve(import.meta.dirname, "../../assets/smallworld");

describe.skipIf(!existsSync(path.join(bundle, "verbalizer")))("the bundled pair", () => {
  it("is evaluated without a data set, on tokens that its card names", async () => {
    const args = ["eval", bundle, "--rows", "24", "--resamples", "20", "--threads", "1"];
    const { code, out } = await runNla(args);
    expect(code).toBe(0);
    expect(out).toMatch(/24 held-out activations of 6 documents, output of block 2/);
    expect(out).toMatch(/claims alone: sentences that are no claims left out/);
    const json = JSON.parse((await runNla([...args, "--json"])).out) as {
      claims: { code: { alarms: string[]; forms: { form: string }[] } };
    };
    expect(json.claims.code.forms).toHaveLength(3);
    // Its card says which form it is, if any: what is printed is what was measured.
    const { alarms } = json.claims.code;
    expect(out).toMatch(alarms.length === 0 ? /No alarm/ : /ALARM, this pair may speak a code of its own/);
    for (const alarm of alarms) expect(out.replaceAll(/\s+/g, " ")).toContain(alarm.slice(0, 40));
  }, 120_000);

  it("stands beside text-only models and probes, and a gain is told in a table", async () => {
    using device = Device.open({ threads: 1 });
    using target = await loadTarget("smallworld", device);
    using nla = await loadNla(bundle, device);
    const rows = await worldRows(target, {
      layer: nla.layer,
      documents: 10,
      positions: 3,
      start: 40_000_000,
    });
    const greedy = await explainRows(nla, rows, { maxNewTokens: 96 });
    const bootstrap = { seed: 0, resamples: 20 };
    const silent = { stdout: { write: () => true }, stderr: { write: () => true }, env: {} };
    const context = { ...silent, json: true, signal: new AbortController().signal };
    const { lines, probes } = await controlsOf(nla, greedy, { documents: 60, probeDocuments: 30 }, context);
    expect(lines.map(({ name }) => name)).toEqual([
      "text only, last 12 words",
      "  at the pair's categories",
      "text only, all of it",
      "  at the pair's categories",
    ]);
    const named = (name: string, said: typeof greedy) => {
      return { name, fve: evaluateRows(said, { bootstrap }).fve, rows: said };
    };
    const report = await reportClaims(nla, {
      greedy: named("greedy", greedy),
      others: lines.map(({ name, rows: said }) => named(name, [...said])),
      warm: named("warm start, greedy", greedy),
      bootstrap,
      maxNewTokens: 96,
    });
    const text = renderClaims({ ...report, probes });
    expect(text).toMatch(/text only, last 12 words +-?0\.\d+ +[01]\.\d+ \(/);
    expect(text).toMatch(/probe \| shuffled/);
    expect(text).toMatch(/Gate of the warm start.*(pass|FAIL|none)/s);
    // Claims of equal number: what may choose says what stands in the text.
    const [pair, short] = report.lines;
    expect(short!.scores!.sentences.value).toBeCloseTo(pair!.scores!.sentences.value, 1);

    const apart = await takeApart(rows, { warm: nla, trained: nla, maxNewTokens: 96, samples: 2, bootstrap });
    const page = renderApart(apart);
    expect(page).toMatch(/RL's categories, warm start's values +0\.\d+/);
    expect(page).toMatch(/The fixed list \([a-z,\s]+\)\s+was\s+chosen/);
  }, 300_000);

  it("tells what it knows and the text does not say", async () => {
    const args = ["world", "unspoken", bundle, "--documents", "30", "--samples", "2", "--resamples", "20"];
    const { code, out } = await runNla([...args, "--threads", "1"]);
    expect(code).toBe(0);
    expect(out).toMatch(/a test, not real +\d+ +\d+ +NLA, 2 samples +0\.\d+ \(/);
    expect(out).toMatch(/linear probe +[01]\.\d+ \(/);
    expect(out).toMatch(/text only, last 12 words/);
    expect(out).toMatch(/of \d+ +0\.\d+ \(0\.\d+ to 0\.\d+\) of \d+/);
  }, 240_000);

  it("has no warm start to take apart, and an arm needs a name", async () => {
    const { code, err } = await runNla(["world", "apart", bundle, "--threads", "1"]);
    expect(code).toBe(1);
    expect(err).toMatch(/no warm-started pair/);
    const nameless = await runNla(["world", "apart", bundle, "--arm", "runs/frozen"]);
    expect(nameless.code).toBe(2);
    expect(nameless.err).toMatch(/--arm/);
  });
});
