// `nla check` of GGUF files: intact ones of all three roles give no finding; a value that is no number, a file that is cut, a sidecar of
// another checkpoint are named, a missing tokenizer is noted.
import { copyFile, mkdtemp, open, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openGguf } from "../data/gguf.js";
import { convertCheckpoint } from "../nla/gguf-checkpoint.js";
import { writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { targetDirectory } from "../nla/target.js";
import { Device } from "../tensor/index.js";
import { checkPath } from "./check-path.js";

let folder: string;
const at = (name: string) => path.join(folder, `${name}.gguf`);
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "nlakit-check-gguf-"));
  using device = Device.open({ threads: 1 });
  await writeUntrainedPair(folder, device);
  await convertCheckpoint(path.join(folder, "verbalizer"), at("av"), { holding: "q8_0" });
  await convertCheckpoint(path.join(folder, "reconstructor"), at("ar"), { holding: "bf16" });
  await convertCheckpoint(targetDirectory("aidreams260K"), at("target"));
});
afterAll(() => rm(folder, { recursive: true }));

const codes = async (name: string) => (await checkPath(at(name))).findings.map(({ code }) => code);

test.each(["av", "ar", "target"])("%s: nothing", async (name) => {
  expect(await checkPath(at(name))).toMatchObject({ kind: "GGUF file", findings: [] });
});

test("a value that is no number, by tensor and element", async () => {
  await copyFile(at("target"), at("nan"));
  const whole = await openGguf(at("nan"));
  const { begin } = whole.tensors.get("blk.3.ffn_up.weight")!;
  await whole.close();
  const file = await open(at("nan"), "r+");
  await file.write(Uint8Array.of(0, 0, 0xc0, 0x7f), 0, 4, begin + 4 * 7);
  await file.close();
  const { findings } = await checkPath(at("nan"));
  expect(findings).toMatchObject([
    {
      code: "model.not-finite",
      subject: `${at("nan")}, tensor model.layers.3.mlp.up_proj.weight, element 7`,
    },
  ]);
});

test("a file that is cut", async () => {
  await copyFile(at("target"), at("cut"));
  await truncate(at("cut"), 100_000);
  expect(await codes("cut")).toEqual(["gguf.truncated"]);
});

test("a sidecar of the other half, or of other blocks", async () => {
  await copyFile(at("target"), at("mixed"));
  await copyFile(`${at("ar")}.nla_meta.yaml`, `${at("mixed")}.nla_meta.yaml`);
  // The target has four blocks, a last norm and no value head; the sidecar is of a reconstructor at layer 2.
  expect(await codes("mixed")).toEqual(["contract.layer", "safetensors.missing"]);
});

test("no tokenizer: a note, no finding", async () => {
  await convertCheckpoint(targetDirectory("smallworld"), at("bare"), { tokenizer: false });
  const { findings, notes } = await checkPath(at("bare"));
  expect([findings, notes]).toMatchObject([[], [{ code: "check.no-tokenizer" }]]);
});
