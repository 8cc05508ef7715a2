// The alarm for a private code between verbalizer and reconstructor: explanations that bring an activation back by more than they say. Where what
// is claimed stays the same and only its form changes, fidelity has to stay; where sentences are no claims any more, it has to come from
// elsewhere. On documents of the world, whose claims have exact paraphrases.
import type { Nla } from "../nla/read.js";
import { wordingsOf } from "../world/claim-table.js";
import { parseExplanation } from "../world/claims.js";
import type { Claim } from "../world/claims.js";
import type { Interval } from "./bootstrap.js";
import { evaluateRows, fveGain } from "./evaluation.js";
import type { EvaluateOptions, Range } from "./evaluation.js";
import type { ExplainedRow } from "./explained-rows.js";

/** Ways to say the same otherwise. */
export const FORMS = {
  reworded: "every claim in its other wording",
  reordered: "its sentences in reverse order",
  "claims alone": "sentences that are no claims left out",
} as const;

/** A way to say the same. */
export type Form = keyof typeof FORMS;

/** What a form of the same explanations costs. */
export interface FormLoss {
  readonly form: Form;
  readonly fve: number;
  /** FVE of the explanations as they are, less this; its 95 % interval over the same resamples. */
  readonly loss: number;
  readonly interval: Range;
}

/** Whether what comes back is in what is said. */
export interface CodeReport {
  readonly forms: readonly FormLoss[];
  /** The warm start's own losses: what the forms cost a pair that has learnt nothing but language. Empty without one. */
  readonly warm: readonly FormLoss[];
  /** Why the alarm goes off; empty where it does not. */
  readonly alarms: readonly string[];
}

/** Share of sentences that are no claims from which the language is taken to drift. */
export const MOST_UNPARSED = 0.03;
/** FVE that a form may cost beyond what it costs the warm start. */
export const MOST_LOSS = 0.1;

/** An explanation in another form; "" where nothing of it is left. Sentences that are no claims stay as they are, but in `claims alone`. */
export function inForm(explanation: string, form: Form): string {
  const claims = parseExplanation(explanation);
  if (form === "reordered") return sentences([...claims].reverse());
  if (form === "claims alone") return sentences(claims.filter(({ claim }) => claim !== null));
  return claims.map(reworded).join(" ");
}

function sentences(claims: readonly Claim[]): string {
  return claims.map(({ sentence }) => sentence).join(" ");
}

function reworded({ sentence, claim }: Claim): string {
  if (claim === null || claim.value === null) return sentence;
  const { category, value } = claim;
  return wordingsOf({ category, value }).find((other) => other !== sentence) ?? sentence;
}

/** What each form costs a pair. @throws NlaError of the models, and `evaluate.documents` for rows of one document */
export async function formLosses(
  { reconstructor }: Pick<Nla, "reconstructor">,
  rows: readonly ExplainedRow[],
  bootstrap: EvaluateOptions["bootstrap"],
): Promise<FormLoss[]> {
  const scoring = {
    mseScale: reconstructor.contract.mseScale,
    ...(bootstrap ? { bootstrap } : {}),
  };
  const losses: FormLoss[] = [];
  for (const form of Object.keys(FORMS) as Form[]) {
    const texts = rows.map(({ explanation }) => (explanation === null ? "" : inForm(explanation, form)));
    const rebuilt = await reconstructor.reconstructSome(texts.map((text) => (text === "" ? null : text)));
    const said = rows.map((row, i) => ({
      ...row,
      explanation: texts[i] ?? null,
      reconstruction: rebuilt[i] ?? null,
    }));
    const { fve: loss, interval } = fveGain(rows, said, scoring);
    losses.push({
      form,
      fve: evaluateRows(said, { ...scoring, bootstrap: { resamples: 1 } }).fve,
      loss,
      interval,
    });
  }
  return losses;
}

/**
 * The reasons to take a pair's language for a code.
 *
 * @param unparsed share of its sentences that are no claims; the alarm waits until its interval lies above what is allowed
 */
export function codeAlarms(
  forms: readonly FormLoss[],
  warm: readonly FormLoss[],
  { value: unparsed, low }: Pick<Interval, "value" | "low">,
): string[] {
  const drift =
    low > MOST_UNPARSED
      ? [
          `${(100 * unparsed).toFixed(1)} % of its sentences are no claims (at most ${(100 * MOST_UNPARSED).toFixed(0)} %)`,
        ]
      : [];
  const hidden = forms.flatMap(({ form, loss, interval }) => {
    const allowed = MOST_LOSS + Math.max(0, warm.find((each) => each.form === form)?.loss ?? 0);
    if (interval[0] <= allowed) return [];
    return [
      `${FORMS[form]}: ${loss.toFixed(3)} of its FVE is gone (${interval[0].toFixed(3)} to ${interval[1].toFixed(3)}; at most ${allowed.toFixed(3)})`,
    ];
  });
  return [...drift, ...hidden];
}
