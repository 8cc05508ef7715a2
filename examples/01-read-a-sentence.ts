// Reads a sentence with a trained NLA. Train one first (`npm start`), then:
//
//   node dist/examples/01-read-a-sentence.js runs/quickstart "The king is dead."
import { Device, loadNla, loadTarget, read } from "nlakit";

const [run = "runs/quickstart", text = "The king is dead."] = process.argv.slice(2);

using device = Device.open({ threads: 1 }); // the fastest for a model this small
using target = await loadTarget("aidreams260K", device);
using nla = await loadNla(run, device);
const { tokens } = await read(target, nla, text);
for (const { token, description, cosineSimilarity } of tokens) {
  console.log(
    JSON.stringify(token),
    "->",
    JSON.stringify(description),
    "cosine",
    cosineSimilarity?.toFixed(2) ?? "none",
  );
}
