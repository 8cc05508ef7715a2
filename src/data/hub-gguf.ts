// Which file of a repository is meant where it holds GGUF files: the one that is named, the one of a type, or the only one. Names only; what
// is in the files is gguf.ts.
import { NlaError } from "../error.js";
import { formatHubName } from "./hub-name.js";
import type { HubName } from "./hub-name.js";

const IS_GGUF = /\.gguf$/i;
const PART_OF_SPLIT = /-\d{5}-of-(\d{5})\.gguf$/i;
// Not models: the vision tower's projector, and the statistics that a quantization was made with.
const BESIDE = /(^|\/|[-_.])(mmproj|imatrix)/i;

function hubFileError(name: HubName, found: string, files: readonly string[], code = "file"): NlaError {
  const shown = files.slice(0, 24);
  const rest = files.length > shown.length ? ` and ${files.length - shown.length} more` : "";
  return new NlaError({
    code: `hub.${code}`,
    subject: formatHubName(name),
    found,
    wanted: files.length === 0 ? "a .gguf file" : `one of ${shown.join(", ")}${rest}`,
    next:
      files.length === 0
        ? "Check the name and the revision."
        : `Name the file: ${formatHubName({ repo: name.repo, revision: name.revision, file: shown[0] as string })}`,
  });
}

/**
 * The GGUF file that a name means.
 *
 * @param names every file of the repository
 * @returns its path in the repository; null where the whole repository is meant, because no file is named and it holds safetensors, or no
 *   GGUF file
 * @throws NlaError `hub.file` with the files that are there, where none or several fit; `hub.split-gguf` for a part of a model
 */
export function ggufOf(name: HubName, names: readonly string[]): string | null {
  const files = names.filter((file) => IS_GGUF.test(file)).sort();
  const models = files.filter((file) => !BESIDE.test(file));
  const { file: wanted, tag } = name;
  if (wanted !== undefined) {
    if (!files.includes(wanted)) throw hubFileError(name, "no such file in the repository", files);
    return whole(name, wanted);
  }
  if (tag !== undefined) {
    const type = tag.toLowerCase();
    const fitting = models.filter((file) => {
      const parts = stem(file).toLowerCase().split("/");
      return parts.some(
        (part) =>
          part === type || (part.endsWith(type) && "-._".includes(part.at(-type.length - 1) as string)),
      );
    });
    return single(
      name,
      fitting,
      `${fitting.length === 0 ? "no file" : "several files"} of type ${tag}`,
      models,
    );
  }
  if (models.length === 0 || names.some((file) => file.endsWith(".safetensors"))) return null;
  return single(name, models, "several .gguf files", models);
}

function single(name: HubName, fitting: readonly string[], found: string, all: readonly string[]): string {
  const first = fitting[0];
  if (first === undefined) throw hubFileError(name, found, all);
  // The parts of one model are one model, to be refused as such.
  if (fitting.length > 1 && !fitting.every((file) => stem(file) === stem(first)))
    throw hubFileError(name, found, fitting);
  return whole(name, first);
}

function stem(file: string): string {
  return file.replace(PART_OF_SPLIT, "").replace(IS_GGUF, "");
}

function whole(name: HubName, file: string): string {
  const parts = PART_OF_SPLIT.exec(file)?.[1];
  if (parts === undefined) return file;
  throw new NlaError({
    code: "hub.split-gguf",
    subject: formatHubName(name),
    found: `${file}, a model in ${Number(parts)} files`,
    wanted: "a model in one .gguf file",
    next: "Take a smaller type that is one file, or join the parts with llama.cpp's `llama-gguf-split --merge`.",
  });
}

/** What lies with a GGUF file and belongs to it: an NLA's sidecar and value head. */
export function companionsOf(file: string, names: readonly string[]): string[] {
  const folder = file.includes("/") ? file.slice(0, file.lastIndexOf("/") + 1) : "";
  const wanted = [`${file}.nla_meta.yaml`, `${folder}nla_meta.yaml`, `${folder}value_head.safetensors`];
  return wanted.filter((each) => names.includes(each));
}
