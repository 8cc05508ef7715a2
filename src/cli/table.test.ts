// Tables, bars and text from strangers.
import { describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import { bar, displayWidth, printable, table, truncate, wrap } from "./table.js";

describe("bar", () => {
  it.each([
    [0, "░░░░"],
    [1, "████"],
    [0.5, "██░░"],
    [0.03125, "▏░░░"],
    [0.40625, "█▋░░"],
    [0.999, "████"],
    [-0.3, "░░░░"],
    [7, "████"],
    [Infinity, "████"],
  ])("of %s", (value, text) => {
    expect(bar(value, 4)).toBe(text);
  });
  it("always has its width", () => {
    for (let i = -10; i <= 110; i++) expect(displayWidth(bar(i / 100, 7))).toBe(7);
  });
  it("does not show NaN as 0", () => {
    expect(() => bar(Number.NaN)).toThrow(NlaError);
  });
});

describe("printable", () => {
  it.each([
    ["a\nb\tc\r", "a⏎b⇥c␍"],
    ["\u001B[31mred\u0007", "\\x1b[31mred\\x07"],
    ["\u202Ereversed", "\\u202ereversed"],
    ["half \uD83D", "half \\ud83d"],
    ["plain é 漢 😀 text", "plain é 漢 😀 text"],
  ])("%j", (text, shown) => {
    expect(printable(text)).toBe(shown);
  });
});

it.each([
  ["abc", 3],
  ["漢字", 4],
  ["e\u0301", 1],
  ["😀", 2],
  ["", 0],
])("displayWidth(%s) is %i", (text, width) => {
  expect(displayWidth(text)).toBe(width);
});

it.each([
  ["abcdef", 6, "abcdef"],
  ["abcdef", 4, "abc…"],
  ["漢字漢字", 5, "漢字…"],
  ["漢字漢字", 4, "漢…"],
  ["ae\u0301bc", 3, "ae\u0301…"],
])("truncate(%s, %i)", (text, width, shown) => {
  expect(truncate(text, width)).toBe(shown);
  expect(displayWidth(shown)).toBeLessThanOrEqual(width);
});

it("wrap breaks at spaces and keeps long words whole", () => {
  expect(wrap("one two three verylongword x", 9)).toEqual(["one two", "three", "verylongword", "x"]);
  expect(wrap("", 9)).toEqual([""]);
});

describe("table", () => {
  it("aligns by what is seen", () => {
    const columns = [
      { header: "token" },
      { header: "n", align: "right" as const },
      { header: "text", maxWidth: 6 },
    ];
    const rows = [
      ["漢", "7", "short"],
      ["\n", "123", "rather long"],
      ["", "", ""],
    ];
    expect(table(columns, rows).split("\n")).toEqual([
      "token    n  text",
      "漢       7  short",
      "⏎      123  rathe…",
      "",
    ]);
  });
  it("refuses rows of another length", () => {
    expect(() => table([{ header: "a" }], [["1", "2"]])).toThrow("row 0 of a table: found 2 cells; wanted 1");
  });
  it("is a header alone without rows", () => {
    expect(table([{ header: "a" }, { header: "b" }], [])).toBe("a  b");
  });
});
