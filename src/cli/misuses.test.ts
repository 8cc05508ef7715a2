// The reference's recorded misuses of its data tools, every one by the command that does the same here: refused, with a code that names
// what is wrong. And what the tools for existing files write where they are used as they should be.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { listKindOf } from "../data/arrow-schema.js";
import { openParquet, VECTOR_COLUMN } from "../data/parquet.js";
import { readDatasetSidecar } from "../data/sidecar.js";
import { runNla } from "./testing/run-nla.js";

const golden = sharedPath("golden/nla/pipeline/errors.json") && sharedPath("golden/nla/pipeline");
const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-misuses-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const at = (name: string) => path.join(golden as string, name);
const out = (name: string) => path.join(scratch, name);
const CRITIC = "Notes taken on a passage: <notes>{explanation}</notes> <vector>";
const ACTOR = "One <vector>{injection_char}</vector> two";

/** A copy of a data file whose sidecar is changed. */
function altered(file: string, name: string, change: (sidecar: string) => string): string {
  const copy = out(name);
  cpSync(at(file), copy);
  const text = readFileSync(at(`${file}.nla_meta.yaml`), "utf8");
  const changed = change(text);
  expect(changed, name).not.toBe(text);
  writeFileSync(`${copy}.nla_meta.yaml`, changed);
  return copy;
}

function lines(name: string, objects: readonly object[]): string {
  writeFileSync(out(name), objects.map((each) => `${JSON.stringify(each)}\n`).join(""));
  return out(name);
}

const split = (base: string, av: number, ar: number, rl: number) =>
  `data split ${base} --av-sft ${av} --ar-sft ${ar} --rl ${rl} --eval 0 --out ${out("split")}`.split(" ");

const build = (input: string, set: string, actor = ACTOR, critic = CRITIC) => [
  ...`data build ${input} --set ${set} --model ${at("tiny-qwen2")} --out ${out("built.parquet")}`.split(" "),
  "--verbalizer-template",
  actor,
  "--reconstructor-template",
  critic,
];

const labelled = () => at("out/splits/av_sft_explained.parquet");
const suffix = (text: string) =>
  build(at("out/splits/ar_sft_explained.parquet"), "ar_sft", ACTOR, `Notes: {explanation}${text}`);

function run(labels: string, templates: string): string[] {
  const folder = out(`run-${path.basename(labels)}`);
  mkdirSync(folder, { recursive: true });
  cpSync(at("out/base.parquet"), path.join(folder, "base.parquet"));
  cpSync(at("out/base.parquet.nla_meta.yaml"), path.join(folder, "base.parquet.nla_meta.yaml"));
  return [
    ...`data run ${at("config.yaml")} --stages 1,2 --override output_dir=${folder}`.split(" "),
    ...`--labels ${labels} --templates ${templates}`.split(" "),
  ];
}

function refusals(): string {
  const calls = readFileSync(at("provider_calls.jsonl"), "utf8").trim().split("\n");
  const prompts = calls.map((line) => (JSON.parse(line) as { prompt: string }).prompt);
  return lines(
    "refused.jsonl",
    prompts.map((prompt) => ({ prompt, completion: null })),
  );
}

const extract = (corpus: string, layer: number) => [
  ...`data extract --model ${at("tiny-qwen2")} --layer ${layer} --corpus ${corpus} --threads 1`.split(" "),
  ...`--per-document 5 --max-length 256 --out ${out("extracted.parquet")}`.split(" "),
];

function paddingText(): string {
  const corpus = readFileSync(at("wikitext-pieces/train.jsonl"), "utf8").split("\n")[0] as string;
  const { text } = JSON.parse(corpus) as { text: string };
  const { pad_token: pad } = JSON.parse(readFileSync(at("tiny-qwen2/tokenizer_config.json"), "utf8")) as {
    pad_token: string;
  };
  return lines("padding.jsonl", [{ text: `${text.slice(0, 200)} ${pad} ${text.slice(200)}` }]);
}

function twoModels(): string {
  const text = readFileSync(at("config.yaml"), "utf8");
  writeFileSync(out("two-models.yaml"), text.replace("device_map: cpu", "model_name: other"));
  return out("two-models.yaml");
}

const shifted = (text: string) => text.replace(/start: 24/, "start: 25");
const merge = (other: string) => [
  "data",
  "merge",
  at("side/shard_1.parquet"),
  other,
  "--out",
  out("merged.parquet"),
];

