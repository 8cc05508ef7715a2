// `nla serve` as processes: one of two that share the work is killed, one is asked to end while it works, and clients that send or read
// slowly. What the routes answer is tested beside them (src/serve); here it is that a server dies, drains and goes on.
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import type { Socket } from "node:net";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generate } from "../../src/model/index.js";
import type { Holding } from "../../src/model/index.js";
import { loadNla } from "../../src/nla/read.js";
import { loadTarget } from "../../src/nla/target.js";
import { writeUntrainedPair } from "../../src/nla/testing/untrained-pair.js";
import { RemoteServers } from "../../src/serve/remote-servers.js";
import { Device } from "../../src/tensor/index.js";
import { buildCommand } from "./built-command.js";
import type { BuiltCommand, Ended } from "./built-command.js";

interface Server {
  readonly url: string;
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
}

interface Load {
  readonly active: number;
  readonly waiting: number;
  readonly tokens: number;
}

let nla: BuiltCommand;
const started: Server[] = [];
beforeAll(async () => {
  nla = await buildCommand();
  using device = Device.open({ threads: 1 });
  await writeUntrainedPair(path.join(nla.folder, "pair"), device);
}, 120_000);
afterAll(async () => {
  for (const { child } of started) child.kill("SIGKILL");
  await Promise.all(started.map(({ ended }) => ended));
  await nla[Symbol.asyncDispose]();
});

/** A server of the pair, once it listens. */
async function serve(...args: string[]): Promise<Server> {
  const children: ChildProcess[] = [];
  const flags = ["--nla", "pair", "--port", "0", "--threads", "1", "--json", ...args];
  const ended = nla.run(["serve", ...flags], { onStart: (each) => void children.push(each) });
  const child = children[0] as ChildProcess;
  let line = "";
  while (!line.includes("\n")) {
    const first = await Promise.race([once(child.stdout as NonNullable<typeof child.stdout>, "data"), ended]);
    if (!Array.isArray(first)) throw new Error(`nla serve ended: ${first.stderr}`);
    line += String(first[0]);
  }
  const server = { child, ended, url: (JSON.parse(line) as { url: string }).url };
  started.push(server);
  return server;
}

async function loadOf({ url }: Server): Promise<Load> {
  return (await (await fetch(`${url}/health`)).json()) as Load;
}

async function untilBusy(server: Server): Promise<Load> {
  for (;;) {
    const load = await loadOf(server);
    if (load.active > 0 && load.tokens > 0) return load;
    await setTimeout(2);
  }
}

const TOKENS = 100;
function request(seed: number) {
  const sampling_params = { temperature: 1, max_new_tokens: TOKENS, ignore_eos: true, seed };
  return { input_ids: [1, 5 + seed, 9], sampling_params };
}

interface Reply {
  readonly output_ids: readonly number[];
}

describe("two servers that share the work", () => {
  it("one is killed while it works: the other does what it had, with the same tokens", async () => {
    const [lost, kept] = await Promise.all([serve("--rows", "2"), serve("--rows", "2")]);
    const retired: string[] = [];
    const pool = new RemoteServers([lost.url, kept.url], { onRetired: (url) => retired.push(url) });
    const replies = Promise.all(
      Array.from({ length: 60 }, (_, seed) => pool.post("/generate", request(seed)) as Promise<Reply>),
    );
    const before = await untilBusy(lost);
    lost.child.kill("SIGKILL");
    expect(before.active + before.waiting).toBeGreaterThan(2);
    const got = (await replies).map((each) => each.output_ids);
    expect((await lost.ended).signal).toBe("SIGKILL");
    expect(retired).toEqual([lost.url]);
    expect(pool.alive).toEqual([kept.url]);
    const alone = new RemoteServers([kept.url]);
    for (const [seed, tokens] of got.entries()) {
      const again = (await alone.post("/generate", request(seed))) as Reply;
      expect(tokens, `seed ${seed}`).toEqual(again.output_ids);
      expect(tokens).toHaveLength(TOKENS);
    }

    const explain = ["explain", "One day a dog ran.", "--nla", "pair", "--json"];
    const remote = await nla.run([...explain, "--server", lost.url, kept.url]);
    expect(remote, remote.stderr).toMatchObject({ code: 0 });
    expect(remote.stderr).toContain(lost.url);
    const none = await nla.run([...explain, "--server", lost.url]);
    expect(none.code).toBe(1);
    expect(none.stdout).toContain("remote.none");
  });
});

const far = (a: readonly number[], b: readonly number[]) =>
  Math.max(...a.map((value, i) => Math.abs(value - (b[i] as number))));

it("--quantize holds the target's matrices so, and answers as that model", async () => {
  const server = await serve("--quantize", "q8_0");
  const sent = { prompt: "Once upon a time", max_tokens: 20, temperature: 0, logprobs: 1 };
  const response = await fetch(`${server.url}/v1/completions`, {
    method: "POST",
    body: JSON.stringify(sent),
  });
  const { choices } = (await response.json()) as {
    choices: { logprobs: { token_logprobs: number[] } }[];
  };
  using device = Device.open({ threads: 1 });
  const logProbs = async (holding?: Holding) => {
    using target = await loadTarget("aidreams260K", device, holding);
    const ids = target.tokenizer.encode(sent.prompt, { addSpecialTokens: true });
    const [made] = await generate(target.model, [ids], { temperature: 0, maxNewTokens: 20 });
    return made?.logProbs as number[];
  };
  const got = choices[0]?.logprobs.token_logprobs as number[];
  expect(got).toHaveLength(20);
  expect(far(got, await logProbs("q8_0"))).toBeLessThan(1e-4);
  expect(far(got, await logProbs())).toBeGreaterThan(1e-4);
});

