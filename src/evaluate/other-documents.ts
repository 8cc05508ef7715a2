// Which row stands in for which in the shuffled-activation control: one of another document, always. Within a document
// activations are alike, and an explanation of a neighbour would pass for an explanation of the row itself.
import { PythonRandom } from "../data/python-random.js";
import { NlaError } from "../error.js";

/**
 * For each row the number of a row of another document. Documents are put in a random order and each row takes the one
 * that stands as far behind its own document's end as it stands in its document: for documents of equal size this is a
 * permutation, so that the control uses every explanation once.
 *
 * @param docIds the document of each row
 * @throws NlaError `evaluate.documents` where there are not two documents
 */
export function rowsOfOtherDocuments(
  docIds: readonly string[],
  { seed }: { readonly seed: number },
): number[] {
  const documents = new Map<string, number[]>();
  docIds.forEach((docId, row) => {
    const rows = documents.get(docId);
    if (rows) rows.push(row);
    else documents.set(docId, [row]);
  });
  if (documents.size < 2) {
    throw new NlaError({
      code: "evaluate.documents",
      subject: "the held-out activations",
      found: `${docIds.length} of ${documents.size === 1 ? "one document" : "no document"}`,
      wanted: "activations of at least two documents, for the shuffled control and the intervals",
      next: "Hold out more documents (splits.eval), or evaluate more rows.",
    });
  }
  const order = [...documents.values()];
  new PythonRandom(seed).shuffle(order);
  const inOrder = order.flat();
  const donors: number[] = Array.from({ length: docIds.length }, () => -1);
  let end = 0;
  for (const rows of order) {
    end += rows.length;
    const others = inOrder.length - rows.length;
    rows.forEach((row, i) => (donors[row] = inOrder[(end + (i % others)) % inOrder.length] as number));
  }
  return donors;
}
