// The table of calls that a user of the tensor layer gets wrong, each with the code of its error and words of its text.
import { wrongNumbers, wrongTypes } from "./arguments.js";
import { wrongRuns } from "./at-run.js";
import { wrongOwners } from "./ownership.js";
import { wrongShapes } from "./shapes.js";
import { wrongTraining } from "./training.js";
import type { WrongCall } from "./wrong-call.js";

export { ARENA } from "./wrong-call.js";

/** Every row. */
export const wrongCalls: readonly WrongCall[] = [
  ...wrongShapes,
  ...wrongTypes,
  ...wrongNumbers,
  ...wrongOwners,
  ...wrongRuns,
  ...wrongTraining,
];
