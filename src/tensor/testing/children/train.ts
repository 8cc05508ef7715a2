// A process of its own that trains and prints the sha256 of all weights. Arguments: threads, compute type, steps.
import { createHash } from "node:crypto";
import { Device } from "../../index.js";
import { trainSmall } from "../small-training.js";

const [threads, compute, steps] = process.argv.slice(2);
using device = Device.open({ threads: Number(threads) });
const { weights } = await trainSmall(device, {
  steps: Number(steps),
  compute: compute === "bf16" ? "bf16" : "f32",
  seed: 7,
});
const hash = createHash("sha256");
for (const values of weights) hash.update(values);
console.log(hash.digest("hex"));