// Case of the file: the command line, and our code.
const CASES: Readonly<Record<string, readonly [() => string[], string]>> = {
  "fractions sum to 0.9": [() => split(at("out/base.parquet"), 0.3, 0.3, 0.3), "split.fractions"],
  "a negative fraction": [() => split(at("out/base.parquet"), -0.1, 0.6, 0.5), "cli.option"],
  "stage 1 on a stage 3 file": [() => split(at("out/av_sft.parquet"), 0.3, 0.3, 0.4), "data.stage"],
  "stage 1 without a sidecar": [
    () => {
      cpSync(at("out/base.parquet"), out("missing.parquet"));
      return split(out("missing.parquet"), 0.3, 0.3, 0.4);
    },
    "sidecar.missing",
  ],
  "stage 3 on a stage 3 file": [() => build(at("out/av_sft.parquet"), "rl"), "data.stage"],
  "av_sft without explanations": [
    () => build(at("out/splits/av_sft_raw.parquet"), "av_sft"),
    "parquet.no-column",
  ],
  "actor template without its placeholder": [
    () => build(labelled(), "av_sft", "No place for it."),
    "template.placeholder",
  ],
  "actor template with the marker at two places": [
    () => build(labelled(), "av_sft", "One {injection_char} two {injection_char}"),
    "template.placeholder",
  ],
  "critic template without its placeholder": [
    () => build(labelled(), "av_sft", ACTOR, "Nothing here."),
    "template.placeholder",
  ],
  "critic template whose suffix is one token": [() => suffix("."), "template.suffix"],
  "critic template whose suffix is empty": [() => suffix(""), "template.suffix"],
  "critic template whose suffix of 2 full stops melts into the explanation's": [
    () => suffix(".."),
    "template.suffix",
  ],
  "critic template whose suffix of 3 full stops melts into the explanation's": [
    () => suffix("..."),
    "template.suffix-merged",
  ],
  "critic template whose suffix of 4 full stops melts into the explanation's": [
    () => suffix("...."),
    "template.suffix-merged",
  ],
  "critic template whose suffix of 5 full stops melts into the explanation's": [
    () => suffix("....."),
    "template.suffix-merged",
  ],
  "actor template with two tight markers": [
    () => build(labelled(), "av_sft", "A <v>\u320e</v> b <v>{injection_char}</v>"),
    "template.marker",
  ],
  "normalised vectors": [
    () =>
      build(
        altered("out/splits/rl_raw.parquet", "unit.parquet", (text) =>
          text.replace("norm: none", "norm: unit"),
        ),
        "rl",
      ),
    "data.norm",
  ],
  "label template without its placeholder": [
    () => {
      const file = altered("out/ar_sft.parquet", "no-place.parquet", (text) =>
        text.replace("{text}", "text"),
      );
      return run(refusals(), file);
    },
    "template.placeholder",
  ],
  "every completion refused": [() => run(refusals(), at("out/ar_sft.parquet")), "label.none"],
  "join: rows of another split": [
    () => [
      "data",
      "join",
      at("out/splits/av_sft_raw.parquet"),
      at("out/ar_sft_shuf.parquet"),
      "--out",
      out("joined.parquet"),
    ],
    "join.match-rate",
  ],
  "join: another critic template": [
    () => [
      "data",
      "join",
      at("out/splits/ar_sft_raw.parquet"),
      at("out/ar_sft_shuf.parquet"),
      "--out",
      out("joined.parquet"),
      "--reconstructor-template",
      "Other <notes>{explanation}</notes> <vector>",
    ],
    "rows.label",
  ],
  "recover: another critic template": [
    () => [
      "data",
      "recover",
      at("out/ar_sft_shuf.parquet"),
      "--reconstructor-template",
      "Other {explanation}",
      "--out",
      out("r.parquet"),
    ],
    "rows.label",
  ],
  "cast: already fixed": [
    () => ["data", "cast", at("out/av_sft.parquet"), "--out", out("cast.parquet")],
    "cast.fixed",
  ],
  "merge: a gap": [() => merge(altered("side/shard_0.parquet", "gap.parquet", shifted)), "merge.gap"],
  "merge: another layer": [
    () =>
      merge(
        altered("side/shard_0.parquet", "layer.parquet", (text) =>
          text.replace("layer_index: 2", "layer_index: 1"),
        ),
      ),
    "merge.differs",
  ],
  "merge: row count of a sidecar is wrong": [
    () =>
      merge(
        altered("side/shard_0.parquet", "count.parquet", (text) =>
          text.replace("row_count: 120", "row_count: 121"),
        ),
      ),
    "data.contradiction",
  ],
  "stage 0: layer out of range": [() => extract(at("wikitext-pieces/train.jsonl"), 9), "model.layer"],
  "stage 0: model named twice": [() => ["data", "run", twoModels()], "pipeline.two-models"],
  "stage 0: the padding token's text inside a document": [() => extract(paddingText(), 2), "corpus.padding"],
};

