// What a watcher sees: a live line on a terminal (read back through a small terminal), plain lines in a file, JSON lines.
import { stripVTControlCharacters } from "node:util";
import { describe, expect, it } from "vitest";
import { formatNumber, formatSeconds, openProgress } from "./progress.js";
import type { ProgressOptions } from "./progress.js";

/** A stream that keeps what it gets, and a clock that is set by hand. */
function screen({ isTTY = false, columns = 100 }: { isTTY?: boolean; columns?: number } = {}) {
  let text = "";
  let now = 5_000;
  const stream = { isTTY, columns, write: (more: string) => void (text += more) };
  return {
    options: { stream, clock: () => now } satisfies ProgressOptions,
    pass: (seconds: number) => void (now += seconds * 1_000),
    text: () => text,
    /** What a terminal shows: `\r ESC[2K` clears the line that the cursor is in. */
    rows: () => text.split("\n").map((row) => stripVTControlCharacters(row.slice(row.lastIndexOf("\r") + 1))),
  };
}

describe("on a terminal", () => {
  it("keeps one line per stage up to date", () => {
    const { options, pass, rows } = screen({ isTTY: true });
    const stage = openProgress(options).stage("reconstructor", { total: 100 });
    expect(rows()).toEqual(["reconstructor  0/100  ? left"]);
    for (let step = 1; step <= 10; step++) {
      pass(0.5);
      stage.report({ step, tokens: 600, numbers: { loss: 1 / 3, lr: 1e-5 } });
    }
    expect(rows()).toEqual(["reconstructor  10/100  loss 0.3333  lr 1.00e-5  1200 tok/s  45s left"]);
    stage.end();
    expect(rows()).toEqual(["reconstructor  10/100  loss 0.3333  lr 1.00e-5  1200 tok/s  in 5s", ""]);
  });

  it("redraws no more than ten times a second, but always at the end", () => {
    const { options, pass, text, rows } = screen({ isTTY: true });
    const stage = openProgress(options).stage("rl", { total: 1_000 });
    for (let step = 1; step <= 1_000; step++) {
      pass(0.001);
      stage.report({ step });
    }
    stage.end();
    expect(text().split("\r").length - 1).toBeLessThanOrEqual(13);
    expect(rows()[0]).toBe("rl  1000/1000  in 1s");
  });

  it("counts the time left from the steps of this process only", () => {
    const { options, pass, rows } = screen({ isTTY: true });
    const stage = openProgress(options).stage("rl", { total: 200, from: 100 });
    pass(2);
    stage.report({ step: 101 });
    expect(rows()).toEqual(["rl  101/200  3m18s left"]);
  });

  it("follows a change of speed", () => {
    const { options, pass, rows } = screen({ isTTY: true });
    const stage = openProgress(options).stage("rl", { total: 1_000 });
    for (let step = 1; step <= 100; step++) {
      pass(step <= 50 ? 10 : 1);
      stage.report({ step, tokens: 100 });
    }
    expect(rows()).toEqual(["rl  100/1000  100 tok/s  15m00s left"]);
  });

  it("puts notes above the line", () => {
    const { options, rows } = screen({ isTTY: true });
    const progress = openProgress(options);
    progress.note("resumed");
    const stage = progress.stage("rl", { total: 2 });
    progress.note("saved step 1");
    expect(rows()).toEqual(["resumed", "saved step 1", "rl  0/2  ? left"]);
    stage.end();
    progress.note("over");
    expect(rows().slice(-2)).toEqual(["over", ""]);
  });

  it("never writes a line that would wrap", () => {
    const { options, pass, rows } = screen({ isTTY: true, columns: 30 });
    const stage = openProgress(options).stage("verbalizer", { total: 10 });
    pass(1);
    stage.report({ step: 1, tokens: 9, numbers: { loss: 1.5, fve: 0.25, entropy: 3 } });
    expect(rows()).toEqual(["verbalizer  1/10  loss 1.5"]);
  });

  it("ends a stage that is still open when the next begins, and then ignores it", () => {
    const { options, pass, rows } = screen({ isTTY: true });
    const progress = openProgress(options);
    const first = progress.stage("a", { total: 1 });
    progress.stage("b", { total: 1 });
    pass(1);
    first.report({ step: 1 });
    first.end();
    expect(rows()).toEqual(["a  0/1  in 0s", "b  0/1  ? left"]);
  });

  it("uses colours unless NO_COLOR is set", () => {
    const coloured = screen({ isTTY: true });
    openProgress(coloured.options).stage("a", { total: 1 });
    expect(coloured.text()).toContain("\u001B[1ma\u001B[0m");
    const plain = screen({ isTTY: true });
    openProgress({ ...plain.options, env: { NO_COLOR: "1" } }).stage("a", { total: 1 });
    expect(plain.text().replaceAll("\u001B[2K", "")).not.toContain("\u001B");
  });
});

describe("elsewhere", () => {
  it("writes a plain line now and then", () => {
    const { options, pass, text } = screen();
    const stage = openProgress(options).stage("rl", { total: 30 });
    for (let step = 1; step <= 30; step++) {
      pass(1);
      stage.report({ step, tokens: 50, numbers: { reward: -0.5 } });
    }
    stage.end();
    expect(text().split("\n")).toEqual([
      "rl  0/30",
      "rl  10/30  reward -0.5  50 tok/s  20s left",
      "rl  20/30  reward -0.5  50 tok/s  10s left",
      "rl  30/30  reward -0.5  50 tok/s  in 30s",
      "",
    ]);
    expect(text()).not.toContain("\u001B");
  });

  it("takes a dumb terminal for a file", () => {
    const { options, text } = screen({ isTTY: true });
    openProgress({ ...options, env: { TERM: "dumb" } }).stage("a", { total: 1 });
    expect(text()).toBe("a  0/1\n");
  });
});

describe("with json", () => {
  it("writes one object a line, with every step and no lost NaN", () => {
    const { options, pass, text } = screen({ isTTY: true });
    const progress = openProgress({ ...options, json: true });
    progress.note("hello");
    const stage = progress.stage("rl", { total: 4, from: 1 });
    pass(2);
    stage.report({ step: 2, tokens: 10, numbers: { loss: Number.NaN } });
    stage.end("stopped");
    const timing = { seconds: 2, tokens_per_second: 5, seconds_left: 4 };
    expect(
      text()
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual([
      { event: "note", text: "hello" },
      { event: "stage", stage: "rl", step: 1, total: 4 },
      { event: "step", stage: "rl", step: 2, total: 4, loss: "NaN", timing },
      { event: "end", stage: "rl", step: 2, total: 4, loss: "NaN", timing, outcome: "stopped" },
    ]);
  });
});

it.each([
  [0, "0s"],
  [59.4, "59s"],
  [59.6, "1m00s"],
  [3_599, "59m59s"],
  [3_600, "1h00m"],
  [7_620, "2h07m"],
  [270_000, "3d03h"],
  [Number.NaN, "?"],
  [Infinity, "?"],
])("formatSeconds(%s) is %s", (seconds, text) => {
  expect(formatSeconds(seconds)).toBe(text);
});

it.each([
  [0, "0"],
  [12, "12"],
  [0.123456, "0.1235"],
  [-2.5, "-2.5"],
  [1234.56, "1235"],
  [0.00001234, "1.23e-5"],
  [12_345_678, "1.23e+7"],
  [Number.NaN, "NaN"],
])("formatNumber(%s) is %s", (value, text) => {
  expect(formatNumber(value)).toBe(text);
});
