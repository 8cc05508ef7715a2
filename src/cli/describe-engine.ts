// What `nla doctor` hears of the engine: which ggml is loaded, from which libraries, and which devices open.
import { readdirSync } from "node:fs";
import os from "node:os";
import { Device, listDevices, loadLibrary } from "../engine/index.js";
import { messageOf, NlaError } from "../error.js";
import type { EngineDevice, EngineReport } from "./doctor.js";

/**
 * Loads the engine and tries every device.
 *
 * @throws NlaError as the engine's loader; `examine` turns it into a problem of its report
 */
export async function describeEngine(): Promise<EngineReport> {
  const { version, commit, packageName, packageVersion, directory, log } = loadLibrary();
  const devices = listDevices().map(({ name, description, kind }): EngineDevice => {
    // ggml's own figure of a device's memory is not bound; for the CPU it is the machine's.
    const memoryBytes = kind === "cpu" ? os.totalmem() : null;
    try {
      using device = Device.open({ device: name, threads: 1 });
      return { name: device.info.name, description, kind, memoryBytes, usable: true, reason: null };
    } catch (thrown) {
      return {
        name,
        description,
        kind,
        memoryBytes,
        usable: false,
        reason: thrown instanceof NlaError ? thrown.found : messageOf(thrown),
      };
    }
  });
  const libraries = readdirSync(directory)
    .filter((name) => /ggml.*\.(so|dylib|dll)$/.test(name))
    .sort();
  const complaints = log.filter((line) => /\b(error|fail(ed)?)\b/i.test(line));
  return {
    ggml: { version, commit, package: `${packageName} ${packageVersion}`, libraries },
    devices,
    problems: complaints.map((line) => ({
      what: "loading ggml",
      why: line,
      next: "Only of interest if a device is missing.",
    })),
  };
}
