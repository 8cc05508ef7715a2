// Templates, neighbours and suffix ids against the reference, with the golden's own tokenizer.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { describeWith, sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.js";
import {
  assertPromptEndsWith,
  criticSuffixIds,
  escapeTemplateText,
  EXPLANATION_PLACEHOLDER,
  fillTemplate,
  INJECTION_PLACEHOLDER,
  injectionNeighbours,
  parseTemplate,
} from "./template.js";

const file = sharedPath("golden/nla/sidecars/templates.json");
const criticFolder = sharedPath("golden/nla/critic");

interface Case<T> {
  template: string;
  ok?: T;
  error?: unknown;
}
interface Golden {
  tokenizer: string;
  filled: (Case<string> & { value: string })[];
  canonical_neighbours: Case<[number, number]>[];
  critic_suffix_ids: Case<number[]>[];
}

// What the reference fills and we refuse: not exactly one plain placeholder. Stated in template.ts.
const STRICTER = new Set([
  "{explanation} {explanation}",
  "{explanation!r}",
  "{explanation:>12}",
  "{explanation:.3}",
  "{explanation[0]}",
  "{{",
  "}}",
  "{{explanation}}",
  "no placeholder",
  "{explanation} x {explanation} y z",
  "<v>\u320e</v>",
]);

describeWith(file, "templates equal the reference's", () => {
  const golden = JSON.parse(readFileSync(file as string, "utf8")) as Golden;
  const { char, id } = { char: "\u320e", id: 297 };
  let tokenizer: Tokenizer;

  beforeAll(async () => {
    tokenizer = await loadTokenizer(path.resolve(path.dirname(file as string), golden.tokenizer));
  });

  it.each(golden.filled.map((row) => [row.template, row] as const))("fills %s", (template, { value, ok }) => {
    const fill = () => fillTemplate(parseTemplate(template, EXPLANATION_PLACEHOLDER), value);
    if (ok === undefined || STRICTER.has(template)) expect(fill).toThrow(NlaError);
    else expect(fill()).toBe(ok);
  });

  it.each(golden.canonical_neighbours.map((row) => [row.template, row] as const))(
    "neighbours in %s",
    (template, { ok }) => {
      const neighbours = () => {
        const content = fillTemplate(parseTemplate(template, INJECTION_PLACEHOLDER), char);
        const text = tokenizer.renderChat([{ role: "user", content }], { addGenerationPrompt: true });
        return injectionNeighbours(tokenizer.encode(text), id);
      };
      if (ok === undefined || STRICTER.has(template)) expect(neighbours).toThrow(NlaError);
      else expect(neighbours()).toEqual({ left: ok[0], right: ok[1] });
    },
  );

  it.each(golden.critic_suffix_ids.map((row) => [row.template, row] as const))(
    "suffix of %s",
    (template, { ok }) => {
      const suffix = () =>
        criticSuffixIds(parseTemplate(template, EXPLANATION_PLACEHOLDER), (text) => tokenizer.encode(text));
      if (ok === undefined || STRICTER.has(template)) expect(suffix).toThrow(NlaError);
      else expect(suffix()).toEqual(ok);
    },
  );

  it("uses every exception in its list", () => {
    const seen = new Set(
      [...golden.filled, ...golden.canonical_neighbours, ...golden.critic_suffix_ids].map((r) => r.template),
    );
    for (const template of STRICTER) expect(seen).toContain(template);
  });
});

interface CriticGolden {
  critic_suffix_ids: number[];
  rows: { token_ids: number[]; suffix_check: { ok?: null; error?: unknown } }[];
}

describe.skipIf(criticFolder === null).each(["qwen2", "gemma3", "llama"])("suffix check of %s", (family) => {
  it("accepts and refuses the golden prompts", () => {
    const name = path.join(criticFolder as string, family, "expect.json");
    expect(existsSync(name)).toBe(true);
    const golden = JSON.parse(readFileSync(name, "utf8")) as CriticGolden;
    for (const { token_ids, suffix_check } of golden.rows) {
      const check = () => assertPromptEndsWith(token_ids, golden.critic_suffix_ids);
      if ("error" in suffix_check) expect(check).toThrow(NlaError);
      else expect(check).not.toThrow();
    }
    const cut = golden.rows[0]!.token_ids.slice(0, -1);
    expect(() => assertPromptEndsWith(cut, golden.critic_suffix_ids)).toThrow(/merged/);
    expect(() => assertPromptEndsWith([], golden.critic_suffix_ids)).toThrow(NlaError);
  });
});

describe("templates", () => {
  it("say where a brace stands and what is wanted", () => {
    expect(() => parseTemplate("ab } c {explanation}", "explanation")).toThrow(
      /single } at character 3.*\{explanation\} exactly once/,
    );
  });

  it("takes a value with braces as it is", () => {
    expect(fillTemplate(parseTemplate("{explanation}.", "explanation"), "{a} }}")).toBe("{a} }}.");
  });

  it("may end with the placeholder, if asked for", () => {
    const bare = parseTemplate("A {explanation}", "explanation");
    expect(criticSuffixIds(bare, codePoints, { allowNone: true })).toEqual([]);
    expect(() => assertPromptEndsWith([1, 2], [])).not.toThrow();
    expect(() => criticSuffixIds(bare, codePoints)).toThrow(/0 tokens after the placeholder/);
    const dot = parseTemplate("A {explanation}.", "explanation");
    expect(() => criticSuffixIds(dot, codePoints, { allowNone: true })).toThrow(
      /1 tokens after the placeholder/,
    );
    // An escaped placeholder earlier in the text is no placeholder.
    const escaped = parseTemplate("{{explanation}} {explanation}</t>", "explanation");
    expect(criticSuffixIds(escaped, codePoints)).toEqual(codePoints("/t>"));
  });

  it("escapes text so that filling gives it back", () => {
    const text = "{x} }{ {{";
    expect(fillTemplate(parseTemplate(`${escapeTemplateText(text)}{explanation}`, "explanation"), "")).toBe(
      text,
    );
  });

  it("refuses a marker at an edge", () => {
    expect(() => injectionNeighbours([7, 1, 2], 7)).toThrow(/positions \[0\] of 3/);
    expect(() => injectionNeighbours([1, 7], 7)).toThrow(NlaError);
  });
});

// One id per character: what matters there is which part of the template is tokenised.
function codePoints(text: string): number[] {
  return Array.from(text, (character) => character.codePointAt(0)!);
}