it("--quantize-nla holds the pair's matrices so: the verbalizer behind /generate, and the reconstructor", async () => {
  const server = await serve("--quantize-nla", "q8_0");
  const ids = [1, 5, 9];
  const sampling_params = { temperature: 0, max_new_tokens: 20, ignore_eos: true };
  const post = async (route: string, body: object) =>
    (await fetch(server.url + route, { method: "POST", body: JSON.stringify(body) })).json();
  const reply = await post("/generate", { input_ids: ids, sampling_params, return_logprob: true });
  const { output_token_logprobs: made } = (reply as { meta_info: { output_token_logprobs: number[][] } })
    .meta_info;
  const rebuilt = await post("/v1/nla/reconstruct", { descriptions: ["a dog"] });
  const [vector] = (rebuilt as { activations: number[][] }).activations;
  using device = Device.open({ threads: 1 });
  const direct = async (holding?: Holding) => {
    using pair = await loadNla(path.join(nla.folder, "pair"), device, { holding });
    const [generated] = await generate(pair.verbalizer.model, [ids], {
      temperature: 0,
      maxNewTokens: 20,
    });
    const [own] = await pair.reconstructor.reconstruct(["a dog"]);
    return { logProbs: generated?.logProbs as number[], vector: [...(own as Float32Array)] };
  };
  const got = made.map(([logProb]) => logProb as number);
  expect(got).toHaveLength(20);
  const [held, plain] = [await direct("q8_0"), await direct()];
  expect(far(got, held.logProbs)).toBeLessThan(1e-4);
  expect(far(got, plain.logProbs)).toBeGreaterThan(1e-4);
  expect(far(vector as number[], held.vector)).toBeLessThan(1e-4);
  expect(far(vector as number[], plain.vector)).toBeGreaterThan(1e-4);
});

describe("SIGTERM", () => {
  it.each(["SIGTERM", "SIGINT"] as const)(
    "%s: the request at work is answered whole, new ones are not taken, exit code 0",
    async (signal) => {
      const server = await serve("--rows", "2");
      const seeds = Array.from({ length: 40 }, (_, seed) => seed);
      const body = {
        input_ids: seeds.map((seed) => request(seed).input_ids),
        sampling_params: seeds.map((seed) => request(seed).sampling_params),
      };
      const order: string[] = [];
      const running = fetch(`${server.url}/generate`, { method: "POST", body: JSON.stringify(body) }).then(
        async (response) => {
          const replies = (await response.json()) as Reply[];
          order.push("answered");
          return { status: response.status, replies };
        },
      );
      await untilBusy(server);
      server.child.kill(signal);
      for (let there = true; there; await setTimeout(2))
        there = await fetch(`${server.url}/health`).then(
          () => true,
          () => false,
        );
      order.push("port given up");
      const { status, replies } = await running;
      expect(order).toEqual(["port given up", "answered"]);
      expect(status).toBe(200);
      expect(replies.map((each) => each.output_ids.length)).toEqual(seeds.map(() => TOKENS));
      expect(await server.ended).toMatchObject({ code: 0, signal: null });
    },
  );
});

const head = (length: number) =>
  `POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`;

async function openWith(server: Server, text: string): Promise<Socket> {
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
  await once(socket, "connect");
  socket.write(text);
  return socket;
}

describe("slow clients", () => {
  it("one that sends half a request is cut off, and does not keep others waiting", async () => {
    const server = await serve("--rows", "1", "--patience", "1");
    const body = JSON.stringify(request(1));
    const begun = performance.now();
    const senders = await Promise.all(
      Array.from({ length: 8 }, () => openWith(server, head(body.length) + body.slice(0, 20))),
    );
    const answers = senders.map(async (socket) => {
      let text = "";
      socket.on("data", (part) => (text += String(part)));
      await once(socket, "close");
      return { text, after: performance.now() - begun };
    });
    const other = await fetch(`${server.url}/generate`, { method: "POST", body });
    expect(other.status).toBe(200);
    expect(senders.some((socket) => socket.closed)).toBe(false);
    for (const { text, after } of await Promise.all(answers)) {
      expect(text).toMatch(/^HTTP\/1.1 408/);
      expect(after).toBeGreaterThan(900);
    }
    expect((await fetch(`${server.url}/generate`, { method: "POST", body })).status).toBe(200);
    expect(await loadOf(server)).toMatchObject({ active: 0, waiting: 0 });
  });

  it("one that takes nothing of its answer leaves the batch, and does not hold up the end", async () => {
    const server = await serve("--patience", "1");
    const sampling_params = { ...request(1).sampling_params, n: 60 };
    // Some 25 MB of events: more than the system keeps for a reader that does not read.
    const input_ids = [
      [1, 5],
      [1, 6],
    ];
    const body = JSON.stringify({ input_ids, sampling_params, stream: true, return_logprob: true });
    const socket = await openWith(server, head(body.length) + body);
    socket.pause();
    // On a busy machine it is sent away before all is made, on a quiet one after.
    await untilBusy(server);
    for (let load = await loadOf(server); load.active + load.waiting > 0; load = await loadOf(server))
      await setTimeout(10);
    server.child.kill("SIGTERM");
    expect(await server.ended).toMatchObject({ code: 0, signal: null });
    socket.destroy();
  });
});
