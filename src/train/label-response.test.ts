// Labels as responses: what the verbalizer's warm start teaches is what extraction gives back, however long the label.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { loadVerbalizer } from "../nla/pair-files.js";
import { extractExplanation } from "../nla/explanation.js";
import type { Verbalizer } from "../nla/verbalizer.js";
import { Device } from "../tensor/index.js";
import { responseEndIds } from "../nla/response-end.js";
import { responseEncoder } from "./label-response.js";
import { openTinyTraining } from "./testing/tiny-training.js";
import type { TinyPair, TinyTraining } from "./testing/tiny-training.js";

let tiny: TinyTraining;
let pair: TinyPair;
beforeAll(async () => {
  tiny = await openTinyTraining(1);
  pair = tiny.pair();
});
afterAll(() => {
  pair[Symbol.dispose]();
  tiny[Symbol.dispose]();
});

function taughtBy({ tokenizer, contract }: Verbalizer, ids: readonly number[]): string | null {
  const { format } = contract;
  return extractExplanation(tokenizer.decode(ids), { format });
}

describe("a label in the plain format", () => {
  it("comes back whole, ended by the end token", () => {
    const { verbalizer } = pair;
    const ids = responseEncoder(verbalizer)("the king is dead");
    expect(ids.at(-1)).toBe(verbalizer.tokenizer.eosId);
    expect(verbalizer.stopTokens).toContain(ids.at(-1));
    expect(taughtBy(verbalizer, ids)).toBe("the king is dead");
  });

  it("fills the context exactly before it is cut", () => {
    const { verbalizer } = pair;
    const room = verbalizer.model.config.contextLength - verbalizer.prompt.ids.length;
    const words = Array.from({ length: room }, (_, i) => ["dog", "cat", "sun"][i % 3]!);
    const encode = responseEncoder(verbalizer);
    const most = words.findIndex((_, n) => {
      return verbalizer.tokenizer.encode(words.slice(0, n + 1).join(" ")).length + 1 > room;
    });
    const fitting = words.slice(0, most).join(" ");
    expect(taughtBy(verbalizer, encode(fitting))).toBe(fitting);
    // One word more is one word too many: it goes, and the end stays.
    const cut = encode(words.slice(0, most + 1).join(" "));
    expect(cut.length).toBeLessThanOrEqual(room);
    expect(cut.at(-1)).toBe(verbalizer.tokenizer.eosId);
    expect(taughtBy(verbalizer, cut)).toBe(fitting);
    expect(taughtBy(verbalizer, encode(words.join(" ").repeat(50)))).toBe(fitting);
  });

  it("of one word beyond measure is cut inside it", () => {
    const { verbalizer } = pair;
    const ids = responseEncoder(verbalizer)("x".repeat(10_000));
    expect(ids.length).toBeLessThanOrEqual(128 - verbalizer.prompt.ids.length);
    expect(ids.length).toBeGreaterThan(100);
    expect(taughtBy(verbalizer, ids)).toMatch(/^x+$/);
  });

  it("is refused where the prompt leaves no room for a word", () => {
    const { verbalizer } = pair;
    const prompt = { ids: Array.from({ length: 127 }, () => 5), site: 1 };
    const { tokenizer, contract, model, stopTokens } = verbalizer;
    const encode = responseEncoder({ tokenizer, contract, model, stopTokens, prompt });
    expect(() => encode("the king")).toThrow(
      expect.objectContaining({ code: "train.no-room", found: "a prompt of 127 tokens in a context of 128" }),
    );
  });

  it("is refused where its end would not stop generation", () => {
    const { tokenizer, contract, model, prompt } = pair.verbalizer;
    const end = tokenizer.eosId as number;
    expect(() => responseEncoder({ tokenizer, contract, model, prompt, stopTokens: [3] })).toThrow(
      expect.objectContaining({
        code: "train.no-stop",
        found: `token ${end} at the end of a turn, and generation that stops at 3`,
      }),
    );
  });
});

const actor = sharedPath("golden/nla/actor/llama/av");
const rows = sharedPath("golden/nla/train/av_sft_rows.json");

describeWith(actor, "a label in tags, with a chat template", () => {
  let device: Device;
  let verbalizer: Verbalizer;
  beforeAll(async () => {
    device = Device.open({ threads: 1 });
    // The reference's training sidecar does not say the layer.
    verbalizer = (await loadVerbalizer(actor as string, device, { layer: 2 })).model;
  });
  afterAll(() => {
    verbalizer[Symbol.dispose]();
    device[Symbol.dispose]();
  });

  it("is closed by its tag and the turn's end", () => {
    const ids = responseEncoder(verbalizer)("A note.\n\nAnother one.");
    expect(ids.slice(-1)).toEqual(responseEndIds(verbalizer.tokenizer));
    expect(verbalizer.tokenizer.decode(ids)).toBe("<explanation>\nA note.\n\nAnother one.\n</explanation>");
    expect(taughtBy(verbalizer, ids)).toBe("A note.\n\nAnother one.");
  });

  it("keeps tag and end where it is cut", () => {
    const { model, prompt } = verbalizer;
    const label = Array.from({ length: 900 }, (_, i) => `word${i}`).join(" ");
    const ids = responseEncoder(verbalizer)(label);
    const room = model.config.contextLength - prompt.ids.length;
    expect(ids.length).toBeLessThanOrEqual(room);
    expect(ids.length).toBeGreaterThan(room - 10);
    expect(ids.slice(-1)).toEqual(responseEndIds(verbalizer.tokenizer));
    const taught = taughtBy(verbalizer, ids) as string;
    expect(label.startsWith(`${taught} `)).toBe(true);
    expect(taught).toMatch(/ word\d+$/);
  });

  it.skipIf(rows === null)("has the ids that the reference trains", () => {
    interface Row {
      readonly response: string;
      readonly token_ids: number[];
    }
    const golden = JSON.parse(readFileSync(rows as string, "utf8")) as Record<string, { readonly ok: Row[] }>;
    const encode = responseEncoder(verbalizer);
    const labelled = golden["llama generic"]!.ok.flatMap(({ response, token_ids }) => {
      const label = /^<explanation>\n([^]*)\n<\/explanation>$/.exec(response)?.[1];
      return label === undefined ? [] : [{ label, token_ids }];
    });
    expect(labelled.length).toBeGreaterThan(1);
    for (const { label, token_ids } of labelled) {
      expect([...verbalizer.prompt.ids, ...encode(label)]).toEqual(token_ids);
    }
  });
});
