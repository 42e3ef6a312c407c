import type { Log } from "../log.ts";

/** How often the log tells the same of an address. */
const TELL_INTERVAL_MS = 60_000;
/** Addresses of which it is remembered that the log told of them. */
const TOLD_MAX = 1_000;

const HINTS: Record<string, string> = {
  too_many_connections: "a proxy in front of this service belongs in STOWAGE_TRUSTED_PROXIES",
};

/** Tells the log what an address does too much of: a flood of it must not become one of the log. */
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
