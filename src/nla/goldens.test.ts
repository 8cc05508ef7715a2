// Verbalizers, reconstructors and sidecars of the reference, loaded from its folders: the same ids, vectors, logits, tokens
// and scores as it computed, and every sidecar refused whose fault only shows against the tokenizer.
import { readdirSync, readFileSync } from "node:fs";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import { run } from "../model/index.js";
import { Device } from "../tensor/index.js";
import type { Contract } from "./contract.js";
import { reconstructionScores } from "./fidelity.js";
import { loadReconstructor, loadVerbalizer } from "./pair-files.js";
import type { Reconstructor } from "./reconstructor.js";
import type { Verbalizer } from "./verbalizer.js";

interface Block {
  readonly shape: readonly number[];
  readonly b64: string;
}

interface CriticCase {
  readonly explanation: string;
  readonly token_ids: number[];
  readonly prediction: number[];
  readonly original: number[];
  readonly mse_nrm: number;
  readonly client_cos: number | "NaN";
}

interface ActorCase {
  readonly raw: number[];
  readonly scaled: number[];
  readonly last_prompt_logits: Block;
  /** Of the first case only, like the logits of the training hook. */
  readonly input_embeds?: Block;
  readonly training_hook_last_prompt_logits?: Block;
  readonly greedy_ids: number[];
}

const critics = sharedPath("golden/nla/critic");
const actors = sharedPath("golden/nla/actor");
const sidecars = sharedPath("golden/nla/sidecars");

let device: Device;
let scratch: string;
beforeAll(async () => {
  device = Device.open({ threads: 1 });
  scratch = await mkdtemp(path.join(os.tmpdir(), "nla-goldens-"));
});
afterAll(async () => {
  device[Symbol.dispose]();
  await rm(scratch, { recursive: true });
});

function expectation<T>(folder: string): T {
  return JSON.parse(readFileSync(path.join(folder, "expect.json"), "utf8")) as T;
}

function folders(root: string | null, inside: string): string[] {
  if (root === null) return [];
  const names = readdirSync(root, { withFileTypes: true }).filter((each) => each.isDirectory());
  return names.map(({ name }) => name).filter((name) => readdirSync(path.join(root, name)).includes(inside));
}

function values({ b64 }: Block): Float32Array {
  const bytes = Buffer.from(b64, "base64");
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
}

function farthest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  return Array.from(a, (value, i) => Math.abs(value - (b[i] as number))).reduce((x, y) => Math.max(x, y), 0);
}

describe.skipIf(critics === null).each(folders(critics, "trained"))("the reconstructor of %s", (family) => {
  const folder = path.join(critics as string, family);
  const { rows, layer_index, critic_suffix_ids } = expectation<{
    rows: CriticCase[];
    layer_index: number;
    critic_suffix_ids: number[];
  }>(folder);
  let reconstructor: Reconstructor;
  beforeAll(async () => {
    reconstructor = (await loadReconstructor(path.join(folder, "trained"), device)).model;
  });
  afterAll(() => reconstructor[Symbol.dispose]());

  it("has the contract of its sidecar", () => {
    const { contract, model } = reconstructor;
    expect(contract.layer).toBe(layer_index);
    expect(model.config.layers).toBe(layer_index + 1);
    expect(contract.suffixIds).toEqual(critic_suffix_ids);
    expect(contract.format).toBe("tags");
    expect(contract.mseScale).toBeCloseTo(Math.sqrt(model.config.dim), 12);
  });

  it("makes the same prompts, special tokens as the tokenizer adds them", () => {
    expect(rows.length).toBe(12);
    for (const { explanation, token_ids } of rows) {
      expect(reconstructor.promptIds(explanation), explanation).toEqual(token_ids);
      expect(reconstructor.accepts(explanation)).toBe(true);
    }
  });

  it("predicts the same vectors, in one ragged batch, and scores them the same", async () => {
    const predictions = await reconstructor.reconstruct(rows.map(({ explanation }) => explanation));
    rows.forEach(({ prediction, original, mse_nrm, client_cos }, i) => {
      const ours = predictions[i] as Float32Array;
      expect(farthest(ours, prediction)).toBeLessThan(1e-4 * Math.hypot(...prediction));
      const scores = reconstructionScores(ours, Float32Array.from(original), {
        mseScale: reconstructor.contract.mseScale,
      });
      expect(scores.mse).toBeCloseTo(mse_nrm, 4);
      if (client_cos === "NaN") expect(scores.cosine).toBeNaN();
      else expect(scores.cosine).toBeCloseTo(client_cos, 4);
    });
  });

  it("takes a missing explanation for missing, and one beyond the context too", async () => {
    const { contextLength } = reconstructor.model.config;
    const long = "word ".repeat(contextLength + 1);
    expect(reconstructor.accepts(long)).toBe(false);
    const [none, some, tooLong] = await reconstructor.reconstructSome([null, "one", long]);
    expect(none).toBeNull();
    expect(tooLong).toBeNull();
    expect(some).toEqual((await reconstructor.reconstruct(["one"]))[0]);
  });

  it("loads untrained too, with the identity for its value head", async () => {
    const { model, sidecar } = await loadReconstructor(path.join(folder, "init"), device);
    using init = model;
    expect(sidecar.stage).toBe("init");
    const head = init.head.readF32();
    const { dim } = init.contract;
    expect(
      Array.from(head, (value, i) => value - (i % (dim + 1) === 0 ? 1 : 0)).every((value) => value === 0),
    ).toBe(true);
  });
});

