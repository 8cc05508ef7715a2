// Where the golden values and real assets lie, if they are there. They stay outside the package: a test that needs one
// skips with a printed reason where the folder is absent.
import { existsSync } from "node:fs";
import path from "node:path";
const root = path.resolve(import.meta.dirname, "../../shared");
const announced = new Set();
/** The path of a file or folder under `../shared`, or null (with the reason printed once) where it is absent. */
export function sharedPath(relative) {
    const full = path.join(root, relative);
    if (existsSync(full))
        return full;
    if (!announced.has(relative)) {
        announced.add(relative);
        console.warn(`skipped: ../shared/${relative} is absent, so tests that need it do not run`);
    }
    return null;
}
