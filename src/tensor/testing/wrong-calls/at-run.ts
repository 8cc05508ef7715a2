// Wrong calls: values, row numbers and the order of building, running and reading.
import { Arena, ops } from "../../index.js";
import type { Graph, HostArray } from "../../index.js";
import { input, wrong, x } from "./wrong-call.js";
import type { WrongCall } from "./wrong-call.js";

const twice = Int32Array.of(1, 1);
const gather = (g: Graph, rows: number): void => {
  g.output(ops.gatherRows(g, g.variable("table", [rows, 2]), g.input("rows", [2], "i32")));
};
const table = new Float32Array(6);
const replace = (g: Graph): void => {
  g.output(ops.replaceRows(g, g.input("x", [3, 2]), g.input("rows", [2, 2]), g.input("at", [2], "i32")));
};
/** Runs. */
export const wrongRuns: readonly WrongCall[] = [
  wrong("row beyond the table", "index", ["3", "[2]", "0 to 2"], async (g) => {
    gather(g, 3);
    await g.run({ table, rows: Int32Array.of(0, 3) });
  }),
  wrong("negative row", "index", ["-1", "0 to 2"], async (g) => {
    gather(g, 3);
    await g.run({ table, rows: Int32Array.of(-1, 0) });
  }),
  wrong("target beyond the vocabulary", "index", ["11", "0 to 10"], async (g, { arena }) => {
    const targets = g.input("targets", [2], "i32");
    g.output(ops.tokenLogProbs(g, g.input("h", [2, 5]), arena.get("w"), targets));
    await g.run({ h: new Float32Array(10), targets: Int32Array.of(10, 11) });
  }),
  wrong("negative position", "index", ["-7"], async (g) => {
    g.output(ops.rope(g, g.input("x", [2, 1, 2]), g.input("at", [2], "i32"), { theta: 1e4 }));
    await g.run({ x: new Float32Array(4), at: Int32Array.of(0, -7) });
  }),
  wrong("place beyond the rows", "index", ["3", "0 to 2"], async (g) => {
    replace(g);
    await g.run({ x: table, rows: new Float32Array(4), at: Int32Array.of(0, 3) });
  }),
  wrong("place twice", "index", ["1 for the second time"], async (g) => {
    replace(g);
    await g.run({ x: table, rows: new Float32Array(4), at: twice });
  }),
  wrong("one index input for two tables keeps the smaller bound", "index", ["0 to 1"], async (g) => {
    const rows = g.input("rows", [2], "i32");
    g.output(ops.gatherRows(g, g.input("small", [2, 2]), rows));
    g.output(ops.gatherRows(g, g.input("large", [9, 2]), rows));
    await g.run({ small: new Float32Array(4), large: new Float32Array(18), rows: Int32Array.of(0, 2) });
  }),
  wrong("indices in f32", "index", ["f32", "[2]"], (g) => ops.gatherRows(g, x(g, 3, 2), x(g, 2))),
  wrong("indices in i64", "index", ["i64", "[2]"], (g) =>
    ops.gatherRows(g, x(g, 3, 2), input(g, [2], "i64")),
  ),
  wrong("indices that are computed", "index", ["[2]", "input"], (g) =>
    ops.gatherRows(g, x(g, 3, 2), ops.reshape(g, input(g, [1, 2], "i32"), [2])),
  ),
  wrong("indices in an arena", "index", ["[2]", "input"], (g, { device }) => {
    using arena = new Arena(device, "rows", { rows: { shape: [2], dtype: "i32" } });
    ops.gatherRows(g, x(g, 3, 2), arena.get("rows"));
  }),
  wrong("unknown input", "input", ["y", "a [3]"], async (g) => {
    g.output(ops.exp(g, g.input("a", [3])));
    await g.run({ a: new Float32Array(3), y: new Float32Array(3) });
  }),
  wrong("missing input", "input", ["b [4]"], async (g) => {
    g.output(ops.exp(g, g.input("a", [3])));
    g.output(ops.exp(g, g.input("b", [4])));
    await g.run({ a: new Float32Array(3) });
  }),
  wrong("missing input with the name of a method of objects", "input", ["toString [3]"], async (g) => {
    g.output(ops.exp(g, g.input("toString", [3])));
    await g.run({});
  }),
  wrong("second input of a name", "input", ["a"], (g) => {
    g.input("a", [3]);
    g.input("a", [3]);
  }),
  ...(
    [
      ["too short", new Float32Array(2), "Float32Array of 2"],
      ["too long", new Float32Array(4), "Float32Array of 4"],
      ["empty", new Float32Array(0), "Float32Array of 0"],
      ["of another type", new Int32Array(3), "Int32Array of 3"],
      ["in float64", new Float64Array(3), "Float64Array of 3"],
      ["in bytes", new Uint8Array(12), "Uint8Array of 12"],
      ["a plain array", [1, 2, 3], "Array of 3"],
      ["null", null, "null"],
      ["undefined", undefined, "undefined"],
      ["a number", 5, "5"],
    ] as const
  ).map(([what, data, told]) =>
    wrong(`values ${what}`, "data", ["[3]", "Float32Array of 3", told], async (g) => {
      g.output(ops.exp(g, g.input("a", [3])));
      await g.run({ a: data as unknown as HostArray });
    }),
  ),
  wrong("write of a wrong length", "data", ["[5]", "Float32Array of 4"], (_, { arena }) =>
    arena.get("v").write(new Float32Array(4)),
  ),
  wrong("write of float32 to bf16", "data", ["[11, 5]", "Uint16Array of 55"], (_, { arena }) =>
    arena.get("half").write(new Float32Array(55)),
  ),
  wrong("write to an input", "access", ["[3]"], (g) => g.input("a", [3]).write(new Float32Array(3))),
  wrong("read of an input before the run", "access", ["[3]"], (g) => g.input("a", [3]).read()),
  wrong("read of an output before the run", "access", ["[3]", "run"], (g) => {
    g.output(ops.exp(g, g.input("a", [3]))).read();
  }),
  wrong("read of what is no output", "access", ["[3]", "output"], async (g) => {
    const y = ops.exp(g, g.input("a", [3]));
    g.output(ops.sum(g, y));
    await g.run({ a: new Float32Array(3) });
    y.read();
  }),
  wrong("read of what is not in the run", "access", ["[3]", "output"], async (g) => {
    const y = ops.exp(g, g.input("a", [3]));
    await g.run({ a: new Float32Array(3) });
    y.read();
  }),
  wrong("read during the run", "access", ["[3]", "under way"], async (g) => {
    const y = g.output(ops.exp(g, g.input("a", [3])));
    const run = g.run({ a: new Float32Array(3) });
    try {
      y.read();
    } finally {
      await run;
    }
  }),
  wrong("op after compile", "compiled", ["exp"], (g) => {
    const y = g.output(ops.exp(g, g.input("a", [3])));
    g.compile();
    ops.exp(g, y);
  }),
  wrong("input after compile", "compiled", ["late"], (g) => {
    g.output(ops.exp(g, g.input("a", [3])));
    g.compile();
    g.input("late", [3]);
  }),
  wrong("output after compile", "compiled", ["[3]"], (g) => {
    const y = ops.exp(g, g.input("a", [3]));
    g.output(ops.sum(g, y));
    g.compile();
    g.output(y);
  }),
  wrong("backward after compile", "compiled", ["backward"], (g) => {
    const loss = g.output(ops.sum(g, x(g, 3)));
    g.compile();
    g.backward(loss);
  }),
];
