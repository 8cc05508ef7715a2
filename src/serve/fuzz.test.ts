// Damaged requests by the thousand, to every route that takes a body and to the HTTP head itself: each is answered with a status that is
// not 500, or its connection closed; none that is no JSON is taken; and the server answers a good one afterwards as it did before.
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { loadNla } from "../nla/read.js";
import type { Nla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { Device } from "../tensor/index.js";
import { createApp } from "./app.js";
import { listen } from "./listen.js";
import type { Listening } from "./listen.js";
import { ServedModel } from "./served-model.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-serve-fuzz-"));
let device: Device;
let target: Target;
let nla: Nla;
let server: Listening;
const models: ServedModel[] = [];

beforeAll(async () => {
  device = Device.open({ threads: 1 });
  await writeUntrainedPair(scratch, device);
  nla = await loadNla(scratch, device);
  target = await loadTarget("aidreams260K", device);
  const model = new ServedModel(target.name, target.model, target.tokenizer, { maxTokens: 64 });
  const { model: decoder, tokenizer } = nla.verbalizer;
  const verbalizer = new ServedModel("pair", decoder, tokenizer, { maxTokens: 64 });
  models.push(model, verbalizer);
  const served = { target, nla, verbalizer, maxPositions: 8 };
  const app = createApp({
    version: "0",
    target: model,
    generator: verbalizer,
    nla: served,
    maxBody: 2 ** 20,
  });
  server = await listen(app, { host: "127.0.0.1", port: 0 });
});
afterAll(async () => {
  await server.close();
  for (const each of models) await each[Symbol.asyncDispose]();
  target[Symbol.dispose]();
  nla[Symbol.dispose]();
  device[Symbol.dispose]();
  rmSync(scratch, { recursive: true, force: true });
});

const PER_ROUTE = 400;
const AT_ONCE = 50;
const PIECES = [
  "[",
  "]",
  "{",
  "}",
  "null",
  "-",
  "1e999",
  "1e38",
  '"',
  ",,",
  "\u0000",
  "\\u",
  "99999999999",
  "true",
];

/** A stream of numbers that is the same in every run. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below); // the high bits: the low ones repeat soon
  };
}

/** The bytes with one to four changes: one byte, a piece of text over or between others, a move, a cut. */
function mutated(text: string, random: (below: number) => number): Buffer {
  let bytes = Buffer.from(text);
  for (let k = 0; k <= random(4) && bytes.length > 0; k++) {
    const at = random(bytes.length);
    const piece = PIECES[random(PIECES.length)] as string;
    const kind = random(6);
    if (kind === 0) bytes[at] = random(256);
    else if (kind === 1) bytes.write(piece, at);
    else if (kind === 2) bytes.copyWithin(at, random(bytes.length), random(bytes.length));
    else if (kind === 3 && random(4) === 0) bytes = Buffer.from(bytes.subarray(0, at));
    else if (kind === 4)
      bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(piece), bytes.subarray(at)]);
    else bytes[at] = (bytes[at] as number) ^ (1 << random(8));
  }
  return bytes;
}

const WIDTH = 64;
const row = Array.from({ length: WIDTH }, (_, i) => Math.fround((i - 30) / 100));
const sampling_params = { temperature: 0, max_new_tokens: 4 };
const bf16 = Buffer.alloc(2 * WIDTH, 0x3d).toString("base64");
const ROUTES: readonly (readonly [string, string, object])[] = [
  ["rows", "/generate", { input_embeds: [row, row], sampling_params, return_logprob: true }],
  ["base64", "/generate", { input_embeds_b64_bf16: bf16, input_embeds_shape: [1, WIDTH], sampling_params }],
  [
    "ids",
    "/generate",
    {
      input_ids: [[5, 6], [7]],
      sampling_params: [sampling_params, { n: 2, stop: ["a"], seed: 3, max_new_tokens: 4 }],
    },
  ],
  ["a text", "/v1/completions", { prompt: "Once upon", max_tokens: 4, temperature: 0.5, seed: 1, stop: "b" }],
  ["a text", "/v1/nla/explain", { text: "A dog ran.", positions: [-1, 2], max_new_tokens: 4, stream: false }],
  ["pairs", "/v1/nla/score", { items: [{ description: "a dog", activation: row }] }],
  ["texts", "/v1/nla/reconstruct", { descriptions: ["a dog", "the sun"] }],
];

async function ask(route: string, body: Buffer | string): Promise<{ status: number; text: string }> {
  const response = await fetch(`${server.url}${route}`, { method: "POST", body });
  return { status: response.status, text: await response.text() };
}

it.each(ROUTES)(
  `${PER_ROUTE} damaged bodies with %s to %s`,
  async (kind, route, good) => {
    const random = randomFrom(kind.length + 31 * route.length);
    const whole = JSON.stringify(good);
    const before = await ask(route, whole);
    expect(before.status, before.text).toBe(200);
    let refused = 0;
    for (let i = 0; i < PER_ROUTE; i += AT_ONCE) {
      const bodies = Array.from({ length: AT_ONCE }, () => mutated(whole, random));
      const answers = await Promise.all(bodies.map((body) => ask(route, body)));
      for (const [j, { status, text }] of answers.entries()) {
        const sent = (bodies[j] as Buffer).toString();
        expect([200, 400, 413, 422, 429], `${sent}\n${text}`).toContain(status);
        if (status === 200) expect(() => JSON.parse(sent) as unknown, sent).not.toThrow();
        else {
          expect(JSON.parse(text)).toMatchObject({ error: { code: expect.stringMatching(/\./) as string } });
          refused++;
        }
      }
    }
    expect(refused).toBeGreaterThan(PER_ROUTE / 10);
    const after = await ask(route, whole);
    expect(withoutIds(after.text)).toBe(withoutIds(before.text));
  },
  120_000,
);

function withoutIds(text: string): string {
  return text.replaceAll(/"(id|created)":("[^"]*"|\d+)/g, "");
}

it(`${PER_ROUTE} damaged heads: an answer or a closed connection, and the server lives`, async () => {
  const body = JSON.stringify({ descriptions: ["a dog"] });
  const head = [
    "POST /v1/nla/reconstruct HTTP/1.1",
    "Host: 127.0.0.1",
    "Content-Type: application/json",
    `Content-Length: ${body.length}`,
    "Connection: close",
  ];
  const random = randomFrom(77);
  for (let i = 0; i < PER_ROUTE; i += AT_ONCE) {
    const answers = await Promise.all(
      Array.from({ length: AT_ONCE }, () => {
        const bytes = mutated(`${head.join("\r\n")}\r\n\r\n`, random);
        return new Promise<string>((resolve) => {
          const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
          let text = "";
          socket.on("data", (part) => (text += String(part)));
          socket.on("error", () => undefined); // cut off in the middle: closed follows
          socket.on("close", () => resolve(text));
          socket.end(Buffer.concat([bytes, Buffer.from(body)]));
        });
      }),
    );
    for (const text of answers) expect(text).toMatch(/^(HTTP\/1\.1 [1-4]\d\d |$)/);
  }
  expect((await ask("/v1/nla/reconstruct", body)).status).toBe(200);
}, 120_000);
