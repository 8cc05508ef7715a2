// One table of several runs of the same recipe: per measure the mean over runs, with a 95 % t interval of that mean (Student 1908), and each run's
// own value. An interval over documents says how well one pair was measured; this one says how training goes with another seed.
//   for s in 1 2 3; do nla train configs/smallworld-rl.yaml --run runs/s$s --set seed=$s; done    # with --from runs/s1: RL alone
//   for s in 1 2 3; do nla eval runs/s$s --rows 1500 --controls --json > s$s.json; done
//   node bench/seeds.mjs s1.json s2.json s3.json
import { readFileSync } from "node:fs";

// Two-sided 95 % points of Student's t, for 1 to 9 degrees of freedom.
const T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/** Every measure of an evaluation by its name, in the order of the table. */
function measuresOf(report) {
  const rows = [
    ["FVE, greedy", report.fve],
    ["FVE, T=1", report.sampled.fve],
    ["FVE, warm start, greedy", report.warm_start?.fve],
    ["FVE gained over the warm start", report.warm_start?.gain.fve],
    ["FVE, another document's activation", report.controls.shuffled.fve],
  ];
  const { claims } = report;
  if (!claims) return rows;
  let last = "";
  for (const { name, fve, tokens, scores } of claims.lines) {
    // The second of two lines about one control carries its name indented.
    const whole = name.startsWith("  ") ? `${last},${name.slice(1)}` : name;
    if (!name.startsWith("  ")) last = name;
    if (fve !== null && /text only|warm start, T=1/.test(whole)) rows.push([`FVE, ${whole}`, fve]);
    rows.push(
      [`precision, ${whole}`, scores?.overall.precision?.value],
      [`recall, ${whole}`, scores?.overall.recall?.value],
      [`claims, ${whole}`, scores?.sentences.value],
      ...(tokens === null ? [] : [[`tokens, ${whole}`, tokens]]),
      [`unparsed, ${whole}`, scores?.unparsed.value],
    );
  }
  rows.push(
    ...gained(claims.lines, "greedy", "warm start, greedy"),
    ...gained(claims.lines, "sampled, T=1", "warm start, T=1"),
    ...["greedy", "sampled, T=1"].flatMap((name) => cut(claims.equal_claims, "at as many claims", name)),
    ...["greedy", "sampled, T=1"].flatMap((name) => cut(claims.equal_tokens, "at equal length", name)),
    ["precision at the warm start's categories", claims.at_warm_categories?.trained],
    ["the warm start's own there", claims.at_warm_categories?.warm],
    ["FVE from the complete true label", claims.full_label_fve],
    ["gate: warm start's claims of test or real, 36 tokens and more", claims.gate?.precision?.value],
  );
  for (const { form, loss } of claims.code?.forms ?? []) rows.push([`FVE lost, ${form}`, loss]);
  return rows;
}

// What a reading gained over the warm start's, run by run, whatever its number of claims.
function gained(lines, name, warmName) {
  const [trained, warm] = [name, warmName].map((n) => lines.find((line) => line.name === n)?.scores);
  const [recall, before] = [trained, warm].map((scores) => scores?.overall.recall?.value);
  return [
    [`precision gained, ${name}`, trained?.overall.precision?.value - warm?.overall.precision?.value],
    [`recall gained, ${name}`, recall - before],
  ].map(([label, value]) => [label, Number.isFinite(value) ? value : undefined]);
}

// The same with as many claims, or tokens, of both at every token: more of them give more recall and fidelity by themselves.
function cut(compared = [], equal, name) {
  const found = compared.find((each) => each.name === name);
  const at = (what) => `${what} ${equal}, ${name}`;
  return [
    [at("claims"), found?.claims],
    ...(found?.claims_warm === undefined ? [] : [[at("claims, warm start"), found.claims_warm]]),
    [at("tokens"), found?.trained.tokens],
    [at("tokens, warm start"), found?.warm.tokens],
    [at("FVE"), found?.trained.fve],
    [at("FVE, warm start"), found?.warm.fve],
    [at("FVE gained"), found?.gained.fve.fve],
    [at("precision"), found?.trained.precision],
    [at("precision, warm start"), found?.warm.precision],
    [at("precision gained"), found?.gained.precision.value],
    [at("recall"), found?.trained.recall],
    [at("recall, warm start"), found?.warm.recall],
    [at("recall gained"), found?.gained.recall.value],
  ];
}

const files = process.argv.slice(2);
if (files.length < 2) {
  console.error(
    "usage: node bench/seeds.mjs EVAL.json EVAL.json ... (of `nla eval RUN --json`, two runs or more)",
  );
  process.exit(2);
}
const runs = files.map((file) => {
  try {
    return new Map(measuresOf(JSON.parse(readFileSync(file, "utf8"))));
  } catch (thrown) {
    console.error(`${file}: ${thrown.message}; wanted the output of \`nla eval RUN --json\``);
    process.exit(1);
  }
});
const names = [...new Set(runs.flatMap((run) => [...run.keys()]))];
const width = Math.max(...names.map((name) => name.length));
console.log(`${"".padEnd(width)}  mean (95 %, ${files.length} runs)  each`);
for (const name of names) {
  const values = runs.map((run) => run.get(name));
  // A run without the measure has none: a mean over the others would hide that.
  if (values.some((value) => typeof value !== "number")) {
    console.log(`${name.padEnd(width)}  not in every run`);
    continue;
  }
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1));
  const half = ((T[n - 2] ?? 1.96) * deviation) / Math.sqrt(n);
  const interval = `${mean.toFixed(3)} (${(mean - half).toFixed(3)} to ${(mean + half).toFixed(3)})`;
  console.log(
    `${name.padEnd(width)}  ${interval.padEnd(26)}  ${values.map((value) => value.toFixed(3)).join("  ")}`,
  );
}