describeWith(golden, "the reference's misuses", () => {
  const cases = JSON.parse(readFileSync(at("errors.json"), "utf8")) as { case: string }[];
  const report: string[] = [];
  afterAll(() => console.log(report.join("\n")));

  it("all of them are here", () => {
    expect(cases.map((each) => each.case).sort()).toEqual(Object.keys(CASES).sort());
    expect(cases).toHaveLength(29);
  });

  it.each(cases)("$case", async ({ case: name }) => {
    const [args, wanted] = CASES[name] as (typeof CASES)[string];
    const { code, out: text, err } = await runNla([...args(), "--json"]);
    const found = (JSON.parse(text || "{}") as { error?: { code: string } }).error?.code;
    report.push(`${name} -> ${found}`);
    expect(code, text + err).toBeGreaterThan(0);
    expect(found, text + err).toBe(wanted);
    for (const file of ["built.parquet", "joined.parquet", "r.parquet", "cast.parquet", "merged.parquet"])
      expect(existsSync(out(file)), `${file} was written`).toBe(false);
  });
});

async function tableOf(file: string): Promise<{ columns: object[]; rows: unknown[] }> {
  const parquet = await openParquet(file);
  const rows: unknown[] = [];
  for await (const chunk of parquet.chunks()) {
    for (let row = 0; row < chunk.rowCount; row++)
      rows.push(
        Object.entries(chunk.values).map(([name, values]) => {
          if (!(values instanceof Float32Array)) return [name, values[row]];
          const width = values.length / chunk.rowCount;
          return [name, [...values.subarray(row * width, (row + 1) * width)]];
        }),
      );
  }
  parquet.close();
  return { columns: parquet.columns.map(({ name, type }) => ({ name, type })), rows };
}

const same = async (ours: string, theirs: string): Promise<void> => {
  expect(await tableOf(ours)).toEqual(await tableOf(at(theirs)));
  if (!existsSync(at(`${theirs}.nla_meta.yaml`))) return;
  const [a, b] = [await readDatasetSidecar(ours), await readDatasetSidecar(at(theirs))];
  for (const key of [
    "datasetId",
    "stage",
    "rowCount",
    "extraction",
    "tokens",
    "templates",
    "parentDatasets",
  ] as const)
    if (!(key === "parentDatasets" && theirs.includes("legacy"))) expect(a[key], key).toEqual(b[key]);
};
const ok = async (...args: string[]): Promise<void> => {
  const { code, out: text, err } = await runNla(["data", ...args]);
  expect(code, text + err).toBe(0);
};

describeWith(golden && sharedPath("golden/nla/pipeline/side"), "tools for files that exist", () => {
  it("join, recover, merge, cast and control write the reference's rows and sidecar fields", async () => {
    for (const set of ["av_sft", "ar_sft"]) {
      const [raw, prior] = [at(`out/splits/${set}_raw.parquet`), at(`out/${set}_shuf.parquet`)];
      await ok("join", raw, prior, "--out", out(`${set}_joined.parquet`));
      await same(out(`${set}_joined.parquet`), `side/${set}_joined.parquet`);
      await ok("recover", prior, "--out", out(`${set}_cache.parquet`));
      await same(out(`${set}_cache.parquet`), `side/recovered/${set}_explained.parquet`);
      await ok("control", at(`out/${set}.parquet`), "--out", out(`${set}_control.parquet`));
      await same(out(`${set}_control.parquet`), `side/${set}_shuf_activations.parquet`);
    }
    await ok("control", at("out/rl_shuf.parquet"), "--seed", "43", "--out", out("rl_control.parquet"));
    await same(out("rl_control.parquet"), "side/rl_shuf_shuf_activations.parquet");
    await ok("merge", at("side/shard_0.parquet"), at("side/shard_1.parquet"), "--out", out("whole.parquet"));
    await same(out("whole.parquet"), "side/merged.parquet");
    await ok("cast", at("side/legacy_list.parquet"), "--out", out("fixed.parquet"));
    await same(out("fixed.parquet"), "side/legacy_cast.parquet");
  });

  it("what Arrow readers see is a fixed-size list after the cast, a variable one before it", async () => {
    const kinds = [];
    for (const file of [
      at("side/legacy_list.parquet"),
      at("side/legacy_cast.parquet"),
      out("fixed.parquet"),
      out("whole.parquet"),
    ]) {
      const parquet = await openParquet(file);
      kinds.push(parquet.arrowSchema && listKindOf(parquet.arrowSchema, VECTOR_COLUMN));
      parquet.close();
    }
    expect(kinds).toEqual(["variable", "fixed", "fixed", "fixed"]);
  });
});