describe.skipIf(actors === null).each(folders(actors, "av"))("the verbalizer of %s", (family) => {
  const folder = path.join(actors as string, family);
  const golden = expectation<{
    injection_scale: number;
    tokens: { char: string; id: number; left: number; right: number };
    prompt_ids: number[];
    injection_site: number;
    cases: ActorCase[];
  }>(folder);
  let verbalizer: Verbalizer;
  beforeAll(async () => {
    verbalizer = (await loadVerbalizer(path.join(folder, "av"), device, { layer: 1 })).model;
  });
  afterAll(() => verbalizer[Symbol.dispose]());

  it("says where its activation goes", () => {
    const { char, id, left, right } = golden.tokens;
    expect(verbalizer.contract.marker).toEqual({ char, tokenId: id, left, right });
    expect(verbalizer.contract.injection).toEqual({ kind: "replace", scale: golden.injection_scale });
    expect(verbalizer.prompt).toEqual({ ids: golden.prompt_ids, site: golden.injection_site });
  });

  it("needs to be told its layer, which its sidecar does not say", async () => {
    await expect(loadVerbalizer(path.join(folder, "av"), device)).rejects.toMatchObject({
      code: "contract.incomplete",
      found: "no layer",
    });
  });

  it.each(golden.cases.map((each, i) => [i, each] as const))("reads vector %i as it did", async (_, each) => {
    const raw = Float32Array.from(each.raw);
    const injection = verbalizer.injection(raw, 0);
    expect(
      [...injection.vector].every(
        (value, i) => Math.abs(value - (each.scaled[i] as number)) <= 2e-7 * golden.injection_scale,
      ),
    ).toBe(true);
    const { prompt, model } = verbalizer;
    const { embedded, logits } = await run(model, [prompt.ids], {
      embedded: true,
      logits: "last",
      inject: [injection],
    });
    // The reference's client rounds Gemma's rows to bfloat16, which moves its logits by up to 0.025; its training does not.
    const rounds = model.config.family.startsWith("gemma");
    if (each.input_embeds) {
      const wanted = values(each.input_embeds);
      const errors = wanted.map(
        (value, i) => Math.abs(value - (embedded as Float32Array)[i]!) / Math.max(1, Math.abs(value)),
      );
      expect(Math.max(...errors)).toBeLessThanOrEqual(rounds ? 2 ** -8 : 1e-6);
    }
    const exact = each.training_hook_last_prompt_logits;
    const far = farthest(logits as Float32Array, values(exact ?? each.last_prompt_logits));
    expect(far).toBeLessThan(rounds && !exact ? 0.03 : 1e-3);
    const [explanation] = await verbalizer.explain([raw], { maxNewTokens: each.greedy_ids.length });
    const ids = explanation?.tokens ?? [];
    // Theirs go on after an end token, where ours stop.
    expect(ids).toEqual(each.greedy_ids.slice(0, ids.length));
    expect(
      ids.length === each.greedy_ids.length || verbalizer.stopTokens.includes(ids.at(-1) as number),
    ).toBe(true);
    expect(explanation?.text).toBeNull(); // a random model closes no tag
  });

  it("refuses vectors that are none", async () => {
    const dim = verbalizer.contract.dim;
    const failing = async (vector: Float32Array) => {
      const thrown: unknown = await verbalizer
        .explain([vector], { maxNewTokens: 1 })
        .catch((error: unknown) => error);
      expect(thrown).toBeInstanceOf(NlaError);
      return thrown as NlaError;
    };
    const short = await failing(new Float32Array(dim - 1).fill(1));
    expect(short).toMatchObject({
      code: "contract.width",
      found: `${dim - 1} elements`,
      wanted: expect.stringContaining(String(dim)),
    });
    expect((await failing(new Float32Array(2 * dim).fill(1))).code).toBe("contract.width");
    expect((await failing(new Float32Array(dim).fill(NaN))).code).toBe("injection.not-finite");
    expect((await failing(new Float32Array(dim).fill(Infinity))).code).toBe("injection.not-finite");
  });
});

