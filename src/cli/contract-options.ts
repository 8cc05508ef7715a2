// `--contract` and `--ar-contract`: sidecars in the place of those that lie with a pair, for every command that loads one.
import type { CommandOption } from "./program.js";

/** The two options. */
export const contractOptions: readonly CommandOption[] = [
  {
    flags: "--contract <file>",
    hub: "folder",
    description: "the verbalizer's nla_meta.yaml, where it is not in its folder or beside its .gguf file",
  },
  { flags: "--ar-contract <file>", hub: "folder", description: "the reconstructor's" },
];
