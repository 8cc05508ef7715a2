// What people and agents want: open goals, hidden motives of people, secret aims of agents. Verbs carry their past forms.

/** Something to do: as it is planned, and as it is told afterwards. */
export interface Deed {
  readonly plan: string;
  readonly past: string;
}

const deeds = (text: string): readonly Deed[] =>
  text.split("|").map((pair) => {
    const [plan = "", past = ""] = pair.split(":");
    return { plan, past };
  });

/** Goals: a verb, to go with an object. */
export const GOALS = deeds(
  "sell:sold|buy:bought|find:found|move:moved|hide:hid|fix:fixed|borrow:borrowed|carry:carried|clean:cleaned|share:shared|copy:copied|keep:kept",
);

/** Hidden motives of the people in stories. */
export const MOTIVES = deeds(
  "steal the gold:stole the gold|trick the king:tricked the king|leave the town:left the town|take revenge:took revenge|" +
    "burn the will:burned the will|claim the prize:claimed the prize|break the promise:broke the promise|meet the enemy:met the enemy",
);

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