async function load(name: string, role: "av" | "ar"): Promise<Contract> {
  const checkpoint =
    role === "av" ? path.join(actors as string, "qwen2/av") : path.join(critics as string, "qwen2/trained");
  const folder = path.join(scratch, `${role}-${name}`);
  await cp(checkpoint, folder, { recursive: true });
  await cp(path.join(sidecars as string, `${name}.yaml`), path.join(folder, "nla_meta.yaml"));
  const { model } =
    role === "av"
      ? await loadVerbalizer(folder, device, { layer: 2 })
      : await loadReconstructor(folder, device);
  model[Symbol.dispose]();
  return model.contract;
}

// Each golden sidecar that the reference's readers take but whose start of training, or nobody, refuses: put beside the very
// checkpoint that the sound ones belong to.
describeWith(sidecars && actors && critics, "a sidecar that contradicts its checkpoint", () => {
  it.each([
    ["av", "broken-token-id-drifted", "contract.marker-drift"],
    ["av", "broken-left-neighbour-drifted", "contract.site"],
    ["av", "broken-right-neighbour-drifted", "contract.site"],
    ["av", "broken-char-of-two-tokens", "contract.marker"],
    ["av", "broken-char-empty", "sidecar.field"],
    ["av", "broken-template-spaced-marker", "contract.site"],
    ["av", "broken-template-with-other-neighbours", "contract.site"],
    ["av", "broken-template-with-two-placeholders", "template.placeholder"],
    ["av", "broken-template-with-another-placeholder", "template.placeholder"],
    ["av", "broken-template-without-placeholder", "template.placeholder"],
    ["av", "broken-template-with-a-stray-brace", "template.brace"],
    ["av", "broken-suffix-ids-of-another-template", "contract.suffix-drift"],
    ["av", "broken-d-model-wrong", "contract.width"],
    ["av", "actor-injection-scale-absent", "contract.incomplete"],
    ["av", "actor-injection-scale-null", "contract.incomplete"],
    ["av", "actor-injection-scale-zero", "sidecar.scale"],
    ["av", "yaml11-scale-nan", "sidecar.scale"],
    ["av", "yaml11-scale-infinity", "sidecar.scale"],
    ["av", "model-v2-critic-sl", "nla.role"],
    ["av", "dataset-v1-av_sft", "sidecar.kind"],
    // Sound to the reference, which never needs the other half's prompt; a contract is of both.
    ["av", "critic-template-null", "contract.incomplete"],
    ["av", "actor-minimal", "contract.incomplete"],
    ["ar", "model-v2-actor-sl", "nla.role"],
  ] as const)("%s %s is refused as %s", async (role, name, code) => {
    const thrown: unknown = await load(name, role).catch((error: unknown) => error);
    expect(thrown).toBeInstanceOf(NlaError);
    const { found, wanted, next, ...error } = thrown as NlaError;
    expect(error.code, `${error.subject}: found ${found}; wanted ${wanted}`).toBe(code);
    for (const part of [found, wanted, next]) expect(part).not.toBe("");
  });

  it.each([
    ["av", "model-v2-actor-sl"],
    ["av", "model-v2-actor-rl"],
    ["av", "released-av"],
    ["av", "actor-injection-scale-raw"],
    ["av", "actor-injection-scale-sqrt"],
    ["av", "av-and-actor-both"],
    ["av", "crlf"],
    ["ar", "model-v2-critic-sl"],
    ["ar", "model-v2-critic-rl"],
    ["ar", "released-ar"],
    ["ar", "released-ar-as-documented"],
    ["ar", "released-ar-only-top-level-layer"],
    ["ar", "critic-mse-scale-null"],
  ] as const)("%s %s is taken", async (role, name) => {
    const contract = await load(name, role);
    expect(contract.layer).toBe(2);
    expect(contract.dim).toBe(24);
    expect(contract.marker.tokenId).toBe(297);
    if (name.endsWith("raw")) expect(contract.injection.scale).toBeNull();
    if (name.endsWith("sqrt")) expect(contract.injection.scale).toBeCloseTo(Math.sqrt(24), 12);
    if (name === "critic-mse-scale-null") expect(contract.mseScale).toBeNull();
  });

  it("is refused where it says K for a model of other than K + 1 blocks", async () => {
    const folder = path.join(scratch, "off-by-one");
    await cp(path.join(critics as string, "qwen2/trained"), folder, { recursive: true });
    const text = await readFile(path.join(sidecars as string, "broken-critic-layer-off-by-one.yaml"), "utf8");
    await writeFile(path.join(folder, "nla_meta.yaml"), text.replace("role: actor", "role: critic"));
    await expect(loadReconstructor(folder, device)).rejects.toMatchObject({
      code: "contract.layer",
      found: "3 blocks",
      wanted: expect.stringContaining("4: layer 3"),
    });
  });
});
