// How much 64 clients at once get out of `nla serve`, against one after another, in the same session: the server is a child process,
// the clients are here. Prints a markdown table. Needs `npm run build`.
//
//   node bench/serve.mjs [--model DIR] [--clients 64] [--tokens 64] [--threads 2]
import { spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

const { values: flags } = parseArgs({
  options: {
    model: { type: "string", default: "aidreams260K" },
    clients: { type: "string", default: "64" },
    tokens: { type: "string", default: "64" },
    alone: { type: "string", default: "12" },
    rounds: { type: "string", default: "3" },
    threads: { type: "string", default: "2" },
    compute: { type: "string", default: "f32" },
  },
});
const clients = Number(flags.clients);
const tokens = Number(flags.tokens);
const main = path.resolve(import.meta.dirname, "../dist/cli/main.js");
const settings = ["--model", flags.model, "--threads", flags.threads, "--compute", flags.compute];
const server = spawn(
  process.execPath,
  [main, "serve", ...settings, "--port", "0", "--context", "256", "--json"],
  {
    stdio: ["ignore", "pipe", "inherit"],
  },
);
const lines = createInterface({ input: server.stdout });
const first = await new Promise((resolve) => lines.once("line", resolve));
const { url } = JSON.parse(first);

async function ask(i) {
  const input_ids = Array.from({ length: 12 }, (_, j) => 5 + ((i * 31 + j * 17) % 400));
  const sampling_params = { max_new_tokens: tokens, temperature: 1, seed: i, ignore_eos: true };
  const response = await fetch(`${url}/generate`, {
    method: "POST",
    body: JSON.stringify({ input_ids, sampling_params }),
  });
  const reply = await response.json();
  if (!response.ok) throw new Error(JSON.stringify(reply));
  return reply.output_ids.length;
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const rates = { alone: [], together: [] };
await Promise.all(Array.from({ length: 4 }, (_, i) => ask(i)));
for (let round = 0; round < Number(flags.rounds); round++) {
  let started = performance.now();
  let made = 0;
  for (let i = 0; i < Number(flags.alone); i++) made += await ask(i);
  rates.alone.push((1000 * made) / (performance.now() - started));
  started = performance.now();
  const counts = await Promise.all(Array.from({ length: clients }, (_, i) => ask(i)));
  rates.together.push((1000 * counts.reduce((a, b) => a + b, 0)) / (performance.now() - started));
}
server.kill("SIGTERM");
await new Promise((resolve) => server.once("close", resolve));
const [alone, together] = [median(rates.alone), median(rates.together)];
console.log(`| model | one after another, tokens/s | ${clients} clients at once | ratio |`);
console.log("| --- | --- | --- | --- |");
console.log(
  `| ${path.basename(flags.model)} | ${alone.toFixed(0)} | ${together.toFixed(0)} | ${(together / alone).toFixed(1)} |`,
);
