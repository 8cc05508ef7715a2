// From a raw completion of a labelling model to an explanation: the text inside <analysis> tags, one feature per line,
// without list marks and bold. Not a labeller: API labellers call this, the extractive one does not need it.
//
// The rules are those by which existing warm-start sets were made, so that our labels mix with theirs; the order of the
// steps matters (one list mark, then one leading bold, then blanks, then stray * and _).
import { between, PYTHON_SPACE, stripPython, stripWhere } from "../nla/python-text.js";

// Fewer features than this mean that the model wrote prose or gave up; such rows are dropped.
const MIN_FEATURES = 2;

const LIST_MARK = new RegExp(
  `^[${PYTHON_SPACE}]*(?:[-*•+–—]|\\p{Nd}+[.)]|\\(\\p{Nd}+\\)|[a-zA-Z][.)]|\\([a-zA-Z]\\)|[ivxIVX]+[.)])[${PYTHON_SPACE}]+`,
  "u",
);
const LEADING_BOLD = new RegExp(`^\\*\\*([^\\n]+?)\\*\\*[${PYTHON_SPACE}]*`, "u");

/** The cleaned features of a completion, joined by empty lines, or null where it has no closed `<analysis>`. */
export function cleanLabel(completion: string): string | null {
  const analysis = between(completion, "<analysis>", "</analysis>");
  if (analysis === null) return null;
  return analysis
    .split("\n")
    .map(cleanFeature)
    .filter((feature) => feature !== "")
    .join("\n\n");
}

/** True if a cleaned label has enough features to be trained on. */
export function isUsableLabel(label: string): boolean {
  return label.split("\n\n").length >= MIN_FEATURES;
}

function cleanFeature(line: string): string {
  const bare = line.replace(LIST_MARK, "").replace(LEADING_BOLD, (_, bold: string) => `${bold} `);
  return stripWhere(stripPython(bare), (character) => character === "*" || character === "_");
}
