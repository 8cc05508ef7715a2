// One sequence, greedy, against llama.cpp's own library on the same weights, alternating.
//   npm run build && node bench/against-llama.mjs [--type f32|f16|q8_0|q4_k_m] [--threads 2] [--pairs 2] [--dim 512]
// Prints tokens per second of decoding (prompt 60, 80 new, the prompt included) and the ratio ours / theirs.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import {
  Decoder,
  generate,
  loadDecoder,
  parseConfig,
  randomParameters,
  saveGguf,
} from "../dist/model/index.js";
import { Device } from "../dist/tensor/index.js";

const option = (name, otherwise) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : process.argv[at + 1];
};
const [type, threads, pairs, dim] = [
  option("type", "f32"),
  +option("threads", 2),
  +option("pairs", 2),
  +option("dim", 512),
];
const json = {
  model_type: "llama",
  hidden_size: dim,
  num_hidden_layers: 6,
  num_attention_heads: dim / 64,
  num_key_value_heads: dim / 64,
  intermediate_size: dim * 3,
  vocab_size: 4096,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
};
const [PROMPT, NEW] = [60, 80];
const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];
const folder = mkdtempSync(path.join(tmpdir(), "against-llama-"));
try {
  const device = Device.open({ threads });
  const file = path.join(folder, "model.gguf");
  {
    const random = new Decoder(device, parseConfig(json, "bench"), randomParameters(1, 0.05));
    await saveGguf(file, random, { holding: type });
    random[Symbol.dispose]();
  }
  const model = await loadDecoder(file, device, {}, "stored");
  const ids = Array.from({ length: PROMPT }, (_, i) => (i * 37 + 5) % 4096);
  const ratios = [];
  for (let pair = 0; pair < pairs; pair++) {
    const ours = [];
    let mine;
    for (let round = 0; round < 4; round++) {
      const start = performance.now();
      [mine] = await generate(model, [ids], { maxNewTokens: NEW, temperature: 0 });
      if (round > 0) ours.push((performance.now() - start) / 1000);
    }
    const child = path.resolve(import.meta.dirname, "../test/model/llama/llama-cpp.mjs");
    const greedy = (attention) => {
      const settings = [String(NEW), String(threads), attention];
      const output = execFileSync(
        process.execPath,
        [child, "greedy", file, JSON.stringify(ids), ...settings],
        {
          encoding: "utf8",
          stdio: ["ignore", "pipe", "ignore"],
        },
      );
      return JSON.parse(output);
    };
    const { tokens, rounds } = greedy("default");
    const theirs = rounds.slice(1).map(({ prompt, decode }) => prompt + decode);
    const same = (made) => {
      const at = made.findIndex((token, i) => token !== mine.tokens[i]);
      return at < 0 ? "all" : `up to ${at}`;
    };
    // Timed with the attention that it takes by itself; compared with the plain one, too, which is exact in F32.
    const plain = pair === 0 ? `, ${same(greedy("plain").tokens)} with its plain attention` : "";
    ratios.push(median(theirs) / median(ours));
    console.log(
      `${type}: ours ${(NEW / median(ours)).toFixed(0)} tok/s, llama.cpp ${(NEW / median(theirs)).toFixed(0)} ` +
        `(its prompt ${(median(rounds.map(({ prompt }) => prompt)) * 1000).toFixed(1)} ms), ratio ${ratios.at(-1).toFixed(2)}, ` +
        `tokens equal ${same(tokens)}${plain}`,
    );
  }
  console.log(`median ratio ${median(ratios).toFixed(2)}`);
  model[Symbol.dispose]();
  device[Symbol.dispose]();
} finally {
  rmSync(folder, { recursive: true });
}
