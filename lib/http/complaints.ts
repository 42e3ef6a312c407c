import type { Log } from "../log.ts";

/** How often the log repeats the same complaint about an address. */
const TELL_INTERVAL_MS = 60_000;
/** Complaints that are remembered. */
const TOLD_MAX = 1_000;

const HINTS: Record<string, string> = {
  too_many_connections: "a proxy in front of this service belongs in STOWAGE_TRUSTED_PROXIES",
};

/** Logs what an address does too much of, now and then: a flood of requests must not become a flood of log lines. */
export function createComplaints(log: Log): (event: string, address: string) => void {
  const toldAtMs = new Map<string, number>();

  return (event, address) => {
    const nowMs = performance.now();
    const subject = `${event} ${address}`;
    if (nowMs - (toldAtMs.get(subject) ?? Number.NEGATIVE_INFINITY) < TELL_INTERVAL_MS) return;
    if (toldAtMs.size >= TOLD_MAX) toldAtMs.clear();
    toldAtMs.set(subject, nowMs);
    log.warn(event, { address, hint: HINTS[event] });
  };
}
