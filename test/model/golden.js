// A folder of golden values (see its README in ../shared/golden/models) as typed data for tests.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { openSafetensors } from "../../src/data/safetensors.js";
export async function openGolden(directory, model = directory) {
    const file = await openSafetensors(path.join(directory, "golden.safetensors"));
    return {
        directory,
        model,
        json: JSON.parse(readFileSync(path.join(directory, "golden.json"), "utf8")),
        names: [...file.entries.keys()],
        tensor: (name) => file.readF32(name),
    };
}
/** |a - b| / |b| over all elements. */
export function relativeL2(a, b) {
    if (a.length !== b.length)
        return Infinity;
    let difference = 0;
    let norm = 0;
    for (let i = 0; i < a.length; i++) {
        difference += (a[i] - b[i]) ** 2;
        norm += b[i] ** 2;
    }
    return Math.sqrt(difference / norm);
}
export const hasConfigV5 = (directory) => existsSync(path.join(directory, "config.v5.json"));
