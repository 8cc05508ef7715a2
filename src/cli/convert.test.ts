// `nla convert` as it is called, and what it writes as `nla forward` and `nla explain` take it.
import { mkdir, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Device } from "../tensor/index.js";
import { loadNla } from "../nla/read.js";
import { writeUntrainedPair } from "../nla/testing/untrained-pair.js";
import { COMMANDS } from "./commands.js";
import { runCli } from "./program.js";

async function nla(...args: string[]) {
  let out = "";
  let err = "";
  const code = await runCli(args, COMMANDS, {
    version: "0",
    streams: {
      stdout: { write: (text) => void (out += text) },
      stderr: { write: (text) => void (err += text) },
      env: {},
    },
  });
  return { code, out, err };
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "nlakit-convert-"));
  using device = Device.open({ threads: 1 });
  await writeUntrainedPair(folder, device);
});
afterAll(() => rm(folder, { recursive: true }));

test("a pair and its target as three files, quantized, read a text", async () => {
  const [av, ar, target] = ["av", "ar", "target"].map((name) => path.join(folder, `${name}.gguf`)) as [
    string,
    string,
    string,
  ];
  const told = await nla("convert", path.join(folder, "verbalizer"), "--gguf", av, "--quantize", "q8_0");
  expect(told).toMatchObject({ code: 0, err: "" });
  expect(told.out).toContain(`a verbalizer, written to ${av}, 0.`);
  expect(told.out).toContain(`its sidecar, written to ${av}.nla_meta.yaml`);
  await nla("convert", path.join(folder, "reconstructor"), "--gguf", ar, "--quantize", "q4_0");
  const json = await nla("convert", "aidreams260K", "--gguf", target, "--json");
  expect(JSON.parse(json.out)).toEqual({
    file: target,
    bytes: (await stat(target)).size,
    role: "target",
    sidecar: null,
    notes: [],
  });
  const explain = ["explain", "The dog", "--nla", av, "--ar", ar, "--model", target, "--threads", "1"];
  const read = await nla(...explain, "--max-new-tokens", "5", "--json");
  expect(read).toMatchObject({ code: 0 });
  expect((JSON.parse(read.out) as { tokens: unknown[] }).tokens.length).toBeGreaterThan(2);

  const swapped = await nla(...explain, "--contract", `${ar}.nla_meta.yaml`);
  expect(swapped).toMatchObject({ code: 1 });
  expect(swapped.err).toContain("a reconstructor (ar)");
  await rm(`${av}.nla_meta.yaml`);
  const without = await nla(...explain);
  expect(without).toMatchObject({ code: 1 });
  expect(without.err).toContain("av.gguf.nla_meta.yaml");
  expect(without.err).toContain("--contract");
  const named = await nla(...explain, "--contract", path.join(folder, "verbalizer"), "--positions", "0");
  expect(named).toMatchObject({ code: 0 });
}, 60_000);

test("and back as folders: the same values, prompts and contract", async () => {
  const [av, ar] = [path.join(folder, "back-av.gguf"), path.join(folder, "back-ar.gguf")];
  await nla("convert", path.join(folder, "verbalizer"), "--gguf", av);
  await nla("convert", path.join(folder, "reconstructor"), "--gguf", ar);
  const [avFolder, arFolder] = [path.join(folder, "back", "av"), path.join(folder, "back", "ar")];
  await mkdir(path.dirname(avFolder));
  expect((await nla("convert", av, "--folder", avFolder)).out).toContain("a verbalizer, written to");
  expect(await nla("convert", ar, "--folder", arFolder)).toMatchObject({ code: 0, err: "" });
  const own = path.join(folder, "verbalizer");
  const [sidecar, wanted] = [avFolder, own].map((place) =>
    readFile(path.join(place, "nla_meta.yaml"), "utf8"),
  );
  expect(await sidecar).toBe(await wanted);
  using device = Device.open({ threads: 1 });
  using before = await loadNla(own, device, { reconstructor: path.join(folder, "reconstructor") });
  using after = await loadNla(avFolder, device, { reconstructor: arFolder });
  for (const half of ["verbalizer", "reconstructor"] as const) {
    const tensors = before[half].model.parameters.tensors;
    expect([...after[half].model.parameters.tensors.keys()]).toEqual([...tensors.keys()]);
    for (const [name, tensor] of tensors)
      expect(after[half].model.get(name).readF32(), name).toEqual(tensor.readF32());
  }
  expect(after.reconstructor.head.readF32()).toEqual(before.reconstructor.head.readF32());
  expect(after.verbalizer.prompt).toEqual(before.verbalizer.prompt);
  expect(await nla("check", avFolder)).toMatchObject({ code: 0 });
  const again = await nla("convert", av, "--folder", avFolder);
  expect(again.err).toContain("something there already");
  expect((await nla("convert", av, "--folder", `${avFolder}2`, "--quantize", "q8_0")).code).toBe(2);
  expect((await nla("convert", av)).code).toBe(2);
});

test("what GGUF cannot say is refused, and leaves no file; --no-tokenizer says what is missing", async () => {
  const file = path.join(folder, "world.gguf");
  const refused = await nla("convert", "smallworld", "--gguf", file);
  expect(refused).toMatchObject({ code: 1, out: "" });
  expect(refused.err).toContain("the kind WordLevel");
  await expect(stat(file)).rejects.toMatchObject({ code: "ENOENT" });
  const bare = await nla("convert", "smallworld", "--gguf", file, "--no-tokenizer");
  expect(bare).toMatchObject({ code: 0 });
  expect(bare.err).toContain("note: no tokenizer");
  expect((await readFile(file)).subarray(0, 4).toString()).toBe("GGUF");
  const unread = await nla("explain", "a", "--nla", folder, "--model", file);
  expect(unread).toMatchObject({ code: 1 });
  expect(unread.err).toContain("no tokenizer.ggml.tokens");
});
