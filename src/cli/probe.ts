// `nla probe`: which facts of the world are linearly present at each layer of a target. Thin: probes are evaluate/world-probes.ts.
import { performance } from "node:perf_hooks";
import { loadTarget, targetDirectory } from "../nla/target.js";
import { bestLayer, GATES, probeWorld } from "../evaluate/world-probes.js";
import type { ProbeResult } from "../evaluate/world-probes.js";
import { openProgress } from "../train/progress.js";
import { deviceFor } from "./device-for.js";
import { parseCapture } from "./forward.js";
import type { Capture } from "./forward.js";
import { UsageError } from "./output.js";
import { wholeNumber } from "./program.js";
import type { CommandEntry } from "./program.js";
import { table } from "./table.js";

interface ProbeFlags {
  readonly model: string;
  readonly layers: string;
  readonly documents: number;
  readonly positions: number;
  readonly seed: number;
  readonly threads?: number;
}

function right(header: string) {
  return { header, align: "right" as const };
}

/** The table of categories and layers, the gates, and every category by distance from what showed it at the layer to read. */
export function renderProbes(results: readonly ProbeResult[]): string {
  const layers = [...new Set(results.map(({ layer }) => layer))];
  const categories = [...new Set(results.map(({ category }) => category))];
  const of = (layer: number, category: string) =>
    results.find((each) => each.layer === layer && each.category === category);
  const rows = categories.map((category) => {
    const all = layers.map((layer) => of(layer, category));
    const any = all.find((each) => each !== undefined);
    const cells = all.map((each) =>
      each ? `${withInterval(each.accuracy)} | ${each.control.toFixed(2)}` : "-",
    );
    const counts = [String(any?.classes ?? ""), String(any?.testRows ?? ""), any?.majority.toFixed(2) ?? ""];
    return [String(category)].concat(counts, cells);
  });
  const heads = [{ header: "fact" }, right("values"), right("rows"), right("commonest")];
  const main = table([...heads, ...layers.map((layer) => right(`block ${layer}`))], rows);
  const note =
    "Right on held-out documents, 95 % interval by document | the same probe fitted to shuffled labels.";
  const layer = bestLayer(results);
  const parts = [main, note];
  if (layer !== null) parts.push(gateTable(results, layers), distanceTable(results, layer));
  return `${parts.join("\n\n")}\n`;
}

/** Each gate at each layer: what was wanted, what was found, and whether that is enough. */
function gateTable(results: readonly ProbeResult[], layers: readonly number[]): string {
  const rows = GATES.map(({ category, from, to, least }) => {
    const gates = layers.map(
      (layer) => results.find((each) => each.layer === layer && each.category === category)?.gate,
    );
    const cells = gates.map((gate) =>
      gate
        ? `${gate.passed ? "pass" : "FAIL"} ${withInterval(gate.accuracy)} | ${gate.control.toFixed(2)}`
        : "-",
    );
    const range = from === 0 && to === null ? "all" : rangeText(from, to);
    return [category as string, range, least.toFixed(2)].concat(cells);
  });
  const heads = [{ header: "gate" }, { header: "tokens since" }, right("at least")];
  const body = table([...heads, ...layers.map((layer) => right(`block ${layer}`))], rows);
  return `Gates of a target, before any NLA is trained on it; after the bar, shuffled labels:\n${body}`;
}

/** Every category at one layer, by how many tokens ago the text showed it. */
function distanceTable(results: readonly ProbeResult[], layer: number): string {
  const at = results.filter((each) => each.layer === layer && each.category !== "word");
  const buckets = [...new Map(at.flatMap(({ byDistance }) => byDistance.map(({ from, to }) => [from, to])))];
  buckets.sort((a, b) => (a[0] as number) - (b[0] as number));
  const rows = at.map(({ category, byDistance }) => {
    const cells = buckets.map(([from]) => {
      const found = byDistance.find((each) => each.from === from);
      return found ? withInterval(found.accuracy) : "-";
    });
    return [String(category)].concat(cells);
  });
  const heads = buckets.map(([from, to]) => right(rangeText(from as number, to as number | null)));
  const title = `Block ${layer} does best at the gates. By tokens since the text showed the fact:`;
  return `${title}\n${table([{ header: "fact" }, ...heads], rows)}`;
}

function rangeText(from: number, to: number | null): string {
  return to === null ? `${from} and more` : `${from} to ${to - 1}`;
}

function withInterval({ value, low, high }: ProbeResult["accuracy"]): string {
  return `${value.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}

function layersOf(text: string, count: number): readonly number[] {
  const everyBlock = Array.from({ length: count }, (_, layer) => layer);
  let capture: Capture;
  try {
    capture = parseCapture(text);
  } catch (cause) {
    throw new UsageError({
      code: "cli.option",
      subject: "--layers",
      found: JSON.stringify(text),
      wanted: "all, or block numbers such as 0,2",
      next: `This model has blocks 0 to ${count - 1}.`,
      cause,
    });
  }
  return capture.all ? everyBlock : capture.blocks;
}

/** The `probe` command. */
export const probeCommand: CommandEntry = {
  name: "probe",
  summary: "measure which facts of the world are linearly present at each layer",
  options: [
    { flags: "--model <dir>", hub: "name", description: "a target trained on the world", required: true },
    { flags: "--layers <list>", description: "blocks, such as 0,2, or all", default: "all" },
    {
      flags: "--documents <n>",
      description: "documents, a fifth of them held out",
      default: 2000,
      parse: wholeNumber("--documents", 10),
    },
    {
      flags: "--positions <n>",
      description: "tokens of each document",
      default: 8,
      parse: wholeNumber("--positions", 1),
    },
    {
      flags: "--seed <n>",
      description: "which world, positions and resamples",
      default: 1,
      parse: wholeNumber("--seed"),
    },
    { flags: "--threads <n>", description: "CPU threads", parse: wholeNumber("--threads", 1) },
  ],
  examples: [
    {
      command: "nla probe --model runs/smallworld-target/target",
      does: "every category at every layer",
    },
    { command: "nla probe --model DIR --layers 2 --documents 4000", does: "one layer, narrower intervals" },
  ],
  jsonHelp:
    "{model, documents, results: [{layer, category, classes, trainRows, testRows, accuracy: {value, low, high, ...}, control, majority, byDistance, gate}]}",
  action: async (_, options, { stdout, stderr, env, json, signal }) => {
    const { model, layers, documents, positions, seed, threads } = options as unknown as ProbeFlags;
    using device = await deviceFor([targetDirectory(model)], { threads });
    using target = await loadTarget(model, device);
    const progress = openProgress({ stream: stderr, clock: () => performance.now(), json, env });
    const chosen = layersOf(layers, target.model.config.layers);
    let live: ReturnType<typeof progress.stage> | null = null;
    const results = await probeWorld(target, {
      layers: chosen,
      documents,
      positions,
      seed,
      signal,
      onProgress: (step, total) => {
        live ??= progress.stage("probe", { total });
        live.report({ step });
      },
    });
    live = live as ReturnType<typeof progress.stage> | null;
    live?.end("done");
    stdout.write(json ? `${JSON.stringify({ model, documents, results })}\n` : renderProbes(results));
  },
};
