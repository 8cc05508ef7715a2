// Does a model that is larger than half of free memory load, how long does it take, and what memory is its own?
//   npm run build && node bench/big-model.mjs [--share 0.6] [--threads 1] [--tokens 4]
// Makes a Llama in BF16 of that share of free memory as one safetensors file of zeros, which takes no room on the disk; loads it mapped,
// runs a few tokens through it, and then asks for it in f32, which must be refused with both numbers. Linux only: it reads /proc.
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { availableMemory } from "node:process";
import { checkStored, loadDecoder, parameterShapes, parseConfig, run } from "../dist/model/index.js";
import { Device } from "../dist/tensor/index.js";

const option = (name, otherwise) => {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : Number(process.argv[at + 1]);
};
const share = option("share", 0.6);
const free = availableMemory();
const dim = 4096;
const json = {
  model_type: "llama",
  hidden_size: dim,
  num_attention_heads: 32,
  num_key_value_heads: 8,
  intermediate_size: 11_008,
  vocab_size: 32_000,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  num_hidden_layers: 1,
  tie_word_embeddings: true,
};
const bytesOf = (layers) => {
  const shapes = parameterShapes(parseConfig({ ...json, num_hidden_layers: layers }, "bench"));
  return [...shapes.values()].reduce((sum, shape) => sum + 2 * shape.reduce((a, b) => a * b, 1), 0);
};
while (bytesOf(json.num_hidden_layers) < share * free) json.num_hidden_layers++;

const gigabytes = (bytes) => (bytes / 1e9).toFixed(1);
const memory = () => {
  const status = readFileSync("/proc/self/status", "utf8");
  const read = (key) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(status)[1]) / 2 ** 10;
  return { own: read("RssAnon"), mapped: read("RssFile"), peak: read("VmHWM") };
};
const tell = (what, seconds) => {
  const { own, mapped, peak } = memory();
  const numbers = `${own.toFixed(0)} MiB of its own, ${mapped.toFixed(0)} MiB of mapped pages, peak of both ${peak.toFixed(0)} MiB`;
  console.log(`${what}${seconds === undefined ? "" : ` in ${seconds.toFixed(1)} s`}: ${numbers}`);
};

// How fast weights are looked at for NaN, once they are in memory, in seconds of one core.
const bytes = new Uint8Array(2 ** 24);
const speeds = [];
for (const [type, block] of [
  ["bf16", 2],
  ["f16", 2],
  ["f32", 4],
  ["q8_0", 34],
  ["q4_k", 144],
]) {
  const whole = bytes.subarray(0, Math.floor(bytes.length / block) * block);
  for (let i = 0; i < 5; i++) checkStored("bench", "warm-up", type, whole);
  const start = process.cpuUsage();
  for (let i = 0; i < 40; i++) checkStored("bench", "tensor", type, whole);
  const seconds = process.cpuUsage(start).user / 1e6;
  speeds.push(`${type} ${((40 * whole.length) / 1e9 / seconds).toFixed(1)}`);
}
console.log(`looked at, GB a second: ${speeds.join(", ")}`);

const folder = mkdtempSync(path.join(tmpdir(), "big-model-"));
try {
  const header = {};
  let end = 0;
  for (const [name, shape] of parameterShapes(parseConfig(json, "bench"))) {
    const begin = end;
    end += 2 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: "BF16", shape, data_offsets: [begin, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, " ")]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const file = openSync(path.join(folder, "model.safetensors"), "w");
  writeSync(file, Buffer.concat([length, padded]));
  ftruncateSync(file, 8 + padded.length + end);
  closeSync(file);
  writeFileSync(path.join(folder, "config.json"), JSON.stringify(json));

  console.log(`${json.num_hidden_layers} blocks, ${gigabytes(end)} GB in BF16; ${gigabytes(free)} GB free`);
  const device = Device.open({ threads: option("threads", 1) });
  tell("before");
  let start = performance.now();
  const model = await loadDecoder(folder, device, {}, "stored");
  tell("loaded, every weight looked at,", (performance.now() - start) / 1000);
  const ids = Array.from({ length: option("tokens", 4) }, (_, i) => i + 1);
  start = performance.now();
  await run(model, [ids], { logits: "last" });
  tell(`${ids.length} tokens`, (performance.now() - start) / 1000);
  model[Symbol.dispose]();
  try {
    (await loadDecoder(folder, device))[Symbol.dispose]();
    console.log("in f32 it fits, too: take a larger --share");
  } catch (thrown) {
    console.log(`in f32: ${thrown.code}: found ${thrown.found}`);
  }
  device[Symbol.dispose]();
} finally {
  rmSync(folder, { recursive: true });
}
