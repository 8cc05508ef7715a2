// Bad input at the command line: every entry of a table is one fault, and each must end in exit code 1 (2 for the command
// line itself) with a named error of four parts, never in a stack, and with everything that was there before unchanged.
import { copyFile, mkdir, readdir, rm, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { BadFiles, editText, TARGET } from "./bad-files.js";
import { buildCommand, writeTinyConfig } from "./built-command.js";
import type { BuiltCommand } from "./built-command.js";
import { expectError } from "./expect-error.js";
import type { ErrorShape } from "./expect-error.js";
import { contents } from "./folder-contents.js";

let nla: BuiltCommand;
let files: BadFiles;
let config: string;
let run: string; // a finished run: its files are read, and must not change
let before: unknown;
let corpus: string;
let out: string; // an output that is there already

beforeAll(async () => {
  nla = await buildCommand();
  files = new BadFiles(path.join(nla.folder, "bad"));
  await mkdir(files.root);
  config = await writeTinyConfig(nla.folder);
  corpus = path.join(nla.folder, "corpus.txt");
  run = path.join(nla.folder, "run");
  const short = ["reconstructor", "verbalizer", "rl"].flatMap((stage) => ["--set", `${stage}.steps=1`]);
  expect(await nla.run(["train", config, "--run", run, ...short])).toMatchObject({ code: 0 });
  before = await contents(run);
  const outputs = path.join(nla.folder, "outputs");
  await mkdir(outputs);
  out = path.join(outputs, "kept");
  await writeFile(out, "precious");
}, 120_000);
afterAll(() => nla?.[Symbol.asyncDispose]());

afterEach(async () => {
  expect(await readdir(path.dirname(out))).toEqual(["kept"]);
  expect(await contents(run)).toEqual(before);
});

/** Arguments of commands, with everything but the fault in order. */
const forward = (model: string, ids = "[[1, 2, 3]]") => {
  return ["forward", "--model", model, "--ids", ids, "--logits", "--threads", "1", "--out", out];
};
const extract = (text: string, ...more: string[]) => {
  const options = ["--layer", "2", "--corpus", text, "--min-position", "2", "--threads", "1", "--out", out];
  return ["data", "extract", "--model", TARGET, ...options, ...more];
};
const explain = (pair: string, text = "The king", ...more: string[]) => {
  return ["explain", text, "--nla", pair, "--positions", "-1", "--threads", "1", ...more];
};
const train = (...set: string[]) => {
  return [
    "train",
    config,
    "--run",
    path.join(nla.folder, "fresh"),
    ...set.flatMap((each) => ["--set", each]),
  ];
};
/** A copy of the trained run, spoilt, and `explain` with it. */
const explainSpoilt = async (name: string, edit: (pair: string) => Promise<unknown>) =>
  explain(await files.folder(name, edit, run));
const sidecar = (role: "verbalizer" | "reconstructor", from: string, to: string) => (pair: string) =>
  editText(path.join(pair, role, "nla_meta.yaml"), (text) => text.replace(from, to));
const rawFile = () => path.join(run, "data/splits/av_sft_raw.parquet");
const label = (file: string) => ["data", "label", file, "--out", out];

type Fault = readonly [
  what: string,
  args: () => Promise<readonly string[]> | readonly string[],
  shape: ErrorShape,
];

async function check(args: Fault[1], shape: ErrorShape): Promise<void> {
  expectError(await nla.run([...(await args()), "--json"]), shape);
}

const first = (header: Record<string, unknown>) => Object.keys(header)[0] as string;

const weights: Fault[] = [
  [
    "cut off",
    async () =>
      forward(await files.folder("cut", (at) => truncate(path.join(at, "model.safetensors"), 500_000))),
    {
      code: "safetensors.truncated",
      subject: /cut\/model\.safetensors$/,
      found: "500000 bytes",
      wanted: /at least \d+ bytes/,
    },
  ],
  [
    "empty",
    async () => forward(await files.folder("zero", (at) => truncate(path.join(at, "model.safetensors"), 0))),
    { code: "safetensors.truncated", found: "0 bytes", wanted: "at least 8 bytes" },
  ],
  [
    "with a header that is not JSON",
    async () => forward(await files.header("nojson", () => '{"a": nonsense')),
    { code: "safetensors.not-json", found: /not valid JSON/, wanted: /JSON/ },
  ],
  [
    "with a header of 8 exabytes",
    async () => forward(await files.header("huge", () => undefined, { length: 2n ** 63n })),
    { code: "safetensors.header-too-large", found: /9223372036854775808 bytes/, wanted: /at most/ },
  ],
  [
    "with a negative offset",
    async () =>
      forward(
        await files.header(
          "negative",
          (h) => void ((h[first(h)] as { data_offsets: number[] }).data_offsets[0] = -4),
        ),
      ),
    {
      code: "safetensors.offsets",
      subject: /negative\/model\.safetensors: model\./,
      found: /\[-4,/,
      wanted: /0 <= begin/,
    },
  ],
  [
    "with tensors that overlap",
    async () =>
      forward(
        await files.header("overlap", (h) => {
          const [a, b] = Object.values(h).filter(({ shape }) => shape.length === 1);
          if (a && b) b.data_offsets = a.data_offsets;
        }),
      ),
    { code: "safetensors.offsets", found: /inside another tensor/, wanted: /offset \d+/ },
  ],
  [
    "with a tensor that ends beyond the file",
    async () =>
      forward(
        await files.header("beyond", (h) => {
          const last = Object.values(h).reduce((a, b) =>
            (a.data_offsets[1] ?? 0) > (b.data_offsets[1] ?? 0) ? a : b,
          );
          last.shape[0] = (last.shape[0] ?? 0) * 1000;
          const [begin = 0, end = 0] = last.data_offsets;
          last.data_offsets = [begin, begin + (end - begin) * 1000];
        }),
      ),
    { code: "safetensors.truncated", found: /\d+ bytes/, wanted: /at least \d+ bytes/ },
  ],
  [
    "with a shape of 10^24 elements",
    async () =>
      forward(
        await files.header(
          "shape",
          (h) => void ((h[first(h)] as { shape: number[] }).shape = [2 ** 40, 2 ** 40]),
        ),
      ),
    { code: "safetensors.size", found: /1099511627776, 1099511627776/, wanted: /bytes/ },
  ],
  [
    "not there",
    async () => forward(await files.folder("none", (at) => rm(path.join(at, "model.safetensors")))),
    {
      code: "safetensors.no-weights",
      found: /neither model\.safetensors nor/,
      wanted: /safetensors weights/,
    },
  ],
  [
    "with NaN in them",
    async () => forward(await nanWeights()),
    {
      code: "model.not-finite",
      subject: /tensor model\..*element \d+/,
      found: "NaN",
      wanted: "finite weights",
    },
  ],
];

/** The target with one weight that is not a number. */
function nanWeights(): Promise<string> {
  return files.folder("nan", async (at) => {
    const { readFile } = await import("node:fs/promises");
    const file = path.join(at, "model.safetensors");
    const bytes = await readFile(file);
    bytes.writeFloatLE(Number.NaN, bytes.length - 4);
    await writeFile(file, bytes);
  });
}

const models: Fault[] = [
  [
    "a config.json wider than the weights",
    async () => forward(await files.config("wide", { hidden_size: 128 })),
    {
      code: "model.weights",
      subject: /model\.embed_tokens\.weight/,
      found: /\[512, 64\]/,
      wanted: /\[512, 128\] that config\.json/,
    },
  ],
  [
    "a config.json with more blocks than the weights",
    async () => forward(await files.config("deep", { num_hidden_layers: 9 })),
    { code: "model.weights", subject: /layers\.4/, found: "no such tensor", wanted: /config\.json/ },
  ],
  [
    "a config.json with fewer blocks than the weights",
    async () => forward(await files.config("flat", { num_hidden_layers: 3 })),
    {
      code: "model.weights",
      found: /9 tensors that config\.json does not account for/,
      wanted: /29 tensors/,
    },
  ],
  [
    "heads that do not divide",
    async () => forward(await files.config("heads", { num_attention_heads: 7 })),
    { code: "model.config", subject: /num_attention_heads/, found: "7", wanted: /multiple of/ },
  ],
  [
    "a config.json cut off",
    async () => forward(await files.folder("torn", (at) => truncate(path.join(at, "config.json"), 40))),
    { code: "model.config-syntax", found: /JSON/, wanted: "a JSON object" },
  ],
  [
    "a block that does not exist",
    () => [...forward(TARGET), "--capture", "0,9"],
    { code: "model.layer", subject: "layer 9", found: "a model of 4 blocks", wanted: "a layer from 0 to 3" },
  ],
  [
    "a token id beyond the vocabulary",
    () => forward(TARGET, "[[1, 512]]"),
    { code: "tensor.index", found: "512", wanted: /0 to 511/, next: /tokenizer/ },
  ],
  [
    "more ids than the context",
    () => forward(TARGET, JSON.stringify([Array(129).fill(1)])),
    { code: "model.batch", found: "129 tokens", wanted: /1 to 128 tokens/ },
  ],
  [
    "a folder that is not there",
    () => forward(path.join(nla.folder, "nowhere")),
    {
      code: "model.config-missing",
      subject: /nowhere\/config\.json/,
      found: /no such file/,
      wanted: /Hugging Face/,
    },
  ],
];

const tokenizers: Fault[] = [
  [
    "missing",
    async () =>
      extract(corpus, "--model", await files.folder("notok", (at) => rm(path.join(at, "tokenizer.json")))),
    {
      code: "tokenizer.missing",
      subject: /notok\/tokenizer\.json/,
      found: "no such file",
      wanted: /tokenizer/,
    },
  ],
  [
    "not a tokenizer",
    async () =>
      extract(
        corpus,
        "--model",
        await files.folder("badtok", (at) => writeFile(path.join(at, "tokenizer.json"), "{}")),
      ),
    { code: "tokenizer.json", found: /absent/, wanted: /vocabulary/ },
  ],
  [
    "with more ids than the embedding has rows",
    async () => extract(corpus, "--model", await files.folder("bigtok", addToken)),
    {
      code: "contract.vocabulary",
      subject: /bigtok/,
      found: "a tokenizer of 601 ids",
      wanted: /at most 512/,
    },
  ],
  [
    "of another model, in training",
    async () => train(`target=${await files.folder("othertok", addToken)}`),
    { code: "contract.vocabulary", found: /601 ids/, wanted: /at most 512/ },
  ],
  [
    "without the pair's marker",
    () =>
      explainSpoilt("unmarked", (pair) =>
        copyFile(path.join(TARGET, "tokenizer.json"), path.join(pair, "verbalizer/tokenizer.json")),
      ),
    { code: "contract.marker", subject: /injection character/, found: /tokens \[/, wanted: /one token/ },
  ],
  [
    "gone from the pair",
    () => explainSpoilt("gone", (pair) => rm(path.join(pair, "verbalizer/tokenizer.json"))),
    {
      code: "tokenizer.missing",
      subject: /verbalizer\/tokenizer\.json/,
      found: "no such file",
      wanted: /tokenizer/,
    },
  ],
];

/** A token with the id 600. */
function addToken(model: string): Promise<void> {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return editText(path.join(model, "tokenizer.json"), (text) => {
    const tokenizer = JSON.parse(text) as { added_tokens: unknown[] };
    tokenizer.added_tokens.push({ id: 600, content: "<far>", ...flags });
    return JSON.stringify(tokenizer);
  });
}

const corpora: Fault[] = [
  [
    "empty",
    async () => extract(await files.file("empty.txt", "")),
    { code: "corpus.empty", subject: /empty\.txt/, found: "0 documents", wanted: /at least one document/ },
  ],
  [
    "blank",
    async () => extract(await files.file("blank.txt", " \n\n ")),
    { code: "corpus.empty", found: /blank/, wanted: /at least one document/ },
  ],
  [
    "not there",
    () => extract(path.join(nla.folder, "none.txt")),
    { code: "corpus.unreadable", subject: /none\.txt/, found: /no such file/, wanted: /a file/ },
  ],
  [
    "of one-token documents",
    async () => extract(await files.file("ones.txt", "a\n\nb\n\nc\n"), "--cut", "paragraphs"),
    {
      code: "extract.no-rows",
      found: /3 documents, none with a token/,
      wanted: /that long/,
      next: /min_position/,
    },
  ],
  [
    "of one-token documents, in training",
    async () =>
      train(`corpus.path=${await files.file("singles.txt", "a\n\nb\n\nc\n")}`, "corpus.cut=paragraphs"),
    { code: "extract.no-rows", subject: /singles\.txt/, found: /3 documents/, wanted: /that long/ },
  ],
  [
    "with bytes that are not UTF-8",
    async () => extract(await files.file("latin.txt", Buffer.from("caf\xe9 au lait", "latin1"))),
    {
      code: "corpus.utf8",
      subject: /latin\.txt/,
      found: "byte 0xe9 at offset 3, which begins no UTF-8 character",
      wanted: "UTF-8 text",
    },
  ],
  [
    "with a line that is not JSON",
    async () => extract(await files.file("torn.jsonl", '{"text": "a"}\n{"text": \n')),
    { code: "corpus.json", subject: /torn\.jsonl, line 2/, found: /JSON/, wanted: /one JSON object/ },
  ],
  [
    "without the field",
    async () => extract(await files.file("field.jsonl", '{"txt": "a"}\n')),
    { code: "corpus.field", subject: /line 1/, found: /"txt"/, wanted: /"text"/ },
  ],
];

const texts: Fault[] = [
  [
    "longer than the context",
    () => explain(run, "king ".repeat(300)),
    { code: "read.length", found: /\d+ tokens/, wanted: /at most 128/, next: /Cut/ },
  ],
  ["empty", () => explain(run, ""), { code: "read.empty", found: "nothing", wanted: /one token/ }],
  [
    "with bytes that are not UTF-8",
    async () => ["explain", "--file", await files.file("e9.txt", Buffer.from([0x61, 0xe9])), "--nla", run],
    { code: "explain.file", subject: /e9\.txt/, found: /utf-8/, wanted: /UTF-8 text/ },
  ],
  [
    "without that position",
    () => explain(run, "The king", "--positions", "99"),
    { code: "read.position", subject: "position 99", found: /\d+ tokens/, wanted: /to \d+/ },
  ],
];

const data: Fault[] = [
  [
    "without the activations",
    async () =>
      label(await files.parquet("nocolumn", rawFile(), "SELECT * EXCLUDE activation_vector FROM {file}")),
    {
      code: "parquet.no-column",
      subject: /nocolumn\.parquet/,
      found: /columns n_raw_tokens/,
      wanted: "also activation_vector",
    },
  ],
  [
    "with vectors of another width than its sidecar says",
    async () =>
      label(
        await files.parquet(
          "width",
          rawFile(),
          "SELECT * REPLACE (activation_vector[1:32] AS activation_vector) FROM {file}",
        ),
      ),
    {
      code: "data.contradiction",
      subject: /width\.parquet\.nla_meta\.yaml/,
      found: "d_model 64",
      wanted: /^32/,
    },
  ],
  [
    "with one vector of another width",
    async () =>
      label(
        await files.parquet(
          "ragged",
          rawFile(),
          `SELECT * REPLACE (${ofOneRow("activation_vector[1:5]")}) FROM {file}`,
        ),
      ),
    { code: "parquet.width", found: /^5 values in row \d+ \(doc_id /, wanted: "64" },
  ],
  [
    "with NaN in one vector",
    async () =>
      label(
        await files.parquet(
          "nans",
          rawFile(),
          `SELECT * REPLACE (${ofOneRow("list_transform(activation_vector, x -> 'nan'::FLOAT)")}) FROM {file}`,
        ),
      ),
    {
      code: "parquet.not-finite",
      subject: /activation_vector/,
      found: /NaN at index 0 of row \d+ \(doc_id/,
      wanted: /finite/,
    },
  ],
  [
    "with an infinite value, where a set is built",
    async () => {
      const select = `SELECT * REPLACE (${ofOneRow("list_transform(activation_vector, x -> 'inf'::FLOAT)")}) FROM {file}`;
      const file = await files.parquet("infinite", rawFile(), select);
      return ["data", "build", file, "--set", "rl", "--pair", path.join(run, "verbalizer"), "--out", out];
    },
    { code: "parquet.not-finite", found: /Infinity at index 0/, wanted: /finite/ },
  ],
  [
    "cut off",
    async () => {
      const file = await files.parquet("half", rawFile(), "SELECT * FROM {file}");
      await truncate(file, 700);
      return label(file);
    },
    { code: "parquet.truncated", found: /700 bytes/, wanted: /PAR1/ },
  ],
  [
    "not there",
    () => label(path.join(nla.folder, "none.parquet")),
    { code: "parquet.missing", subject: /none\.parquet/, found: /no such file/, wanted: /.+/ },
  ],
  [
    "without its sidecar",
    async () => {
      const file = await files.parquet("alone", rawFile(), "SELECT * FROM {file}");
      await rm(`${file}.nla_meta.yaml`);
      return label(file);
    },
    {
      code: "sidecar.missing",
      subject: /alone\.parquet\.nla_meta\.yaml/,
      found: /no such file/,
      wanted: /sidecar/,
    },
  ],
  [
    "of another layer than the pair's",
    async () => {
      const file = await files.parquet("layer", rawFile(), "SELECT * FROM {file}");
      await editText(`${file}.nla_meta.yaml`, (text) => text.replace("layer_index: 2", "layer_index: 3"));
      return ["data", "build", file, "--set", "rl", "--pair", path.join(run, "verbalizer"), "--out", out];
    },
    { code: "build.contract", found: /after block 3/, wanted: /after block 2/ },
  ],
];

/** The activation of every row but one as it is, and of that one something else. */
function ofOneRow(changed: string): string {
  const last = "(SELECT max(n_raw_tokens) FROM {file})";
  return `CASE WHEN n_raw_tokens = ${last} THEN ${changed} ELSE activation_vector END AS activation_vector`;
}

const pairs: Fault[] = [
  [
    "whose sidecar has another marker id than the tokenizer",
    () =>
      explainSpoilt("marker", sidecar("verbalizer", "injection_token_id: 512", "injection_token_id: 100")),
    {
      code: "contract.marker-drift",
      subject: /injection character/,
      found: "token 512",
      wanted: /token 100, as the sidecar/,
    },
  ],
  [
    "whose sidecar has other neighbours than the prompt",
    () =>
      explainSpoilt("left", (pair) =>
        editText(path.join(pair, "verbalizer/nla_meta.yaml"), (text) =>
          text.replace(/left_neighbor_id: \d+/, "left_neighbor_id: 3"),
        ),
      ),
    { code: "contract.site", found: /0 sites/, wanted: /between tokens 3 and/ },
  ],
  [
    "whose sidecar has another width than the model",
    () => explainSpoilt("dim", sidecar("verbalizer", "d_model: 64", "d_model: 32")),
    { code: "contract.width", found: "a model of width 64", wanted: /width 32/ },
  ],
  [
    "whose reconstructor was cut at another layer",
    () => explainSpoilt("cutat", sidecar("reconstructor", "layer_index: 2", "layer_index: 3")),
    { code: "contract.layer", subject: "the reconstructor", found: "3 blocks", wanted: /^4: layer 3/ },
  ],
  [
    "of two layers",
    () => explainSpoilt("layers", sidecar("verbalizer", "layer_index: 2", "layer_index: 1")),
    { code: "nla.pair", found: /layer 1.*layer 2/, wanted: /one pair/ },
  ],
  [
    "whose sidecar is not YAML",
    () => explainSpoilt("yaml", (pair) => writeFile(path.join(pair, "verbalizer/nla_meta.yaml"), "kind: [")),
    { code: "yaml.syntax", subject: /verbalizer\/nla_meta\.yaml/, found: /.+/, wanted: "YAML" },
  ],
  [
    "whose value head is cut off",
    () =>
      explainSpoilt("head", (pair) => truncate(path.join(pair, "reconstructor/value_head.safetensors"), 900)),
    { code: "safetensors.truncated", subject: /value_head/, found: "900 bytes", wanted: /at least/ },
  ],
  [
    "that is not there",
    () => explain(path.join(nla.folder, "nothing")),
    { code: "nla.directory", subject: /nothing/, found: "no such folder", wanted: /verbalizer\// },
  ],
];

const configs: Fault[] = [
  [
    "with an unknown key",
    async () => {
      const text = "target: aidreams260K\nlayer: 2\ncorpus: { path: a.txt }\nrl:\n  kl_koef: 0.1\n";
      return ["train", await files.file("unknown.yaml", text), "--run", path.join(nla.folder, "fresh")];
    },
    {
      code: "config.unknown-key",
      subject: /unknown\.yaml, line 5/,
      found: /"rl\.kl_koef"/,
      wanted: /rl\.kl_coef/,
      next: "Did you mean rl.kl_coef?",
    },
  ],
  [
    "with an unknown section",
    () => train("verbaliser.steps=3"),
    {
      code: "config.unknown-key",
      subject: /--set verbaliser\.steps=3/,
      found: /verbaliser/,
      wanted: /verbalizer/,
      next: "Did you mean verbalizer?",
    },
  ],
  [
    "with a value of another kind",
    () => train("rl.steps=many"),
    { code: "config.value", found: '"many"', wanted: /whole number/, next: /^rl\.steps: / },
  ],
  [
    "with a layer that does not exist",
    () => train("layer=4"),
    { code: "model.layer", subject: "layer 4", found: "a model of 4 blocks", wanted: "a layer from 0 to 3" },
  ],
  [
    "with a target that is not there",
    () => train("target=missing"),
    { code: "target.missing", subject: /missing/, found: /no folder/, wanted: /aidreams260K/ },
  ],
  [
    "that is not there",
    () => ["train", path.join(nla.folder, "no.yaml")],
    { code: "config.missing", subject: /no\.yaml/, found: /no such file/, wanted: /YAML/ },
  ],
  [
    "of another run than the folder's",
    () => ["train", config, "--run", run, "--set", "rl.group=2", "seed=1"],
    {
      code: "run.other-config",
      subject: /run$/,
      found: /seed 42/,
      wanted: /rl\.group 2, .*seed 1/,
      next: /--run/,
    },
  ],
  [
    "for a folder of other things",
    () => ["train", config, "--run", path.dirname(out)],
    { code: "run.foreign-folder", found: "no config.yaml, but kept", wanted: /empty folder/ },
  ],
];

const commandLines: Fault[] = [
  [
    "a command that does not exist",
    () => ["trian"],
    { exit: 2, code: "cli.unknownCommand", found: /trian/, wanted: /--help/, next: /Did you mean train/ },
  ],
  [
    "an option that does not exist",
    () => ["train", config, "--runn", "x"],
    { exit: 2, code: "cli.unknownOption", found: /--runn/, wanted: /--help/, next: /Did you mean --run/ },
  ],
  [
    "a missing argument",
    () => ["train"],
    { exit: 2, code: "cli.missingArgument", subject: "nla train", found: /config/, wanted: /--help/ },
  ],
  [
    "ids that are not ids",
    () => forward(TARGET, '[[1, "a"]]'),
    { exit: 2, code: "forward.ids", found: /"a" at token 1 of sequence 0/, wanted: /JSON lists/ },
  ],
  [
    "an output in a file's place",
    () => ["data", "label", rawFile(), "--out", path.join(out, "x.parquet")],
    { code: /^system\.e/, subject: /kept/, found: /E/, wanted: /.+/ },
  ],
];

describe.each([
  ["weights", weights],
  ["a model's folder or ids:", models],
  ["a tokenizer", tokenizers],
  ["a corpus", corpora],
  ["a text to read", texts],
  ["a data file", data],
  ["a pair", pairs],
  ["a config", configs],
  ["the command line:", commandLines],
])("%s", (_, faults) => {
  it.each(faults)("%s", (_what, args, shape) => check(args, shape));
});

it("is told to people in four labelled lines", async () => {
  const { code, stdout, stderr } = await nla.run(explain(path.join(nla.folder, "nothing")));
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toMatch(
    /^error {3}.*nothing\nfound {3}no such folder\nwanted {2}a run folder[^\n]*\nnext {4}Finish the training/,
  );
  expect(stderr).not.toContain("at ");
});
