// An adapter in peft's layout, beside the model that it is for or alone: its settings, every matrix's shape and values. What it adds to
// the model is never computed here.
import { adapterBase, loadConfig, readLora } from "../model/index.js";
import type { DecoderConfig } from "../model/index.js";
import type { Findings } from "./finding.js";

/** Checks an adapter. @param config the model's beside it; null where the adapter lies alone and names its model itself */
export async function checkAdapter(
  directory: string,
  config: DecoderConfig | null,
  findings: Findings,
): Promise<void> {
  const model = config ?? (await baseConfig(directory, findings));
  if (model !== null) await findings.of(() => readLora(directory, model));
}

async function baseConfig(directory: string, findings: Findings): Promise<DecoderConfig | null> {
  const base = await findings.of(() => adapterBase(directory));
  return base === null ? null : findings.of(() => loadConfig(base));
}
