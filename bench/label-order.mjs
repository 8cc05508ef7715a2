// Does a reconstructor lean on the order of claims? FVE that it reaches from true labels with their claims in the order of categories, in
// reverse, and in random orders, on the tokens that the bundle's card is measured on.
//   npm run build
//   nla train configs/smallworld.yaml --run runs/ordered --set labels.reordered=0 --set verbalizer.steps=0 --set rl.steps=0
//   node bench/label-order.mjs runs/ordered/checkpoints/ar_sft/final [more folders of reconstructors] [--threads 1]
import { inForm } from "../dist/evaluate/code-alarm.js";
import { worldRows } from "../dist/evaluate/world-rows.js";
import { FidelityAccumulator } from "../dist/nla/fidelity.js";
import { loadReconstructor } from "../dist/nla/pair-files.js";
import { loadTarget } from "../dist/nla/target.js";
import { Device } from "../dist/tensor/index.js";
import { CARD_ROWS } from "../dist/train/bundle.js";
import { Chooser } from "../dist/world/chooser.js";
import { worldDocumentOf } from "../dist/world/corpus.js";
import { labelAt } from "../dist/world/labels.js";

const at = process.argv.indexOf("--threads");
const threads = at < 0 ? 1 : Number(process.argv[at + 1]);
const folders = process.argv.slice(2, at < 0 ? undefined : at);
if (folders.length === 0) {
  process.stderr.write(
    "node bench/label-order.mjs RECONSTRUCTOR ...: folders of reconstructors of the bundled target\n",
  );
  process.exit(1);
}
// The dials of configs/smallworld.yaml without its false claims.
const LIKE_TRAINING = { keep: [7, 10], keepOf: { previous: [15, 100], word: [15, 100] }, most: 12 };

const reversed = (texts) => texts.map((text) => inForm(text, "reordered"));

const device = Device.open({ threads });
const target = await loadTarget("smallworld", device);

for (const folder of folders) {
  const { model: reconstructor } = await loadReconstructor(folder, device);
  const { dim, mseScale, layer } = reconstructor.contract;
  const rows = await worldRows(target, { layer, ...CARD_ROWS });
  const labels = (dials) =>
    rows.map(({ docId, position }) => {
      const document = worldDocumentOf(docId);
      return labelAt(document, position - 1, new Chooser(document.index, position), dials);
    });
  const fve = async (texts) => {
    const fidelity = new FidelityAccumulator(dim, { mseScale });
    const rebuilt = await reconstructor.reconstructSome(texts);
    rows.forEach(({ vector }, i) => fidelity.add(rebuilt[i], vector));
    return fidelity.result().fve.toFixed(3);
  };
  for (const [name, dials] of [
    ["complete labels", {}],
    ["as in training", LIKE_TRAINING],
  ]) {
    const ordered = labels(dials);
    const random = labels({ ...dials, reordered: [1, 1] });
    const found = [await fve(ordered), await fve(reversed(ordered)), await fve(random)];
    console.log(`${folder}, ${name}: in order ${found[0]}, in reverse ${found[1]}, at random ${found[2]}`);
  }
}
