// Where the time of one benchmark step goes: the ops, and what is not compute. The sum is held against the step as it runs
// without a profile, so that a reader sees what the measuring itself changes.
import { OpProfile } from "../tensor/index.js";
import type { OpTime } from "../tensor/index.js";
import { median } from "./median.js";
import type { BenchCase } from "./bench.js";

/** A line of a profile, for one step. */
export interface ProfileLine extends OpTime {
  /** Of the sum of all lines. */
  readonly share: number;
}

/** See {@link profileSteps}. All times are for one step. */
export interface BenchProfile {
  readonly steps: number;
  /** Ops of the graphs, most time first. Names with `ggml` are ggml's own. */
  readonly ops: readonly ProfileLine[];
  /** Work that is no op, most time first. */
  readonly not_compute: readonly ProfileLine[];
  /** Sum of all lines. */
  readonly seconds: number;
  /** The sum over the median of steps without a profile, run between those with one, minus one. */
  readonly difference: number;
}

/** Runs `steps` steps node by node, after one that is not counted, each after one that runs as ever. */
export async function profileSteps(bench: BenchCase, steps: number): Promise<BenchProfile> {
  const { device } = bench.model;
  using profile = await OpProfile.open(device);
  const timed = async (by: OpProfile | null) => {
    device.profile = by;
    const [builtBefore, started] = [bench.buildSeconds(), performance.now()];
    await bench.step();
    const wall = (performance.now() - started) / 1000;
    return { wall, built: bench.buildSeconds() - builtBefore };
  };
  await timed(profile);
  profile.clear();
  const plain: number[] = [];
  let [wall, built] = [0, 0];
  try {
    for (let i = 0; i < steps; i++) {
      plain.push((await timed(null)).wall);
      const step = await timed(profile);
      wall += step.wall;
      built += step.built;
    }
  } finally {
    device.profile = null;
  }
  const { ops, hostWork, graphs, graphSeconds, startSeconds, handoverSeconds } = profile;
  const noted = hostWork.reduce((sum, { seconds }) => sum + seconds, 0);
  const host = [
    ...hostWork,
    { op: "building graphs", calls: 0, seconds: built },
    { op: "starting graphs", calls: graphs, seconds: graphs * startSeconds },
    { op: "to a worker thread and back", calls: graphs, seconds: graphs * handoverSeconds },
    {
      op: "the rest: host code, event loop",
      calls: 0,
      seconds: Math.max(0, wall - graphSeconds - noted - built),
    },
  ].toSorted((a, b) => b.seconds - a.seconds);
  const sum = [...ops, ...host].reduce((total, { seconds }) => total + seconds, 0);
  const perStep = ({ op, calls, seconds }: OpTime): ProfileLine => ({
    op,
    calls: calls / steps,
    seconds: seconds / steps,
    share: seconds / sum,
  });
  return {
    steps,
    ops: ops.map(perStep),
    not_compute: host.map(perStep),
    seconds: sum / steps,
    difference: sum / steps / median(plain) - 1,
  };
}
