// All 115 golden sidecars against every reader of the reference; the golden pipelines' sidecars written back byte for byte.
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

import { describeWith, sharedPath } from "../../test/shared.js";
import { NlaError } from "../error.js";
import {
  type DatasetSidecar,
  type ModelSidecar,
  type Sidecar,
  createdAtNow,
  datasetSidecarPath,
  formatSidecar,
  parseSidecar,
  readDatasetSidecar,
  readModelSidecar,
  readSidecarFile,
  sidecarPathFor,
  sidecarSource,
  writeDatasetSidecar,
  writeModelSidecar,
} from "./sidecar.js";

const scratch = mkdtempSync(path.join(tmpdir(), "nla-sidecar-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const golden = sharedPath("golden/nla/pipeline") && sharedPath("golden/nla"); // the whole set, not the part in fixtures
const sidecars = sharedPath("golden/nla/sidecars");

type Outcome = { readonly ok: unknown } | { readonly error: { readonly message: string } };
interface Case {
  readonly file: string;
  readonly datagen_reader: Outcome;
  readonly training_reader: Outcome;
  readonly client_reader: Outcome;
  readonly client_reader_with_override_99: Outcome;
  readonly client_critic: Outcome;
}

/** Files where we differ from "accepted by any reader is accepted, refused by all is refused". The reason is the claim. */
const DIFFERENT: Readonly<Record<string, { ours: string; because: string }>> = {
  "actor-injection-scale-zero.yaml": { ours: "sidecar.scale", because: "every vector would become zero" },
  "actor-injection-scale-negative.yaml": {
    ours: "sidecar.scale",
    because: "every vector would be turned round",
  },
  "yaml11-scale-infinity.yaml": { ours: "sidecar.scale", because: "vectors would become NaN" },
  "yaml11-scale-nan.yaml": { ours: "sidecar.scale", because: "vectors would become NaN" },
  "broken-d-model-string.yaml": {
    ours: "sidecar.field",
    because: "the reference takes it, then refuses to start",
  },
  "broken-dataset-schema-2.yaml": {
    ours: "sidecar.schema-version",
    because: "its dataset reader refuses; training never looks",
  },
  "broken-dataset-schema-missing.yaml": { ours: "sidecar.schema-version", because: "as above" },
  "broken-dataset-schema-string.yaml": { ours: "sidecar.schema-version", because: "as above" },
  "broken-dataset-stage-missing.yaml": {
    ours: "sidecar.field",
    because: "its dataset reader refuses; training never looks",
  },
  "broken-dataset-extraction-key-missing.yaml": { ours: "sidecar.field", because: "as above" },
  "broken-mse-scale-word.yaml": {
    ours: "sidecar.scale",
    because: "its client does not look at this scale in a verbalizer; training refuses it",
  },
  ...Object.fromEntries(
    [
      "broken-template-without-placeholder.yaml",
      "broken-template-with-two-placeholders.yaml",
      "broken-template-with-another-placeholder.yaml",
      "broken-template-with-a-stray-brace.yaml",
      "broken-template-with-other-neighbours.yaml",
      "broken-template-spaced-marker.yaml",
      "broken-token-id-drifted.yaml",
      "broken-char-of-two-tokens.yaml",
      "broken-left-neighbour-drifted.yaml",
      "broken-right-neighbour-drifted.yaml",
    ].map((file) => [
      file,
      { ours: "accepted", because: "sound as a file; nla/contract.ts refuses it with the tokenizer" },
    ]),
  ),
};

/** Compares as JSON does, with NaN as in the golden files. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value)) as unknown;

function tokensAsReference(tokens: Sidecar["tokens"]): Record<string, unknown> | null {
  if (tokens === null) return null;
  return {
    injection_char: tokens.injectionChar,
    injection_token_id: tokens.injectionTokenId,
    injection_left_neighbor_id: tokens.leftNeighborId,
    injection_right_neighbor_id: tokens.rightNeighborId,
  };
}

function asDatagenReader(s: DatasetSidecar): unknown {
  const { av, ar } = s.templates;
  return {
    dataset_id: s.datasetId,
    stage: s.stage,
    row_count: s.rowCount,
    extraction: {
      base_model: s.extraction.baseModel,
      d_model: s.extraction.dModel,
      layer_index: s.extraction.layerIndex,
      norm: s.extraction.norm,
      corpus: s.extraction.corpus,
      corpus_slice: Object.fromEntries(s.extraction.corpusSlice),
      positions_per_doc: s.extraction.positionsPerDoc,
    },
    kind: s.kind,
    schema_version: 1,
    keep_debug_metadata: s.keepDebugMetadata,
    tokens: s.tokens && { ...tokensAsReference(s.tokens), critic_suffix_ids: s.tokens.criticSuffixIds },
    prompt_templates: { ...(av === null ? {} : { actor: av }), ...(ar === null ? {} : { critic: ar }) },
    api_summaries: s.apiSummaries && {
      model: s.apiSummaries.model,
      max_tokens: s.apiSummaries.maxTokens,
      temperature: s.apiSummaries.temperature,
      instruction_prompt: s.apiSummaries.instructionPrompt,
    },
    parent_datasets: s.parentDatasets,
    created_at: s.createdAt,
    created_by: s.createdBy,
    git_commit: s.gitCommit,
  };
}

function scalesOf(s: Sidecar): { injection: number | null; mse: number | null } {
  const dModel = s.kind === "nla_model" ? s.dModel : s.extraction.dModel;
  const scales =
    s.kind === "nla_model" ? s : (s.scales ?? { injectionScale: null, mseScale: Math.sqrt(dModel) });
  // The reference has one value, None, for "raw" and for "not stated".
  return { injection: scales.injectionScale === "raw" ? null : scales.injectionScale, mse: scales.mseScale };
}

function asTrainingReader(s: Sidecar): Record<string, unknown> {
  return {
    d_model: s.kind === "nla_model" ? s.dModel : s.extraction.dModel,
    ...tokensAsReference(s.tokens),
    actor_prompt_template: s.templates.av,
    critic_prompt_template: s.templates.ar,
    critic_num_layers: s.kind === "nla_model" ? s.layerIndex : null,
    critic_suffix_ids: s.tokens?.criticSuffixIds ?? null,
    injection_scale: scalesOf(s).injection,
    mse_scale: scalesOf(s).mse,
  };
}

const cases =
  sidecars === null ? [] : (JSON.parse(readFileSync(path.join(sidecars, "expect.json"), "utf8")) as Case[]);

describe.skipIf(cases.length === 0)("the 115 golden sidecars", () => {
  it("are all there, and every file of the table of differences is one of them", () => {
    expect(cases.length).toBe(115);
    const files = new Set(cases.map(({ file }) => file));
    expect(Object.keys(DIFFERENT).filter((file) => !files.has(file))).toEqual([]);
  });

  it.each(cases)("$file", (expected) => {
    const { file, datagen_reader: datagen, training_reader: training, client_critic: critic } = expected;
    const outcome = attempt(path.join(sidecars as string, file));
    const readers = [
      datagen,
      training,
      expected.client_reader,
      expected.client_reader_with_override_99,
      critic,
    ];
    const accepted = readers.some((reader) => "ok" in reader);
    const different = DIFFERENT[file];
    if (different !== undefined) {
      const ours = outcome instanceof NlaError ? outcome.code : "accepted";
      expect(ours).toBe(different.ours);
      expect(accepted, "the difference is still one").toBe(outcome instanceof NlaError);
      return;
    }
    if (!accepted) {
      expect(outcome).toBeInstanceOf(NlaError);
      expect((outcome as NlaError).message).toContain(file);
      return;
    }
    if (outcome instanceof NlaError) throw outcome;
    if ("ok" in datagen && outcome.kind === "nla_dataset") {
      expect(plain(asDatagenReader(outcome))).toEqual(datagen.ok);
    }
    if ("ok" in training) {
      const { critic_num_layers: theirs, ...rest } = training.ok as Record<string, unknown>;
      const { critic_num_layers: layers, ...ours } = asTrainingReader(outcome);
      expect(plain(ours)).toEqual(rest);
      // The reference overlooks two spellings of the layer (golden README, point 7); what it does read, we read alike.
      if (theirs !== null) expect(layers).toBe(theirs);
    }
    if ("ok" in expected.client_reader) {
      const ours = asTrainingReader(outcome);
      for (const [key, value] of Object.entries(expected.client_reader.ok as object)) {
        expect([key, ours[key]]).toEqual([key, value]);
      }
    }
    if ("ok" in critic) {
      expect((outcome as ModelSidecar).role).toBe("ar");
      expect({ mse_scale: scalesOf(outcome).mse, template: outcome.templates.ar }).toEqual(critic.ok);
    }
  });
});

function attempt(file: string): Sidecar | NlaError {
  try {
    return parseSidecar(readFileSync(file), file);
  } catch (thrown) {
    if (thrown instanceof NlaError) return thrown;
    throw thrown;
  }
}

describeWith(sidecars, "the layer index", () => {
  it.each([
    ["model-v2-critic-sl.yaml", 2, 0],
    ["released-ar.yaml", 2, 0],
    ["released-ar-as-documented.yaml", 2, 0],
    ["released-ar-only-top-level-layer.yaml", 2, 0],
    ["critic-v1-num-hidden-layers.yaml", 2, 0],
    ["released-av.yaml", 2, 0],
    ["critic-both-layer-keys-disagree.yaml", 2, 1],
    ["model-v2-actor-rl.yaml", null, 0],
  ])("of %s is %s, with %i notes", async (file, layer, notes) => {
    const sidecar = (await readSidecarFile(path.join(sidecars as string, file))) as ModelSidecar;
    expect([sidecar.layerIndex, sidecar.notes.length]).toEqual([layer, notes]);
  });

  it("that is stated differently is noted with all spellings", async () => {
    const file = path.join(sidecars as string, "critic-both-layer-keys-disagree.yaml");
    expect(((await readSidecarFile(file)) as ModelSidecar).notes[0]).toContain(
      "critic.extraction_layer_index: 2, critic.num_hidden_layers: 7",
    );
  });
});

describeWith(sidecars, "unknown keys", () => {
  it.each([
    ["unknown-keys-inside-a-model.yaml", ["extraction.layer", "tokens.more"]],
    ["broken-dataset-extraction-unknown-key.yaml", 1],
    ["dataset-unknown-top-level-key.yaml", []],
    ["unknown-top-level-keys.yaml", ["note"]],
    ["model-v2-actor-rl.yaml", []],
  ])("of %s are reported, and written back", async (file, wanted) => {
    const sidecar = await readSidecarFile(path.join(sidecars as string, file));
    const names = sidecar.unknown.map(({ path: at }) => at.join("."));
    if (typeof wanted === "number") expect(names.length).toBe(wanted);
    else expect(names).toEqual(wanted);
    const again = parseSidecar(Buffer.from(formatSidecar(sidecar)), file);
    expect(again).toEqual(sidecar);
  });
});

function goldenSidecars(): string[] {
  if (golden === null) return [];
  const folders = ["pipeline", "pipeline-gemma3", "pipeline-llama", "critic", "actor"];
  return folders.flatMap((folder) =>
    (readdirSync(path.join(golden, folder), { recursive: true }) as string[])
      .filter((name) => name.endsWith("nla_meta.yaml"))
      .map((name) => path.join(folder, name)),
  );
}

describeWith(golden, "sidecars that the reference wrote", () => {
  const written = goldenSidecars();
  const released = ["released-av.yaml", "released-ar.yaml", "dataset-v1-rl.yaml", "model-v2-critic-rl.yaml"];

  it("are at least 50", () => {
    expect(written.length).toBeGreaterThan(50);
  });

  it.each([...written, ...released.map((name) => `sidecars/${name}`)])(
    "%s is written back byte for byte",
    (name) => {
      const text = readFileSync(path.join(golden as string, name), "utf8");
      expect(formatSidecar(parseSidecar(Buffer.from(text), name))).toBe(text);
    },
  );
});

const dataset: DatasetSidecar = {
  kind: "nla_dataset",
  datasetId: "base_x_L2_00000000",
  stage: "base",
  rowCount: 3,
  extraction: {
    baseModel: "m",
    dModel: 4,
    layerIndex: 2,
    norm: "none",
    corpus: "c",
    positionsPerDoc: 5,
    corpusSlice: new Map([["start", 0]]),
  },
  keepDebugMetadata: true,
  tokens: null,
  templates: { av: null, ar: null },
  apiSummaries: { model: "extractive", maxTokens: null, temperature: 0, instructionPrompt: null },
  parentDatasets: [],
  createdAt: "2026-01-02T03:04:05+00:00",
  createdBy: "nlakit",
  gitCommit: "",
  scales: null,
  injection: { kind: "replace" },
  format: { kind: "plain", end: 2 },
  extensions: true,
  unknown: [],
};
const tokens = {
  injectionChar: "\u320e",
  injectionTokenId: 9,
  leftNeighborId: 1,
  rightNeighborId: 2,
  criticSuffixIds: [4, 5],
};
const model: ModelSidecar = {
  kind: "nla_model",
  role: "av",
  stage: "rl",
  baseCheckpoint: "b",
  dModel: 4,
  injectionScale: 12,
  mseScale: 2,
  tokens,
  templates: { av: "<v>{injection_char}</v>\n", ar: null },
  trainedOn: [],
  parentCheckpoints: ["p"],
  createdAt: "2026-01-02T03:04:05+00:00",
  createdBy: "nlakit",
  layerIndex: 7,
  layerKeys: ["extraction_layer_index"],
  training: new Map([["loss", "grpo"]]),
  spelling: "training",
  injection: { kind: "replace" },
  format: { kind: "tags", end: null },
  extensions: true,
  unknown: [],
  notes: [],
};

describe("our own sidecars", () => {
  it("read back as they were, extension keys included, from files", async () => {
    await writeDatasetSidecar(path.join(scratch, "a.parquet"), dataset);
    expect(await readDatasetSidecar(path.join(scratch, "a.parquet@[0:2]"))).toEqual(dataset);
    const checkpoint = path.join(scratch, "checkpoint");
    mkdirSync(checkpoint);
    await writeModelSidecar(checkpoint, model);
    expect(await readModelSidecar(checkpoint)).toEqual(model);
    for (const role of ["av", "ar"] as const) {
      for (const spelling of ["training", "released"] as const) {
        const other: ModelSidecar = { ...model, role, spelling, injectionScale: "raw", mseScale: null };
        const layerKeys: unknown = expect.any(Array); // the spelling decides where the layer stands
        expect(parseSidecar(Buffer.from(formatSidecar(other)), "x")).toEqual({ ...other, layerKeys });
      }
    }
  });

  it("state injection and format at the top level, last, and floats as floats", () => {
    const text = formatSidecar(model);
    expect(text).toContain("\n  injection_scale: 12.0\n  mse_scale: 2.0\n");
    expect(text).toContain(
      "\nextraction_layer_index: 7\ninjection:\n  kind: replace\nformat:\n  kind: tags\n  end: null\n",
    );
    expect(text).toContain('injection_char: "\\u320E"');
    expect(formatSidecar(dataset)).toMatch(/\nformat:\n {2}kind: plain\n {2}end: 2\n$/);
  });

  it("default the extension keys where they are absent", () => {
    const { injection, format, extensions } = parseSidecar(
      Buffer.from(formatSidecar({ ...model, extensions: false })),
      "x",
    );
    expect({ injection, format, extensions }).toEqual({
      injection: { kind: "replace" },
      format: { kind: "tags", end: null },
      extensions: false,
    });
  });

  it.each([
    ["injection:\n  kind: add\n", "sidecar.injection"],
    ["format:\n  kind: list\n", "sidecar.format"],
    ["format: tags\n", "sidecar.field"],
    ["format:\n  kind: plain\n  end: -1\n", "sidecar.field"],
  ])("with %j are refused as %s", (extra, code) => {
    const text = formatSidecar({ ...model, extensions: false }) + extra;
    expect(() => parseSidecar(Buffer.from(text), "x")).toThrow(expect.objectContaining({ code }));
  });

  it.each([
    ["av_sft", {}, /no tokens, no prompt_templates.actor/],
    [
      "ar_sft",
      { tokens: { ...tokens, criticSuffixIds: null }, templates: { av: "a", ar: null } },
      /critic_suffix_ids, no prompt_templates.critic/,
    ],
    ["rl", { templates: { av: "a", ar: null } }, /no tokens$/],
  ] as const)("of stage %s are refused before writing without what readers assert", (stage, more, found) => {
    expect(() => formatSidecar({ ...dataset, ...more, stage })).toThrow(
      expect.objectContaining({ code: "sidecar.incomplete", found: expect.stringMatching(found) }),
    );
  });

  it("of the wrong kind, or absent, are named", async () => {
    writeFileSync(path.join(scratch, "b.parquet.nla_meta.yaml"), formatSidecar(model));
    await expect(readDatasetSidecar(path.join(scratch, "b.parquet"))).rejects.toMatchObject({
      code: "sidecar.kind",
    });
    await expect(readModelSidecar(path.join(scratch, "nowhere"))).rejects.toMatchObject({
      code: "sidecar.missing",
      subject: path.join(scratch, "nowhere", "nla_meta.yaml"),
    });
  });
});

interface PathCase {
  readonly path: string;
  readonly exists: "directory" | "file" | "no";
  readonly sidecar_path_for: { readonly ok: string };
  readonly dataset_sidecar_path: { readonly ok: string };
}

describeWith(sidecars, "where a sidecar lies", () => {
  const read = <T>(name: string): T =>
    JSON.parse(readFileSync(path.join(sidecars as string, name), "utf8")) as T;
  const pathCases = sidecars === null ? [] : read<PathCase[]>("paths.json");

  it.each(pathCases)("$path ($exists)", async ({ path: given, exists, ...wanted }) => {
    const here = mkdtempSync(path.join(scratch, "paths-"));
    const real = path.join(here, given.replace(/@\[[^\]]*\]$/, ""));
    if (exists === "directory") mkdirSync(real, { recursive: true });
    if (exists === "file") writeFileSync(real, "");
    expect(datasetSidecarPath(given)).toBe(wanted.dataset_sidecar_path.ok);
    // Joined by hand: path.join would already take a trailing slash and a slice's dots as part of the path.
    const found = await sidecarPathFor(`${here}/${given}`);
    expect(path.relative(here, found)).toBe(wanted.sidecar_path_for.ok);
  });

  interface SourceCase {
    readonly explicit: string | null;
    readonly hf_checkpoint: string | null;
    readonly prompt_data: string | null;
    readonly ok?: string;
  }

  it("and which of three is used, in all 16 cases", async () => {
    const here = mkdtempSync(path.join(scratch, "sources-"));
    for (const folder of ["with", "without"]) mkdirSync(path.join(here, folder));
    writeFileSync(path.join(here, "with", "nla_meta.yaml"), "");
    const all = read<SourceCase[]>("sources.json");
    expect(all.length).toBe(16);
    for (const { explicit, hf_checkpoint: named, prompt_data: data, ok } of all) {
      const checkpoint = named === null ? null : path.join(here, named);
      const outcome = await sidecarSource({ explicit, checkpoint, data }).catch(
        (thrown: NlaError) => thrown.code,
      );
      expect(outcome).toBe(ok === undefined ? "sidecar.no-source" : ok === "with" ? checkpoint : ok);
    }
  });
});

describe("createdAtNow", () => {
  it("is SOURCE_DATE_EPOCH in Python's isoformat, or else the clock", () => {
    expect(createdAtNow({ SOURCE_DATE_EPOCH: "1767323045" })).toBe("2026-01-02T03:04:05+00:00");
    const before = Date.now();
    const now = createdAtNow({});
    expect(now).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}000)?\+00:00$/);
    expect(Math.abs(Date.parse(now) - before)).toBeLessThan(5000);
  });

  it.each(["soon", "-5", "1e99", "99999999999999999"])("refuses %j", (epoch) => {
    expect(() => createdAtNow({ SOURCE_DATE_EPOCH: epoch })).toThrow(
      expect.objectContaining({ code: "sidecar.epoch" }),
    );
  });
});
