// Texts that PyYAML 6.0.3 wrote are read to the right values and written back to the same bytes; what it refuses is refused.
import { describe, expect, it } from "vitest";

import { readYaml } from "./yaml-read.js";
import { YamlFloat, type YamlMap, type YamlValue, floatText } from "./yaml-scalars.js";
import { writeYaml } from "./yaml-write.js";

const read = (text: string): YamlValue => readYaml(Buffer.from(text), "a.yaml");
const get = (text: string): unknown => {
  const value = (read(`k: ${text}`) as YamlMap).get("k");
  return value instanceof YamlFloat ? { float: value.value } : value;
};

// Written by PyYAML: folding of all three styles, indentation, indicators, everything that needs quotes, floats, integers.
const WRITTEN: readonly string[] = [
  "a: plain words that go on and on until the line is longer than eighty columns and\n  has to be folded somewhere\nb:\n- x\n- - y\n  - - z\n- k: 1\n  l: []\n- []\nc: {}\nd:\n  e:\n    f: null\n",
  "quote: 'it''s ''quoted'' text: with a colon that goes on and on until the line is\n  longer than eighty columns'\nbreaks: 'one\n\n\n  two\n\n  three\n\n  '\nedge: ' leading'\ntrail: 'trailing '\nempty: ''\n",
  'uni: "\\u320E"\nlong: "\\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9\\\n  t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9\\\n  t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9\\\n  t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 \\xE9t\\xE9 "\nesc: "tab\\there \\\\ \\"q\\" \\a \\L \\U0001F600"\nsb: "a \\nb"\nbs: "a\\n b"\n',
  "n:\n- 'null'\n- '~'\n- 'yes'\n- 'No'\n- '1'\n- '0226'\n- '2:30'\n- '1_50'\n- '1.0'\n- '.5'\n- 8e4\n- 1e+5\n- '1.0e+5'\n- '='\n- '<<'\n- '2026-01-02'\n- '0x1F'\n- '.inf'\n- '-'\n- '?'\n- ':'\n- '- a'\n- 'a: b'\n- 'a #b'\n- '#a'\n- a:b\n- a#b\n- '@a'\n- '%a'\n- '!a'\n- '&a'\n- '*a'\n- '{a'\n- '[a'\n- a,b\n- '---a'\n- '...'\n- '`'\n",
  "f:\n- 1.0\n- 0.1\n- 1.0e-05\n- 1.0e+16\n- 1.2345678901234568e+17\n- 1000000000000000.0\n- 1.5e+300\n- -0.0\n- 5.0e-324\n- 0.0001\n- 1.0e+22\n- 2.5\n",
  "i:\n- 0\n- -7\n- 9007199254740992\n- 1000000000000000000000000000000\nt: true\nu: false\n",
];

describe("what PyYAML wrote", () => {
  it.each(WRITTEN)("is written back byte for byte: %j", (text) => {
    expect(writeYaml(read(text) as YamlMap)).toBe(text);
  });
});

describe("a YAML 1.1 scalar", () => {
  it.each<[string, unknown]>([
    ["0226", 150],
    ["2:30", 150],
    ["1_50", 150],
    ["0x96", 150],
    ["0b101", 5],
    ["-0b101", -5],
    ["0", 0],
    ["+7", 7],
    ["09", "09"],
    ["yes", true],
    ["Off", false],
    ["y", "y"],
    ["8e4", "8e4"],
    ["8.0e4", "8.0e4"],
    ["8.0e+4", { float: 80000 }],
    ["1.", { float: 1 }],
    [".5", { float: 0.5 }],
    ["1:30.5", { float: 90.5 }],
    ["-.inf", { float: -Infinity }],
    [".NaN", { float: NaN }],
    ["~", null],
    ["", null],
    ["null", null],
    ["2026-01-02", "2026-01-02"],
    ["'1'", "1"],
    ['"\\u320e"', "\u320e"],
    ["!!str 5", "5"],
    ["!!int '5'", 5],
    ["!!float 5", { float: 5 }],
    ["9007199254740993", 9007199254740993n],
    ["=", "="],
  ])("%s is %s", (text, value) => {
    expect(get(text)).toEqual(value);
  });

  it.each([
    [1, "1.0"],
    [1e-5, "1.0e-05"],
    [1e16, "1.0e+16"],
    [-0, "-0.0"],
    [123456.789, "123456.789"],
    [NaN, ".nan"],
  ])("the float %d is written %s", (value, text) => {
    expect(floatText(value)).toBe(text);
  });
});

describe("a document", () => {
  it("takes the last of two keys, aliases and merges, a byte-order mark, CRLF, comments and marks", () => {
    const text =
      "\ufeff%YAML 1.1\n---\na: 1 # one\r\nb: &x {p: 1, q: 2}\r\na: 3\nc: *x\nd:\n  <<: *x\n  q: 5\n...\n";
    const map = read(text) as YamlMap;
    expect(map.get("a")).toBe(3);
    expect(map.get("c")).toBe(map.get("b"));
    expect(map.get("d")).toEqual(
      new Map([
        ["p", 1],
        ["q", 5],
      ]),
    );
  });

  it("may be empty", () => {
    expect(read("")).toBeNull();
    expect(read("# only a comment\n")).toBeNull();
  });

  it("of nested aliases does not multiply", () => {
    const lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"];
    for (let i = 1; i < 40; i++)
      lines.push(
        `a${i}: &a${i} [${Array(9)
          .fill(`*a${i - 1}`)
          .join(", ")}]`,
      );
    expect((read(lines.join("\n")) as YamlMap).size).toBe(40);
  });

  it.each([
    ["a: *nowhere", "yaml.syntax"],
    ["a: &x [*x]", "yaml.syntax"],
    ["a: b: c", "yaml.syntax"],
    ["a: [1, 2", "yaml.syntax"],
    ["a: 'open", "yaml.syntax"],
    ["a: 1\n---\nb: 2", "yaml.documents"],
    ["a: !!python/object:os.system x", "yaml.value"],
    ["a: !!int x", "yaml.value"],
    ["? [a]\n: b", "yaml.value"],
    ["1.5: b", "yaml.value"],
    ["a: \0", "yaml.encoding"],
    [`a: ${"[".repeat(100)}${"]".repeat(100)}`, "yaml.value"],
    ["[".repeat(20_000), "yaml.syntax"],
    ["a".repeat(4_000_001), "yaml.size"],
  ])("refused: case %#", (text, code) => {
    expect(() => read(text)).toThrow(expect.objectContaining({ code, subject: "a.yaml" }));
  });

  it("that is not UTF-8 is refused", () => {
    for (const bytes of [Buffer.from([0x61, 0xff]), Buffer.from("\ufeffa: 1", "utf16le")]) {
      expect(() => readYaml(bytes, "a.yaml")).toThrow(expect.objectContaining({ code: "yaml.encoding" }));
    }
  });
});
