// llama.cpp's own library as a judge and a rival: run as a child process, because it brings a second engine into the process.
//   node llama-cpp.mjs texts FILE.gguf '[texts]'         JSON: ids of each, with BOS as the file says, and the chat template
//   node llama-cpp.mjs logits FILE.gguf '[ids]'          JSON on stdout: the last token's logits
//   node llama-cpp.mjs greedy FILE.gguf '[ids]' N T      JSON: tokens, seconds of prompt and of decoding (T threads)
// A sixth argument, plain or fused, says which attention it is to use.
// The structs are those of the pinned version of the package; only the fields that are set here have names that matter.
import koffi from "koffi";
import { readdirSync } from "node:fs";
import path from "node:path";

const [, , mode, file, idsText, count = "1", threads = "1", flash = "default"] = process.argv;
const folder = path.resolve(
  import.meta.dirname,
  "../../../node_modules/@node-llama-cpp/linux-x64/bins/linux-x64",
);
const find = (pattern) =>
  path.join(
    folder,
    readdirSync(folder).find((name) => pattern.test(name)),
  );
koffi.load(find(/^libggml-base/), { global: true });
const registry = koffi.load(find(/^libggml\.v|^libggml\.so/), { global: true });
registry.func("void ggml_backend_load_all_from_path(str)")(folder);
const llama = koffi.load(find(/^libllama\.v/), { global: true });

const P = "void*";
const flags = koffi.array("bool", 6);
const many = (names, type) => Object.fromEntries(names.split(" ").map((name) => [name, type]));
koffi.struct("model_params", {
  ...many("devices overrides", P),
  ...many("gpu_layers split load_mode lazy main_gpu", "int"),
  ...many("tensor_split progress progress_data kv_overrides", P),
  flags,
});
koffi.struct("context_params", {
  ...many("n_ctx n_batch n_ubatch n_seq n_rs n_om n_ops", "uint32_t"),
  ...many("n_threads n_threads_batch context_type rope_type pooling attention flash", "int"),
  ...many("freq_base freq_scale yarn1 yarn2 yarn3 yarn4", "float"),
  yarn_original: "uint32_t",
  defrag: "float",
  ...many("callback callback_data", P),
  ...many("type_k type_v", "int"),
  ...many("abort abort_data", P),
  flags,
  samplers: P,
  sampler_count: "size_t",
  other: P,
});
koffi.struct("batch", { n: "int", ...many("token embd pos n_seq seq logits", P) });
const bind = (name, result, types) => llama.func(name, result, types);
bind("llama_log_set", "void", [P, P])(
  koffi.register(() => {}, koffi.pointer(koffi.proto("void quiet(int, str, void*)"))),
  null,
);
bind("llama_backend_init", "void", [])();
const model = bind("llama_model_load_from_file", P, ["str", "model_params"])(
  file,
  bind("llama_model_default_params", "model_params", [])(),
);
if (model === null) throw new Error(`llama.cpp does not load ${file}`);
if (mode === "texts") {
  const vocabulary = bind("llama_model_get_vocab", P, [P])(model);
  const tokenize = bind("llama_tokenize", "int", [P, P, "int", P, "int", "bool", "bool"]);
  const ids = JSON.parse(idsText).map((text) => {
    const bytes = new TextEncoder().encode(text);
    const room = new Int32Array(bytes.length + 8);
    const count = tokenize(vocabulary, bytes, bytes.length, room, room.length, true, true);
    if (count < 0) throw new Error(`llama_tokenize: ${count}`);
    return Array.from(room.subarray(0, count));
  });
  const end = (name) => bind(name, "int", [P])(vocabulary);
  const template = bind("llama_model_chat_template", "str", [P, "str"])(model, null);
  const isEnd = bind("llama_vocab_is_eog", "bool", [P, "int"]);
  const ends = ids.flat().filter((id) => isEnd(vocabulary, id));
  const named = Object.fromEntries(
    ["bos", "eos", "eot", "pad"].map((name) => [name, end(`llama_vocab_${name}`)]),
  );
  console.log(JSON.stringify({ ids, template, named, ends: [...new Set(ends)] }));
  process.exit(0);
}
const params = bind("llama_context_default_params", "context_params", [])();
const n = Number(threads);
Object.assign(params, {
  n_ctx: 512,
  n_batch: 512,
  n_ubatch: 512,
  n_threads: n,
  n_threads_batch: n,
  type_k: 0,
  type_v: 0,
});
// Its fused attention on the CPU is not exact in F32: docs/log.md, "Greedy tokens against llama.cpp".
params.flash = flash === "fused" ? 1 : flash === "plain" || mode === "logits" ? 0 : params.flash;
const context = bind("llama_init_from_model", P, [P, "context_params"])(model, params);
if (context === null) throw new Error("no context");
const vocabulary = bind("llama_vocab_n_tokens", "int", [P])(bind("llama_model_get_vocab", P, [P])(model));
const one = bind("llama_batch_get_one", "batch", [P, "int"]);
const decode = bind("llama_decode", "int", [P, "batch"]);
const logitsOf = bind("llama_get_logits_ith", P, [P, "int"]);
function step(ids) {
  const memory = koffi.alloc("int", ids.length);
  koffi.encode(memory, koffi.array("int", ids.length), Int32Array.from(ids));
  const code = decode(context, one(memory, ids.length));
  if (code !== 0) throw new Error(`llama_decode: ${code}`);
  return new Float32Array(koffi.view(logitsOf(context, -1), vocabulary * 4));
}
const greatest = (values) => {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
};
const ids = JSON.parse(idsText);
if (mode === "logits") console.log(JSON.stringify([...step(ids)]));
else {
  const clear = bind("llama_memory_clear", "void", [P, "bool"]);
  const memory = bind("llama_get_memory", P, [P])(context);
  const rounds = [];
  let tokens;
  for (let round = 0; round < 4; round++) {
    clear(memory, true);
    const start = performance.now();
    tokens = [greatest(step(ids))];
    const prompt = performance.now();
    while (tokens.length < Number(count)) tokens.push(greatest(step([tokens.at(-1)])));
    rounds.push({ prompt: (prompt - start) / 1000, decode: (performance.now() - prompt) / 1000 });
  }
  console.log(JSON.stringify({ tokens, rounds }));
}
process.exit(0);
