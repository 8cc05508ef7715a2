// The server over real sockets: the reference client's recorded requests, what it answers to bad ones, and that it lives through them;
// and our client against several servers, one of which dies.
import { readFileSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { loadNla, read } from "../nla/read.js";
import type { Nla } from "../nla/read.js";
import { loadTarget } from "../nla/target.js";
import type { Target } from "../nla/target.js";
import { writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { Device } from "../tensor/index.js";
import { createApp } from "./app.js";
import { listen } from "./listen.js";
import type { Listening } from "./listen.js";
import { RemoteServers } from "./remote-servers.js";
import { RemoteVerbalizer, shortest, textOfReply } from "./remote-verbalizer.js";
import { ServedModel } from "./served-model.js";

interface Encoded {
  readonly shape: readonly number[];
  readonly b64: string;
}

/** Rows of a golden array. */
function rowsOf({ shape, b64 }: Encoded): number[][] {
  const bytes = Buffer.from(b64, "base64");
  const [tokens, width] = shape as [number, number];
  return Array.from({ length: tokens }, (_, t) =>
    Array.from({ length: width }, (__, i) => bytes.readFloatLE(4 * (t * width + i))),
  );
}

function json<T>(file: string): T {
  return JSON.parse(readFileSync(file, "utf8")) as T;
}

async function post(url: string, body: unknown, headers: Record<string, string> = {}) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const response = await fetch(url, { method: "POST", body: text, headers });
  const answer = await response.text();
  return { status: response.status, text: answer };
}

interface Reply {
  readonly text: string;
  readonly output_ids: number[];
  readonly meta_info: {
    readonly finish_reason: { readonly type: string };
    readonly output_token_logprobs?: readonly (readonly [number, number, null])[];
    readonly prompt_tokens: number;
  };
}

async function loadOf(url: string): Promise<{ active: number; steps: number }> {
  return (await (await fetch(`${url}/health`)).json()) as { active: number; steps: number };
}

const families = ["qwen2", "gemma3", "llama", "gemma3-wrapper"];

describe.each(families)("POST /generate with the golden %s", (family) => {
  const folder = sharedPath(`golden/nla/actor/${family}`);

  it.skipIf(folder === null)(
    "gives the reference's greedy tokens, and the client sends its payloads",
    async () => {
      using device = Device.open({ threads: 1 });
      using target = await loadTarget(path.join(folder as string, "av"), device);
      await using model = new ServedModel("av", target.model, target.tokenizer, { maxTokens: 512 });
      const server = await listen(createApp({ version: "0", target: model, generator: model, nla: null }), {
        host: "127.0.0.1",
        port: 0,
      });
      interface Case {
        readonly raw: number[];
        readonly input_embeds?: Encoded;
        readonly greedy_ids: number[];
      }
      const { cases } = json<{ cases: Case[] }>(path.join(folder as string, "expect.json"));
      const client = await RemoteVerbalizer.load(
        path.join(folder as string, "av"),
        new RemoteServers([server.url]),
        { layer: 2 },
      );
      const ours = cases.map(({ raw }) => client.request(Float32Array.from(raw)).input_embeds);
      const [first] = cases as [Case];
      expect(ours[0]?.map((row) => row.map(Math.fround))).toEqual(rowsOf(first.input_embeds as Encoded));
      const greedy = { temperature: 0, max_new_tokens: 16, ignore_eos: true };
      const body = {
        input_embeds: ours,
        sampling_params: greedy,
        return_logprob: true,
      };
      const { status, text } = await post(`${server.url}/generate`, body);
      expect(status, text.slice(0, 300)).toBe(200);
      const replies = JSON.parse(text) as Reply[];
      expect(replies.map((each) => each.output_ids)).toEqual(cases.map((each) => each.greedy_ids));
      for (const { meta_info: meta, output_ids: ids } of replies) {
        expect(meta.output_token_logprobs?.map(([, id]) => id)).toEqual(ids);
        expect(meta.output_token_logprobs?.every(([p]) => p <= 0)).toBe(true);
        expect(meta.finish_reason).toEqual({ type: "length", length: 16 });
      }
      await server.close();
    },
  );
});

describeWith(sharedPath("golden/nla/wire"), "recorded requests", () => {
  const wire = sharedPath("golden/nla/wire") as string;
  let server: Listening;
  let close: () => Promise<void>;
  beforeAll(async () => {
    const device = Device.open({ threads: 1 });
    const target = await loadTarget(sharedPath("golden/nla/actor/qwen2/av") as string, device);
    const model = new ServedModel("av", target.model, target.tokenizer, { maxTokens: 512, maxQueue: 64 });
    const app = createApp({ version: "0", target: model, generator: model, nla: null, maxBody: 2 ** 21 });
    server = await listen(app, { host: "127.0.0.1", port: 0 });
    close = async () => {
      await server.close();
      await model[Symbol.asyncDispose]();
      target[Symbol.dispose]();
      device[Symbol.dispose]();
    };
  });
  afterAll(() => close());

  interface Recorded {
    readonly body?: Record<string, unknown>;
    readonly requests?:
      number | readonly { readonly method: string; readonly body?: Record<string, unknown> }[];
  }
  const recorded = ["client_requests.json", "rollout_requests.json"].flatMap((file) =>
    Object.entries(json<Record<string, Recorded>>(path.join(wire, file))).flatMap(
      ([name, { body, requests = [] }]) =>
        [body, ...(Array.isArray(requests) ? requests : []).map((each) => each.body)]
          .filter((each) => each !== undefined)
          .map((each) => [`${file}: ${name}`, each] as const),
    ),
  );

  it.each(recorded.filter(([name]) => name.includes("qwen2")))("%s", async (_, body) => {
    const { input_embeds: embeds, sampling_params: sampling } = body as {
      input_embeds?: Encoded;
      sampling_params: object;
    };
    const sent = {
      ...body,
      sampling_params: { ...sampling, max_new_tokens: 4 },
      ...(embeds ? { input_embeds: rowsOf(embeds) } : {}),
    };
    const { status, text } = await post(`${server.url}/generate`, sent);
    expect(status, text).toBe(200);
    const reply = JSON.parse(text) as Reply;
    expect(textOfReply(reply).text).toBe(reply.text);
    expect(reply.output_ids.length).toBeLessThanOrEqual(4);
    if ((body as { return_logprob?: boolean }).return_logprob)
      expect(reply.meta_info.output_token_logprobs?.length).toBe(reply.output_ids.length);
  });

  it("one body byte for byte, and base64 gives what JSON gives", async () => {
    const full = readFileSync(path.join(wire, "client_request_full_body.json"), "utf8");
    expect((await post(`${server.url}/generate`, full)).status).toBe(200);
    const [, body] = recorded.find(
      ([, each]) => "input_embeds_b64_bf16" in each,
    ) as (typeof recorded)[number];
    const bits = Buffer.from(body["input_embeds_b64_bf16"] as string, "base64");
    const [tokens, width] = body["input_embeds_shape"] as [number, number];
    const rows = Array.from({ length: tokens }, (_, t) =>
      Array.from({ length: width }, (__, i) => {
        const four = Buffer.alloc(4);
        bits.copy(four, 2, 2 * (t * width + i), 2 * (t * width + i) + 2);
        return four.readFloatLE(0);
      }),
    );
    const sampling_params = { temperature: 0, max_new_tokens: 8 };
    const packed = await post(`${server.url}/generate`, { ...body, sampling_params });
    const plain = await post(`${server.url}/generate`, { input_embeds: rows, sampling_params });
    expect((JSON.parse(packed.text) as Reply).output_ids).toEqual(
      (JSON.parse(plain.text) as Reply).output_ids,
    );
  });

  it("replies that the reference's client takes or refuses, ours takes or refuses", () => {
    const replies = json<{ body: string; status: number; ok?: string }[]>(
      path.join(wire, "client_replies.json"),
    );
    for (const { body, status, ok } of replies.filter((each) => each.status >= 200 && each.status < 300)) {
      const take = () => textOfReply(JSON.parse(body.replace(/^\uFEFF/, "")));
      if (ok === undefined) expect(take, body).toThrow();
      else expect(take().text.includes(ok), `${status} ${body}`).toBe(true);
    }
  });

  const row = Array.from({ length: 24 }, () => 0.5);
  const good = { input_embeds: [row, row], sampling_params: { temperature: 0, max_new_tokens: 2 } };
  const bad: [string, unknown, number, string][] = [
    ["malformed", "{bad", 400, "http.json"],
    ["NaN", '{"input_embeds": [[NaN]]}', 400, "http.json"],
    ["no object", "[]", 400, "http.body"],
    ["no prompt", {}, 400, "http.prompt"],
    ["two prompts", { ...good, text: "x" }, 400, "http.prompt"],
    ["a wrong width", { input_embeds: [row.slice(1)] }, 400, "http.width"],
    ["beyond float32", { input_embeds: [row.map(() => 1e300)] }, 400, "http.embeds"],
    ["text for a number", { input_embeds: [row.map(() => "1")] }, 400, "http.embeds"],
    ["an id too large", { input_ids: [999_999] }, 400, "http.ids"],
    [
      "base64 that is none",
      { input_embeds_b64_bf16: "****", input_embeds_shape: [1, 24] },
      400,
      "http.embeds",
    ],
    ["a shape that lies", { input_embeds_b64_bf16: "AAAA", input_embeds_shape: [1, 24] }, 400, "http.embeds"],
    ["a huge shape", { input_embeds_b64_bf16: "AAAA", input_embeds_shape: [1e15, 24] }, 400, "http.embeds"],
    ["too long a prompt", { input_ids: Array.from({ length: 600 }, () => 5) }, 400, "batch.length"],
    ["an unsupported parameter", { ...good, sampling_params: { min_p: 0.5 } }, 400, "http.body"],
    ["an unknown parameter", { ...good, sampling_params: { beams: 5 } }, 400, "http.body"],
    ["a huge body", `"${"x".repeat(2 ** 21)}"`, 413, "http.too-large"],
    ["parameters for another number of prompts", { ...good, sampling_params: [{}, {}] }, 400, "http.batch"],
  ];
  it.each(bad)("%s is refused, and the next request served", async (_, body, status, code) => {
    const answer = await post(`${server.url}/generate`, body);
    expect(answer.status, answer.text).toBe(status);
    expect((JSON.parse(answer.text) as { error: { code: string } }).error.code).toBe(code);
    expect((await post(`${server.url}/generate`, good)).status).toBe(200);
  });

  it("a thousand at once: each is served or told that the queue is full", async () => {
    const answers = await Promise.all(
      Array.from({ length: 1000 }, () => post(`${server.url}/generate`, good)),
    );
    const statuses = new Set(answers.map(({ status }) => status));
    expect([...statuses].every((status) => status === 200 || status === 429)).toBe(true);
    expect(answers.filter(({ status }) => status === 200).length).toBeGreaterThan(0);
    expect((await post(`${server.url}/generate`, good)).status).toBe(200);
  });

  it("a client that vanishes frees its place", async () => {
    for (const stream of [true, false]) {
      const leave = new AbortController();
      const endless = {
        input_ids: [5, 6],
        stream,
        sampling_params: { max_new_tokens: 400, ignore_eos: true },
      };
      const request = fetch(`${server.url}/generate`, {
        method: "POST",
        body: JSON.stringify(endless),
        signal: leave.signal,
      });
      const before = (await loadOf(server.url)).steps;
      while ((await loadOf(server.url)).steps < before + 3) await setTimeout(2);
      leave.abort();
      await request.then((response) => response.text()).catch(() => undefined);
      const { steps } = await loadOf(server.url);
      await setTimeout(60);
      const after = await loadOf(server.url);
      expect(after.active).toBe(0);
      expect(after.steps - steps).toBeLessThan(300);
    }
  });

  it("2,000 mutated requests are each answered with a status, and none with 500", async () => {
    const text = JSON.stringify({ ...good, return_logprob: true });
    let state = 7;
    // The high bits: the low ones of such a stream repeat after a few numbers.
    const random = (n: number) =>
      Math.floor(((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32) * n);
    for (let i = 0; i < 2000; i += 50) {
      const answers = await Promise.all(
        Array.from({ length: 50 }, () => {
          const bytes = Buffer.from(text);
          for (let k = 0; k <= random(3); k++) {
            const kind = random(4);
            if (kind === 0) bytes[random(bytes.length)] = random(256);
            else if (kind === 1)
              bytes.write(
                ["[", "]", "{", "null", "-", "1e999", '"', ",,"][random(8)] as string,
                random(bytes.length),
              );
            else if (kind === 2) bytes.copyWithin(random(bytes.length), random(bytes.length));
            else
              return fetch(`${server.url}/generate`, {
                method: "POST",
                body: bytes.subarray(0, random(bytes.length)),
              });
          }
          return fetch(`${server.url}/generate`, { method: "POST", body: bytes });
        }),
      );
      for (const answer of answers) {
        await answer.text();
        expect([200, 400, 429]).toContain(answer.status);
      }
    }
    expect((await post(`${server.url}/generate`, good)).status).toBe(200);
  }, 120_000);

  it("bytes that are no HTTP close the connection only", async () => {
    const { port } = new URL(server.url);
    const socket = connect(Number(port), "127.0.0.1");
    socket.write("\u0000\u0001 not http\r\n\r\n");
    await new Promise((resolve) => socket.once("close", resolve).on("data", () => undefined));
    expect((await post(`${server.url}/generate`, good)).status).toBe(200);
  });
});

describe("the NLA's routes", () => {
  const scratch = mkdtempSync(path.join(tmpdir(), "nlakit-serve-"));
  let device: Device;
  let target: Target;
  let nla: Nla;
  const servers: { listening: Listening; models: ServedModel[] }[] = [];

  async function start(apiKey?: string): Promise<string> {
    const model = new ServedModel(target.name, target.model, target.tokenizer, { maxTokens: 256 });
    const verbalizer = new ServedModel("pair", nla.verbalizer.model, nla.verbalizer.tokenizer, {
      maxTokens: 256,
    });
    const served = { target, nla, verbalizer, maxPositions: 32 };
    const app = createApp({
      version: "0",
      target: model,
      generator: verbalizer,
      nla: served,
      ...(apiKey ? { apiKey } : {}),
    });
    const listening = await listen(app, { host: "127.0.0.1", port: 0 });
    servers.push({ listening, models: [model, verbalizer] });
    return listening.url;
  }

  beforeAll(async () => {
    device = Device.open({ threads: 1 });
    await writeUntrainedPair(scratch, device);
    nla = await loadNla(scratch, device);
    target = await loadTarget("aidreams260K", device);
  });
  afterAll(async () => {
    for (const { listening, models } of servers) {
      await listening.close();
      for (const each of models) await each[Symbol.asyncDispose]();
    }
    target[Symbol.dispose]();
    nla[Symbol.dispose]();
    device[Symbol.dispose]();
    rmSync(scratch, { recursive: true, force: true });
  });

  const TEXT = "One day a dog ran.";

  it("explain gives the readings of read(), one event per position, and score and reconstruct agree", async () => {
    const url = await start();
    const wanted = await read(target, nla, TEXT, { maxNewTokens: 20 });
    const { text, status } = await post(`${url}/v1/nla/explain`, { text: TEXT, max_new_tokens: 20 });
    expect(status).toBe(200);
    const events = text
      .split("\n\n")
      .filter((each) => each.startsWith("data: "))
      .map((each) => each.slice(6));
    expect(events.pop()).toBe("[DONE]");
    const [head, ...readings] = events.map((each) => JSON.parse(each) as Record<string, unknown>);
    expect(head).toEqual({
      layer_index: 2,
      total: wanted.tokens.length,
      prompt_length: wanted.tokens.length,
    });
    readings.sort((a, b) => (a["position"] as number) - (b["position"] as number));
    expect(readings.map((each) => [each["token"], each["description"]])).toEqual(
      wanted.tokens.map(({ token, description }) => [token, description]),
    );
    const descriptions = ["a dog", "the sun was hot"];
    const made = JSON.parse((await post(`${url}/v1/nla/reconstruct`, { descriptions })).text) as {
      activations: number[][];
    };
    const items = descriptions.map((description, i) => ({ description, activation: made.activations[i] }));
    const scored = JSON.parse((await post(`${url}/v1/nla/score`, { items })).text) as {
      items: { cosine_similarity: number }[];
    };
    for (const { cosine_similarity: cosine } of scored.items) expect(cosine).toBeCloseTo(1, 5);
    const sources = (await (await fetch(`${url}/v1/nla/sources`)).json()) as {
      sources: { layer_index: number }[];
    };
    expect(sources.sources[0]?.layer_index).toBe(2);
  });

  it("OpenAI's routes give the greedy text, whole and streamed; a chat needs a template", async () => {
    const url = await start();
    const body = { prompt: "Once upon", max_tokens: 10, temperature: 0 };
    const whole = JSON.parse((await post(`${url}/v1/completions`, body)).text) as {
      choices: { text: string }[];
    };
    const streamed = (await post(`${url}/v1/completions`, { ...body, stream: true })).text
      .split("\n\n")
      .filter((each) => each.startsWith("data: {"))
      .map((each) => (JSON.parse(each.slice(6)) as { choices: { text: string }[] }).choices[0]?.text)
      .join("");
    expect(streamed).toBe(whole.choices[0]?.text);
    expect(streamed.length).toBeGreaterThan(5);
    const stop = streamed.slice(3, 6);
    const stopped = JSON.parse((await post(`${url}/v1/completions`, { ...body, stop })).text) as typeof whole;
    expect(stopped.choices[0]).toMatchObject({
      text: streamed.slice(0, streamed.indexOf(stop)),
      finish_reason: "stop",
    });
    const chat = await post(`${url}/v1/chat/completions`, { messages: [{ role: "user", content: "x" }] });
    expect([chat.status, chat.text.includes("chat.missing")]).toEqual([400, true]);
    const document = (await (await fetch(`${url}/openapi.json`)).json()) as {
      paths: Record<string, unknown>;
    };
    expect(Object.keys(document.paths)).toEqual(
      expect.arrayContaining(["/generate", "/v1/nla/explain", "/v1/completions", "/health"]),
    );
  });

  it("asks for the key, and takes it in both headers", async () => {
    const url = await start("secret");
    const body = { descriptions: ["a dog"] };
    const status = async (headers: Record<string, string>) =>
      (await post(`${url}/v1/nla/reconstruct`, body, headers)).status;
    expect(await status({})).toBe(401);
    expect(await status({ authorization: "Bearer wrong" })).toBe(401);
    expect(await status({ authorization: "Bearer secret" })).toBe(200);
    expect(await status({ "x-secret-key": "secret" })).toBe(200);
    expect((await fetch(`${url}/health`)).status).toBe(200);
  });

  it("the client spreads work over servers, and what a dead one had is redone", async () => {
    const urls = [await start(), await start()];
    const retired: string[] = [];
    const dead = "http://127.0.0.1:9"; // the discard port: nobody listens
    const pool = new RemoteServers([dead, ...urls], {
      concurrency: 2,
      onRetired: (url) => retired.push(url),
    });
    const verbalizer = await RemoteVerbalizer.load(path.join(scratch, "verbalizer"), pool, { layer: 2 });
    const remote = await read(target, { ...nla, verbalizer }, TEXT, { maxNewTokens: 20 });
    const local = await read(target, nla, TEXT, { maxNewTokens: 20 });
    expect(retired).toEqual([dead]);
    expect(pool.alive).toEqual(urls);
    const same = remote.tokens.filter(({ description }, i) => description === local.tokens[i]?.description);
    // The client sends bf16 embeddings, as the reference's does: a few explanations may differ.
    expect(same.length).toBeGreaterThan(local.tokens.length / 2);
    const none = new RemoteServers([dead]);
    await expect(none.post("/generate", {})).rejects.toMatchObject({ code: "remote.none" });
  });

  it("a drained server finishes what it has and takes nothing new", async () => {
    const url = await start();
    const { listening, models } = servers.pop() as (typeof servers)[number];
    const body = { prompt: "Once upon", max_tokens: 100, temperature: 1, seed: 3 };
    const running = post(`${url}/v1/completions`, body);
    while (models[0]?.batcher.load.active !== 1) await setTimeout(1);
    await listening.close();
    expect((await running).status).toBe(200);
    for (const each of models) await each[Symbol.asyncDispose]();
    await expect(fetch(`${url}/health`)).rejects.toThrow();
  });

  it("to vLLM a prompt goes as a saved tensor: a ZIP with the numbers and their shape", async () => {
    let seen: Record<string, unknown> = {};
    const fake = createServer((request, response) => {
      const parts: Buffer[] = [];
      request.on("data", (part: Buffer) => parts.push(part));
      request.on("end", () => {
        seen = JSON.parse(Buffer.concat(parts).toString()) as Record<string, unknown>;
        response.end(JSON.stringify({ choices: [{ text: "a dog", finish_reason: "stop" }] }));
      });
    });
    await new Promise<void>((resolve) => fake.listen(0, "127.0.0.1", resolve));
    const { port } = fake.address() as AddressInfo;
    const pool = new RemoteServers([`http://127.0.0.1:${port}`]);
    const options = { layer: 2, protocol: "vllm" } as const;
    const verbalizer = await RemoteVerbalizer.load(path.join(scratch, "verbalizer"), pool, options);
    const vector = Float32Array.from({ length: 64 }, (_, i) => i - 30);
    const [explanation] = await verbalizer.explain([vector], { maxNewTokens: 7 });
    fake.close();
    expect(explanation).toMatchObject({ text: "a dog", finish: "stop" });
    expect(seen).toMatchObject({ max_tokens: 7, temperature: 0, skip_special_tokens: false });
    const rows = verbalizer.request(vector).input_embeds;
    const bytes = Buffer.from(seen["prompt_embeds"] as string, "base64");
    const data = Buffer.from(Float32Array.from(rows.flat()).buffer);
    expect(bytes.subarray(0, 4).toString("latin1")).toBe("PK\u0003\u0004");
    expect(bytes.indexOf(data)).toBeGreaterThan(0);
    expect(bytes.includes("torch._utils\n_rebuild_tensor_v2")).toBe(true);
  });

  it("numbers are sent with as few digits as read back to the same float32", () => {
    expect([0.1, 1, 0.27929688, 1e-7, 16777216].map((value) => shortest(Math.fround(value)))).toEqual([
      0.1, 1, 0.27929688, 1e-7, 16777216,
    ]);
  });
});
