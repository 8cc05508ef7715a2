// Corpora, texts, data files, pairs, configs and command lines that cannot be right, with the command that meets each and the
// error that it must give.
import { rm, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { editText, TARGET } from "./bad-files.js";
import type { Fault } from "./bad-workshop.js";

const sidecar = (role: "verbalizer" | "reconstructor", from: string, to: string) => (pair: string) =>
  editText(path.join(pair, role, "nla_meta.yaml"), (text) => text.replace(from, to));

export const corpora: readonly Fault[] = [
  [
    "empty",
    async (shop) => shop.extract(await shop.files.file("empty.txt", "")),
    {
      code: "corpus.empty",
      subject: /empty\.txt/,
      found: /all of them blank/,
      wanted: /at least one document/,
    },
  ],
  [
    "blank",
    async (shop) => shop.extract(await shop.files.file("blank.txt", " \n\n ")),
    { code: "corpus.empty", found: /blank/, wanted: /at least one document/ },
  ],
  [
    "not there",
    (shop) => shop.extract(path.join(shop.nla.folder, "none.txt")),
    { code: "corpus.unreadable", subject: /none\.txt/, found: /no such file/, wanted: /a file/ },
  ],
  [
    "of one-token documents",
    async (shop) => shop.extract(await shop.files.file("ones.txt", "a\n\nb\n\nc\n"), "--cut", "paragraphs"),
    {
      code: "extract.no-rows",
      found: /3 documents, none with a token/,
      wanted: /that long/,
      next: /min_position/,
    },
  ],
  [
    "of one-token documents, in training",
    async (shop) =>
      shop.train(
        `corpus.path=${await shop.files.file("singles.txt", "a\n\nb\n\nc\n")}`,
        "corpus.cut=paragraphs",
      ),
    { code: "extract.no-rows", subject: /singles\.txt/, found: /3 documents/, wanted: /that long/ },
  ],
  [
    "with bytes that are not UTF-8",
    async (shop) =>
      shop.extract(await shop.files.file("latin.txt", Buffer.from("caf\xe9 au lait", "latin1"))),
    {
      code: "corpus.utf8",
      subject: /latin\.txt/,
      found: "byte 0xe9 at offset 3, which begins no UTF-8 character",
      wanted: "UTF-8 text",
    },
  ],
  [
    "with a line that is not JSON",
    async (shop) => shop.extract(await shop.files.file("torn.jsonl", '{"text": "a"}\n{"text": \n')),
    { code: "corpus.json", subject: /torn\.jsonl, line 2/, found: /JSON/, wanted: /one JSON object/ },
  ],
  [
    "without the field",
    async (shop) => shop.extract(await shop.files.file("field.jsonl", '{"txt": "a"}\n')),
    { code: "corpus.field", subject: /line 1/, found: /"txt"/, wanted: /"text"/ },
  ],
  [
    "of which one document is held out",
    (shop) => shop.train("corpus.length=8"),
    { code: "evaluate.documents", found: /one document/, wanted: /two documents/, next: /splits\.eval/ },
  ],
];

export const texts: readonly Fault[] = [
  [
    "longer than the context",
    (shop) => shop.explain(shop.run, "king ".repeat(300)),
    { code: "read.length", found: /\d+ tokens/, wanted: /at most 128/, next: /Cut/ },
  ],
  [
    "empty",
    (shop) => shop.explain(shop.run, ""),
    { code: "read.empty", found: "nothing", wanted: /one token/ },
  ],
  [
    "with bytes that are not UTF-8",
    async (shop) => [
      "explain",
      "--file",
      await shop.files.file("e9.txt", Buffer.from([0x61, 0xe9])),
      "--nla",
      shop.run,
    ],
    { code: "explain.file", subject: /e9\.txt/, found: /utf-8/, wanted: /UTF-8 text/ },
  ],
  [
    "without that position",
    (shop) => shop.explain(shop.run, "The king", "--positions", "99"),
    { code: "read.position", subject: "position 99", found: /\d+ tokens/, wanted: /to \d+/ },
  ],
];

export const data: readonly Fault[] = [
  [
    "without the activations",
    async (shop) =>
      shop.label(
        await shop.files.parquet("nocolumn", shop.rawFile, "SELECT * EXCLUDE activation_vector FROM {file}"),
      ),
    {
      code: "parquet.no-column",
      subject: /nocolumn\.parquet/,
      found: /columns n_raw_tokens/,
      wanted: "also activation_vector",
    },
  ],
  [
    "with vectors of another width than its sidecar says",
    async (shop) =>
      shop.label(
        await shop.files.parquet(
          "width",
          shop.rawFile,
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
    async (shop) =>
      shop.label(
        await shop.files.parquet(
          "ragged",
          shop.rawFile,
          `SELECT * REPLACE (${ofOneRow("activation_vector[1:5]")}) FROM {file}`,
        ),
      ),
    { code: "parquet.width", found: /^5 values in row \d+ \(doc_id /, wanted: "64" },
  ],
  [
    "with NaN in one vector",
    async (shop) =>
      shop.label(
        await shop.files.parquet(
          "nans",
          shop.rawFile,
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
    async (shop) => {
      const select = `SELECT * REPLACE (${ofOneRow("list_transform(activation_vector, x -> 'inf'::FLOAT)")}) FROM {file}`;
      const file = await shop.files.parquet("infinite", shop.rawFile, select);
      return [
        "data",
        "build",
        file,
        "--set",
        "rl",
        "--pair",
        path.join(shop.run, "verbalizer"),
        "--out",
        shop.out,
      ];
    },
    { code: "parquet.not-finite", found: /Infinity at index 0/, wanted: /finite/ },
  ],
  [
    "cut off",
    async (shop) => {
      const file = await shop.files.parquet("half", shop.rawFile, "SELECT * FROM {file}");
      await truncate(file, 700);
      return shop.label(file);
    },
    { code: "parquet.truncated", found: /700 bytes/, wanted: /PAR1/ },
  ],
  [
    "not there",
    (shop) => shop.label(path.join(shop.nla.folder, "none.parquet")),
    { code: "parquet.missing", subject: /none\.parquet/, found: /no such file/, wanted: /.+/ },
  ],
  [
    "without its sidecar",
    async (shop) => {
      const file = await shop.files.parquet("alone", shop.rawFile, "SELECT * FROM {file}");
      await rm(`${file}.nla_meta.yaml`);
      return shop.label(file);
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
    async (shop) => {
      const file = await shop.files.parquet("layer", shop.rawFile, "SELECT * FROM {file}");
      await editText(`${file}.nla_meta.yaml`, (text) => text.replace("layer_index: 2", "layer_index: 3"));
      return [
        "data",
        "build",
        file,
        "--set",
        "rl",
        "--pair",
        path.join(shop.run, "verbalizer"),
        "--out",
        shop.out,
      ];
    },
    { code: "build.contract", found: /after block 3/, wanted: /after block 2/ },
  ],
];

/** The activation of every row but one as it is, and of that one something else. */
function ofOneRow(changed: string): string {
  const last = "(SELECT max(n_raw_tokens) FROM {file})";
  return `CASE WHEN n_raw_tokens = ${last} THEN ${changed} ELSE activation_vector END AS activation_vector`;
}

export const pairs: readonly Fault[] = [
  [
    "whose sidecar has another marker id than the tokenizer",
    (shop) =>
      shop.explainSpoilt(
        "marker",
        sidecar("verbalizer", "injection_token_id: 512", "injection_token_id: 100"),
      ),
    {
      code: "contract.marker-drift",
      subject: /injection character/,
      found: "token 512",
      wanted: /token 100, as the sidecar/,
    },
  ],
  [
    "whose sidecar has other neighbours than the prompt",
    (shop) =>
      shop.explainSpoilt("left", (pair) =>
        editText(path.join(pair, "verbalizer/nla_meta.yaml"), (text) =>
          text.replace(/left_neighbor_id: \d+/, "left_neighbor_id: 3"),
        ),
      ),
    { code: "contract.site", found: /0 sites/, wanted: /between tokens 3 and/ },
  ],
  [
    "whose sidecar has another width than the model",
    (shop) => shop.explainSpoilt("dim", sidecar("verbalizer", "d_model: 64", "d_model: 32")),
    { code: "contract.width", found: "a model of width 64", wanted: /width 32/ },
  ],
  [
    "whose reconstructor was cut at another layer",
    (shop) => shop.explainSpoilt("cutat", sidecar("reconstructor", "layer_index: 2", "layer_index: 3")),
    { code: "contract.layer", subject: "the reconstructor", found: "3 blocks", wanted: /^4: layer 3/ },
  ],
  [
    "of two layers",
    (shop) => shop.explainSpoilt("layers", sidecar("verbalizer", "layer_index: 2", "layer_index: 1")),
    { code: "nla.pair", found: /layer 1.*layer 2/, wanted: /one pair/ },
  ],
  [
    "whose sidecar is not YAML",
    (shop) =>
      shop.explainSpoilt("yaml", (pair) => writeFile(path.join(pair, "verbalizer/nla_meta.yaml"), "kind: [")),
    { code: "yaml.syntax", subject: /verbalizer\/nla_meta\.yaml/, found: /.+/, wanted: "YAML" },
  ],
  [
    "whose value head is cut off",
    (shop) =>
      shop.explainSpoilt("head", (pair) =>
        truncate(path.join(pair, "reconstructor/value_head.safetensors"), 900),
      ),
    { code: "safetensors.truncated", subject: /value_head/, found: "900 bytes", wanted: /at least/ },
  ],
  [
    "that is not there",
    (shop) => shop.explain(path.join(shop.nla.folder, "nothing")),
    { code: "nla.directory", subject: /nothing/, found: "no such folder", wanted: /verbalizer\// },
  ],
];

export const configs: readonly Fault[] = [
  [
    "with an unknown key",
    async (shop) => {
      const text = "target: aidreams260K\nlayer: 2\ncorpus: { path: a.txt }\nrl:\n  kl_koef: 0.1\n";
      return [
        "train",
        await shop.files.file("unknown.yaml", text),
        "--run",
        path.join(shop.nla.folder, "fresh"),
      ];
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
    (shop) => shop.train("verbaliser.steps=3"),
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
    (shop) => shop.train("rl.steps=many"),
    { code: "config.value", found: '"many"', wanted: /whole number/, next: /^rl\.steps: / },
  ],
  [
    "with a layer that does not exist",
    (shop) => shop.train("layer=4"),
    { code: "model.layer", subject: "layer 4", found: "a model of 4 blocks", wanted: "a layer from 0 to 3" },
  ],
  [
    "with a target that is not there",
    (shop) => shop.train("target=missing"),
    { code: "target.missing", subject: /missing/, found: /no folder/, wanted: /aidreams260K/ },
  ],
  [
    "that is not there",
    (shop) => ["train", path.join(shop.nla.folder, "no.yaml")],
    { code: "config.missing", subject: /no\.yaml/, found: /no such file/, wanted: /YAML/ },
  ],
  [
    "of another run than the folder's",
    (shop) => ["train", shop.config, "--run", shop.run, "--set", "rl.group=2", "seed=1"],
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
    (shop) => ["train", shop.config, "--run", path.dirname(shop.out)],
    { code: "run.foreign-folder", found: "no config.yaml, but kept", wanted: /empty folder/ },
  ],
];

export const commandLines: readonly Fault[] = [
  [
    "a command that does not exist",
    () => ["trian"],
    { exit: 2, code: "cli.unknownCommand", found: /trian/, wanted: /--help/, next: /Did you mean train/ },
  ],
  [
    "an option that does not exist",
    (shop) => ["train", shop.config, "--runn", "x"],
    { exit: 2, code: "cli.unknownOption", found: /--runn/, wanted: /--help/, next: /Did you mean --run/ },
  ],
  [
    "a missing argument",
    () => ["train"],
    { exit: 2, code: "cli.missingArgument", subject: "nla train", found: /config/, wanted: /--help/ },
  ],
  [
    "ids that are not ids",
    (shop) => shop.forward(TARGET, '[[1, "a"]]'),
    { exit: 2, code: "forward.ids", found: /"a" at token 1 of sequence 0/, wanted: /JSON lists/ },
  ],
  [
    "an output in a file's place",
    (shop) => ["data", "label", shop.rawFile, "--out", path.join(shop.out, "x.parquet")],
    { code: /^system\.e/, subject: /kept/, found: /E/, wanted: /.+/ },
  ],
];
