// A small file of held-out activations of the bundled target, in the columns that a run's data/eval.parquet has.
import { writeParquet } from "../../data/parquet-write.js";
import { activationsOf } from "../../nla/target.js";
import type { Target } from "../../nla/target.js";

const STORIES = [
  "Once upon a time there was a little dog who liked to run in the park.",
  "Tom had a red ball. He threw it to his friend and they laughed.",
  "The sun was hot, so Lily sat under a tree and ate an apple.",
  "One day a cat found a big box. She wanted to see what was inside.",
  "Mom said it was time for bed, but Ben was not tired at all.",
  "The bird flew over the house and sang a happy song.",
];
const FIRST = 6;
const EVERY = 3;

/** Writes activations after block `layer`: every third token of six stories. Returns the number of rows. */
export async function writeHeldOutRows(file: string, target: Target, layer: number): Promise<number> {
  const sequences = STORIES.map((text) => target.tokenizer.encode(text, { addSpecialTokens: true }));
  const activations = await activationsOf(target, layer, sequences);
  const { dim } = target.model.config;
  const places = sequences.flatMap((ids, story) =>
    ids.flatMap((_, position) => (position >= FIRST && position % EVERY === 0 ? [{ story, position }] : [])),
  );
  const vectors = new Float32Array(places.length * dim);
  places.forEach(({ story, position }, i) => {
    vectors.set((activations[story] as Float32Array).subarray(position * dim, (position + 1) * dim), i * dim);
  });
  return writeParquet(
    file,
    [
      { name: "n_raw_tokens", type: "int64" },
      { name: "detokenized_text_truncated", type: "string" },
      { name: "activation_vector", type: { vector: dim } },
      { name: "activation_layer", type: "int64" },
      { name: "doc_id", type: "string" },
    ],
    [
      {
        n_raw_tokens: places.map(({ position }) => position + 1),
        detokenized_text_truncated: places.map(({ story, position }) =>
          target.tokenizer.decode((sequences[story] as number[]).slice(0, position + 1)),
        ),
        activation_vector: vectors,
        activation_layer: places.map(() => layer),
        doc_id: places.map(({ story }) => `story:eval:${story}`),
      },
    ],
  );
}
