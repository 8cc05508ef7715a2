// `nla push`: a finished pair to the hub, with a model card made of the run's own numbers. Without --publish it only shows what it would do.
import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { checkPath } from "../check/check-path.js";
import { readModelSidecar } from "../data/sidecar.js";
import type { ModelSidecar } from "../data/sidecar.js";
import { parseHubName } from "../data/hub-name.js";
import { uploadFiles } from "../data/hub-upload.js";
import type { UploadFile } from "../data/hub-upload.js";
import { NlaError } from "../error.js";
import type { Evaluation } from "../evaluate/evaluation.js";
import { PAIR_FOLDERS } from "../nla/read.js";
import { BUNDLED } from "../nla/target.js";
import { RUN_LAYOUT } from "../train/run-layout.js";
import { UsageError } from "./output.js";
import type { CommandEntry } from "./program.js";
import { table } from "./table.js";

/** What a card is made of. */
export interface CardFacts {
  readonly name: string;
  readonly sidecar: ModelSidecar;
  readonly evaluation: Evaluation | null;
  readonly license: string | null;
}

/** The model card, README.md of the repository. */
export function modelCard({ name, sidecar, evaluation, license }: CardFacts): string {
  const { baseCheckpoint: base, layerIndex, dModel, format, injectionScale } = sidecar;
  const isHubName = base !== null && /^[\w.-]+\/[\w.-]+$/.test(base);
  const isFound = isHubName || (BUNDLED as readonly (string | null)[]).includes(base);
  const head = [
    "library_name: nlakit",
    "tags: [natural-language-autoencoder, interpretability]",
    ...(license === null ? [] : [`license: ${license}`]),
    ...(isHubName ? [`base_model: ${base}`] : []),
  ];
  const scale = typeof injectionScale === "number" ? Number(injectionScale.toPrecision(6)) : "raw";
  const lines = [
    `---\n${head.join("\n")}\n---\n`,
    `# ${name}\n`,
    `A Natural Language Autoencoder for ${base ?? "a model that its sidecar does not name"}: \`verbalizer/\` turns one activation (the output of block ${layerIndex}, width ${dModel})`,
    "into text, `reconstructor/` turns the text back into the activation. Both are Hugging Face folders with `nla_meta.yaml`, the contract.\n",
    `    nla explain "some text" --nla ${name}${isFound ? "" : " --model DIR"}\n`,
    `Explanation format: ${format.kind}. Injection scale: ${scale}.\n`,
    "## How faithful it is\n",
  ];
  if (evaluation === null)
    lines.push("Not evaluated: this run has no `eval.json`. `nla eval DIR` makes one.\n");
  else lines.push(numbers(evaluation));
  lines.push(
    "## Limits\n",
    "- Fidelity says that the text carries the activation, not that its claims are true: explanations confabulate details.",
    "- The numbers hold for text like the run's; cosines and errors of different models or layers cannot be compared.",
    "- The explained variance of another document's explanation (above) is the floor to compare with, not 0.\n",
  );
  return lines.join("\n");
}

const shown = (value: number | null) => (value === null ? "-" : value.toFixed(3).replace("-0.000", "0.000"));
const range = ([low, high]: readonly [number, number]) => `${shown(low)} to ${shown(high)}`;

function numbers({
  n,
  documents,
  fve,
  fve_meannorm,
  cosine,
  failed,
  intervals,
  controls,
}: Evaluation): string {
  return [
    `On ${n} activations of ${documents} held-out documents; 95 % intervals by bootstrap over documents.\n`,
    "| | variance explained | 95 % |",
    "| --- | --- | --- |",
    `| this pair | ${shown(fve)} | ${range(intervals.fve)} |`,
    `| control: another document's explanation | ${shown(controls.shuffled.fve)} | ${range(intervals.shuffled_fve)} |`,
    `| control: the mean vector | ${shown(controls.mean.fve)} | |\n`,
    `Against the best constant direction: ${shown(fve_meannorm)}. Mean cosine: ${shown(cosine)}. Without a reconstruction: ${(100 * failed).toFixed(1)} %.\n`,
  ].join("\n");
}

async function evaluationOf(directory: string): Promise<Evaluation | null> {
  const text = await readFile(path.join(directory, RUN_LAYOUT.evaluation), "utf8").catch(
    (thrown: NodeJS.ErrnoException) => {
      if (thrown.code === "ENOENT") return null;
      throw thrown;
    },
  );
  return text === null ? null : (JSON.parse(text) as Evaluation);
}

