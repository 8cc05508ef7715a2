// Where bad input is made and met: a built command, a finished tiny run, an output that is there already, and the arguments of
// commands in which everything but the fault is in order.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { BadFiles, TARGET } from "./bad-files.js";
import { buildCommand, writeTinyConfig } from "./built-command.js";
import type { BuiltCommand } from "./built-command.js";
import type { ErrorShape } from "./expect-error.js";

/** One fault: what it is, the command line that meets it, and the error. */
export type Fault = readonly [
  what: string,
  args: (shop: Workshop) => readonly string[] | Promise<readonly string[]>,
  error: ErrorShape,
];

/** See above. */
export class Workshop implements AsyncDisposable {
  #fresh = 0; // run folders named so far

  private constructor(
    readonly nla: BuiltCommand,
    readonly files: BadFiles,
    readonly config: string,
  ) {}

  /** Builds the command and trains, one step a stage. */
  static async open(): Promise<Workshop> {
    const nla = await buildCommand();
    const files = new BadFiles(path.join(nla.folder, "bad"));
    await mkdir(files.root);
    const shop = new Workshop(nla, files, await writeTinyConfig(nla.folder));
    const steps = ["reconstructor", "verbalizer", "rl"].flatMap((stage) => ["--set", `${stage}.steps=1`]);
    const { code, stderr } = await nla.run(["train", shop.config, "--run", shop.run, ...steps]);
    if (code !== 0) throw new Error(`the run to be spoilt did not end well: ${stderr}`);
    await mkdir(path.dirname(shop.out));
    await writeFile(shop.out, "precious");
    return shop;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.nla[Symbol.asyncDispose]();
  }

  /** A finished run: its files are read and must not change. */
  get run(): string {
    return path.join(this.nla.folder, "run");
  }

  /** Activations of it. */
  get rawFile(): string {
    return path.join(this.run, "data/splits/av_sft_raw.parquet");
  }

  /** A text to extract from. */
  get corpus(): string {
    return path.join(this.nla.folder, "corpus.txt");
  }

  /** A file that is there, alone in its folder, and that commands are told to write. */
  get out(): string {
    return path.join(this.nla.folder, "outputs/kept");
  }

  forward(model: string, ids = "[[1, 2, 3]]"): string[] {
    const options = ["--ids", ids, "--logits", "--threads", "1", "--out", this.out];
    return ["forward", "--model", model, ...options];
  }

  extract(text: string, ...more: string[]): string[] {
    const options = [
      "--layer",
      "2",
      "--corpus",
      text,
      "--min-position",
      "2",
      "--threads",
      "1",
      "--out",
      this.out,
    ];
    return ["data", "extract", "--model", TARGET, ...options, ...more];
  }

  label(file: string): string[] {
    return ["data", "label", file, "--out", this.out];
  }

  explain(pair: string, text = "The king", ...more: string[]): string[] {
    return ["explain", text, "--nla", pair, "--positions", "-1", "--threads", "1", ...more];
  }

  /** `explain` with a copy of the run that `edit` has spoilt. */
  async explainSpoilt(name: string, edit: (pair: string) => Promise<unknown>): Promise<string[]> {
    return this.explain(await this.files.folder(name, edit, this.run));
  }

  /** `nla train` in a run folder that does not exist. */
  train(...set: string[]): string[] {
    const fresh = path.join(this.nla.folder, `fresh-${this.#fresh++}`);
    return ["train", this.config, "--run", fresh, ...set.flatMap((each) => ["--set", each])];
  }
}
