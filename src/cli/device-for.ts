// The device of a command: as many threads as were asked for, else as many as the model is worth.
import { existsSync } from "node:fs";
import path from "node:path";
import { isGguf, loadConfig, loadGgufConfig, threadsFor } from "../model/index.js";
import { Device } from "../tensor/index.js";
import type { DeviceOptions } from "../engine/index.js";

/**
 * Opens a device.
 *
 * @param folders where the model may lie; the first with a config.json, or GGUF file, decides the threads. Where none has one, whatever loads
 *   the model says so better than this could
 * @throws NlaError of the device and of a config.json that cannot be read
 */
export async function deviceFor(
  folders: readonly string[],
  { threads, device }: { readonly threads?: number | undefined; readonly device?: string | undefined } = {},
): Promise<Device> {
  const options: DeviceOptions = device === undefined ? {} : { device };
  if (threads !== undefined) return Device.open({ ...options, threads });
  const place = folders.find((each) => existsSync(isGguf(each) ? each : path.join(each, "config.json")));
  if (place === undefined) return Device.open(options);
  const config = isGguf(place) ? await loadGgufConfig(place) : await loadConfig(place);
  return Device.open({ ...options, threads: threadsFor(config) });
}

/** The folders where the verbalizer of `--nla DIR` may lie. */
export function verbalizerFolders(directory: string): string[] {
  return isGguf(directory) ? [directory] : [path.join(directory, "verbalizer"), directory];
}
