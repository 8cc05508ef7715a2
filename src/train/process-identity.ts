// Who a process is, so that it can be told from a later one with the same number: host, boot, process id, start time.
// Where the system does not say when a process started (only Linux does, in /proc), the number alone has to do.
import { readFileSync } from "node:fs";
import os from "node:os";

/** A process, named so that no other one is ever taken for it on Linux. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly host: string;
  /** The kernel's random id of this boot; null where there is none. */
  readonly boot: string | null;
  /** Start of the process in clock ticks since boot; null where the system does not say. */
  readonly startTime: string | null;
}

function readProc(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return null; // no such process, or a system without /proc: both mean "not known", which callers handle
  }
}

/**
 * What /proc says of a process: its state letter and when it started, in clock ticks since boot. null where there is no
 * such process or no /proc.
 */
export function processStat(pid: number): { readonly state: string; readonly startTime: string } | null {
  const stat = readProc(`/proc/${pid}/stat`);
  // The second field is the command in brackets and may itself hold spaces and brackets; after it come field 3, the
  // state, and so on to field 22, the start time.
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields?.[0];
  const startTime = fields?.[19];
  return state === undefined || startTime === undefined ? null : { state, startTime };
}

/** The identity of this process. */
export function ownIdentity(): ProcessIdentity {
  return {
    pid: process.pid,
    host: os.hostname(),
    boot: readProc("/proc/sys/kernel/random/boot_id")?.trim() ?? null,
    startTime: processStat(process.pid)?.startTime ?? null,
  };
}

/** "gone" only where that is certain: a process of another host is always taken to be alive. */
export function processState(identity: ProcessIdentity): "alive" | "gone" {
  const own = ownIdentity();
  if (identity.host !== own.host) return "alive";
  if (identity.boot !== null && own.boot !== null && identity.boot !== own.boot) return "gone";
  try {
    process.kill(identity.pid, 0); // signal 0 asks whether it exists and sends nothing
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === "ESRCH") return "gone";
    // EPERM: it exists and belongs to another user.
  }
  const stat = processStat(identity.pid);
  if (stat === null) return "alive";
  // A zombie was killed and only waits for its parent to notice; in a container without an init it waits for ever.
  if (stat.state === "Z" || stat.state === "X") return "gone";
  return identity.startTime !== null && identity.startTime !== stat.startTime ? "gone" : "alive";
}
