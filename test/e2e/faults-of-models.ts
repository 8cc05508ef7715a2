// Models, weights and tokenizers that cannot be right, with the command that meets each and the error that it must give.
import { copyFile, readFile, rm, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { editText, TARGET } from "./bad-files.js";
import type { Fault, Workshop } from "./bad-workshop.js";

const first = (header: Record<string, unknown>) => Object.keys(header)[0] as string;

export const weights: readonly Fault[] = [
  [
    "cut off",
    async (shop) =>
      shop.forward(
        await shop.files.folder("cut", (at) => truncate(path.join(at, "model.safetensors"), 500_000)),
      ),
    {
      code: "safetensors.truncated",
      subject: /cut\/model\.safetensors$/,
      found: "500000 bytes",
      wanted: /at least \d+ bytes/,
    },
  ],
  [
    "empty",
    async (shop) =>
      shop.forward(await shop.files.folder("zero", (at) => truncate(path.join(at, "model.safetensors"), 0))),
    { code: "safetensors.truncated", found: "0 bytes", wanted: "at least 8 bytes" },
  ],
  [
    "with a header that is not JSON",
    async (shop) => shop.forward(await shop.files.header("nojson", () => '{"a": nonsense')),
    { code: "safetensors.not-json", found: /not valid JSON/, wanted: /JSON/ },
  ],
  [
    "with a header of 8 exabytes",
    async (shop) => shop.forward(await shop.files.header("huge", () => undefined, { length: 2n ** 63n })),
    { code: "safetensors.header-too-large", found: /9223372036854775808 bytes/, wanted: /at most/ },
  ],
  [
    "with a negative offset",
    async (shop) =>
      shop.forward(
        await shop.files.header(
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
    async (shop) =>
      shop.forward(
        await shop.files.header("overlap", (h) => {
          const [a, b] = Object.values(h).filter(({ shape }) => shape.length === 1);
          if (a && b) b.data_offsets = a.data_offsets;
        }),
      ),
    { code: "safetensors.offsets", found: /inside another tensor/, wanted: /offset \d+/ },
  ],
  [
    "with a tensor that ends beyond the file",
    async (shop) =>
      shop.forward(
        await shop.files.header("beyond", (h) => {
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
    async (shop) =>
      shop.forward(
        await shop.files.header(
          "shape",
          (h) => void ((h[first(h)] as { shape: number[] }).shape = [2 ** 40, 2 ** 40]),
        ),
      ),
    { code: "safetensors.size", found: /1099511627776, 1099511627776/, wanted: /bytes/ },
  ],
  [
    "not there",
    async (shop) =>
      shop.forward(await shop.files.folder("none", (at) => rm(path.join(at, "model.safetensors")))),
    {
      code: "safetensors.no-weights",
      found: /neither model\.safetensors nor/,
      wanted: /safetensors weights/,
    },
  ],
  [
    "with NaN in them",
    async (shop) => shop.forward(await nanWeights(shop)),
    {
      code: "model.not-finite",
      subject: /tensor model\..*element \d+/,
      found: "NaN",
      wanted: "finite weights",
    },
  ],
];

/** The target with one weight that is not a number. */
function nanWeights(shop: Workshop): Promise<string> {
  return shop.files.folder("nan", async (at) => {
    const file = path.join(at, "model.safetensors");
    const bytes = await readFile(file);
    bytes.writeFloatLE(Number.NaN, bytes.length - 4);
    await writeFile(file, bytes);
  });
}

export const models: readonly Fault[] = [
  [
    "a config.json wider than the weights",
    async (shop) => shop.forward(await shop.files.config("wide", { hidden_size: 128 })),
    {
      code: "model.weights",
      subject: /model\.embed_tokens\.weight/,
      found: /\[512, 64\]/,
      wanted: /\[512, 128\] that config\.json/,
    },
  ],
  [
    "a config.json with more blocks than the weights",
    async (shop) => shop.forward(await shop.files.config("deep", { num_hidden_layers: 9 })),
    { code: "model.weights", subject: /layers\.4/, found: "no such tensor", wanted: /config\.json/ },
  ],
  [
    "a config.json with fewer blocks than the weights",
    async (shop) => shop.forward(await shop.files.config("flat", { num_hidden_layers: 3 })),
    {
      code: "model.weights",
      found: /9 tensors that config\.json does not account for/,
      wanted: /29 tensors/,
    },
  ],
  [
    "heads that do not divide",
    async (shop) => shop.forward(await shop.files.config("heads", { num_attention_heads: 7 })),
    { code: "model.config", subject: /num_attention_heads/, found: "7", wanted: /multiple of/ },
  ],
  [
    "a config.json cut off",
    async (shop) =>
      shop.forward(await shop.files.folder("torn", (at) => truncate(path.join(at, "config.json"), 40))),
    { code: "model.config-syntax", found: /JSON/, wanted: "a JSON object" },
  ],
  [
    "a block that does not exist",
    (shop) => [...shop.forward(TARGET), "--capture", "0,9"],
    { code: "model.layer", subject: "layer 9", found: "a model of 4 blocks", wanted: "a layer from 0 to 3" },
  ],
  [
    "a token id beyond the vocabulary",
    (shop) => shop.forward(TARGET, "[[1, 512]]"),
    { code: "tensor.index", found: "512", wanted: /0 to 511/, next: /tokenizer/ },
  ],
  [
    "more ids than the context",
    (shop) => shop.forward(TARGET, JSON.stringify([Array(129).fill(1)])),
    { code: "model.batch", found: "129 tokens", wanted: /1 to 128 tokens/ },
  ],
  [
    "a folder that is not there",
    (shop) => shop.forward(path.join(shop.nla.folder, "nowhere")),
    {
      code: "model.config-missing",
      subject: /nowhere\/config\.json/,
      found: /no such file/,
      wanted: /Hugging Face/,
    },
  ],
];

export const tokenizers: readonly Fault[] = [
  [
    "missing",
    async (shop) =>
      shop.extract(
        shop.corpus,
        "--model",
        await shop.files.folder("notok", (at) => rm(path.join(at, "tokenizer.json"))),
      ),
    {
      code: "tokenizer.missing",
      subject: /notok\/tokenizer\.json/,
      found: "no such file",
      wanted: /tokenizer/,
    },
  ],
  [
    "not a tokenizer",
    async (shop) =>
      shop.extract(
        shop.corpus,
        "--model",
        await shop.files.folder("badtok", (at) => writeFile(path.join(at, "tokenizer.json"), "{}")),
      ),
    { code: "tokenizer.json", found: /absent/, wanted: /vocabulary/ },
  ],
  [
    "with more ids than the embedding has rows",
    async (shop) => shop.extract(shop.corpus, "--model", await shop.files.folder("bigtok", addToken)),
    {
      code: "contract.vocabulary",
      subject: /bigtok/,
      found: "a tokenizer of 601 ids",
      wanted: /at most 512/,
    },
  ],
  [
    "of another model, in training",
    async (shop) => shop.train(`target=${await shop.files.folder("othertok", addToken)}`),
    { code: "contract.vocabulary", found: /601 ids/, wanted: /at most 512/ },
  ],
  [
    "without the pair's marker",
    (shop) =>
      shop.explainSpoilt("unmarked", async (pair) => {
        for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
          await copyFile(path.join(TARGET, name), path.join(pair, "verbalizer", name));
        }
      }),
    { code: "contract.marker", subject: /injection character/, found: /tokens \[/, wanted: /one token/ },
  ],
  [
    "gone from the pair",
    (shop) => shop.explainSpoilt("gone", (pair) => rm(path.join(pair, "verbalizer/tokenizer.json"))),
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