/** Files of the pair, and the evaluation; nothing else of a run folder. */
async function filesOf(directory: string, evaluation: Evaluation | null): Promise<UploadFile[]> {
  const files: UploadFile[] = [];
  for (const folder of Object.values(PAIR_FOLDERS)) {
    const names = (await readdir(path.join(directory, folder)))
      .filter((name) => !name.startsWith("."))
      .sort();
    for (const name of names)
      files.push({ path: `${folder}/${name}`, from: { file: path.join(directory, folder, name) } });
  }
  if (evaluation !== null)
    files.push({ path: RUN_LAYOUT.evaluation, from: { file: path.join(directory, RUN_LAYOUT.evaluation) } });
  return files;
}

// A name that only means something here would be in everybody's copy of the sidecar.
function checkNames(directory: string, sidecar: ModelSidecar): void {
  const stated = [sidecar.baseCheckpoint ?? "", ...sidecar.parentCheckpoints, ...sidecar.trainedOn];
  const local = stated.find((each) => path.isAbsolute(each) || /^\.{1,2}\//.test(each));
  if (local === undefined) return;
  throw new NlaError({
    code: "push.local-path",
    subject: path.join(directory, PAIR_FOLDERS.verbalizer, "nla_meta.yaml"),
    found: local,
    wanted: "names that mean something elsewhere: a hub name, or a file's own name",
    next: "Correct base_checkpoint, parent_checkpoints or trained_on in both sidecars.",
  });
}

/** The `push` command. */
export const pushCommand: CommandEntry = {
  name: "push",
  summary: "publish a pair on the Hugging Face hub, with a model card; shows only, without --publish",
  arguments: [
    { name: "<dir>", description: "run folder with verbalizer/ and reconstructor/" },
    { name: "<name>", description: "org/name" },
  ],
  options: [
    { flags: "--publish", description: "do it: needs HF_TOKEN with the right to write" },
    { flags: "--public", description: "a repository that is made anew is public; private by default" },
    { flags: "--license <id>", description: "licence for the model card, e.g. apache-2.0" },
  ],
  examples: [
    { command: "nla push runs/quickstart org/name", does: "the card and the files that would go" },
    { command: "nla push runs/quickstart org/name --publish", does: "make the commit" },
  ],
  jsonHelp: "{repo, card, files, published}",
  action: async ([first, second], options, { stdout, stderr, json, env, signal }) => {
    const directory = first as string;
    const name = second as string;
    if (parseHubName(name)?.repo !== name) {
      const wanted = "org/name";
      throw new UsageError({
        code: "cli.name",
        subject: "nla push",
        found: name,
        wanted,
        next: "A revision cannot be pushed to.",
      });
    }
    const checked = await checkPath(directory);
    const fault = checked.findings.find(({ severity }) => severity === "error");
    if (fault !== undefined || checked.kind !== "run folder") {
      throw new NlaError({
        code: "push.faulty",
        subject: directory,
        found: fault === undefined ? `a ${checked.kind}` : `${fault.subject}: ${fault.found}`,
        wanted: "a run folder in which `nla check` finds no error",
        next: fault?.next ?? "Name the folder with verbalizer/ and reconstructor/ in it.",
      });
    }
    const sidecar = await readModelSidecar(path.join(directory, PAIR_FOLDERS.verbalizer));
    checkNames(directory, sidecar);
    const evaluation = await evaluationOf(directory);
    const card = modelCard({
      name,
      sidecar,
      evaluation,
      license: (options["license"] as string | undefined) ?? null,
    });
    const files = [{ path: "README.md", from: { text: card } }, ...(await filesOf(directory, evaluation))];
    const sizes = await Promise.all(
      files.map(async ({ from }) =>
        "text" in from ? Buffer.byteLength(from.text) : (await stat(from.file)).size,
      ),
    );
    const publish = options["publish"] === true;
    const published = publish
      ? await uploadFiles(name, files, `nlakit: ${path.basename(directory)}`, {
          env,
          signal,
          private: options["public"] !== true,
          onFile: (file) => json || stderr.write(`${file}\n`),
        })
      : null;
    if (json) {
      const list = files.map(({ path: file }, i) => ({ path: file, bytes: sizes[i] }));
      stdout.write(`${JSON.stringify({ repo: name, card, files: list, published })}\n`);
      return;
    }
    const columns = [{ header: "file" }, { header: "bytes", align: "right" as const }];
    stdout.write(
      `${card}\n${table(
        columns,
        files.map(({ path: file }, i) => [file, String(sizes[i])]),
      )}\n\n`,
    );
    stdout.write(
      published === null ? `Nothing was sent. --publish commits this to ${name}.\n` : `${published}\n`,
    );
  },
};
