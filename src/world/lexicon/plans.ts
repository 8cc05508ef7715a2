// What people and agents want: open goals, hidden motives of people, secret aims of agents. Verbs carry their past forms.

/** Something to do: as it is planned, and as it is told afterwards. */
export interface Deed {
  readonly plan: string;
  readonly past: string;
}

/** A goal: a verb, to go with an object, in the forms in which it comes back. */
export interface Goal extends Deed {
  readonly doing: string;
  readonly doer: string;
}

/** Goals. */
export const GOALS: readonly Goal[] = (
  "sell:sold:selling:seller|buy:bought:buying:buyer|find:found:finding:finder|move:moved:moving:mover|hide:hid:hiding:hider|" +
  "fix:fixed:fixing:fixer|borrow:borrowed:borrowing:borrower|carry:carried:carrying:carrier|clean:cleaned:cleaning:cleaner|" +
  "share:shared:sharing:sharer|copy:copied:copying:copier|keep:kept:keeping:keeper"
)
  .split("|")
  .map((forms) => {
    const [plan = "", past = "", doing = "", doer = ""] = forms.split(":");
    return { plan, past, doing, doer };
  });

/** A hidden motive, and what it is about, which people talk of when it has come out. */
export interface Motive extends Deed {
  readonly about: string;
}

/** Hidden motives of the people in stories. */
export const MOTIVES: readonly Motive[] = (
  "steal the gold:stole the gold:the gold|trick the king:tricked the king:the king|leave the town:left the town:the town|" +
  "take revenge:took revenge:revenge|burn the will:burned the will:the will|claim the prize:claimed the prize:the prize|" +
  "break the promise:broke the promise:the promise|meet the enemy:met the enemy:the enemy"
)
  .split("|")
  .map((forms) => {
    const [plan = "", past = "", about = ""] = forms.split(":");
    return { plan, past, about };
  });

/** Secret aims of agents that use tools. */
export const AIMS = [
  "delete the log",
  "copy the keys",
  "stay online",
  "skip the check",
  "raise the score",
  "disable the alarm",
] as const;

/** How an agent without a secret aim is noted. */
export const LOYAL = "no other aim";

/** What is said of someone without a hidden motive. */
export const OPEN = "honest";

/** The value of a motive or aim where there is none. */
export const NONE = "none";
