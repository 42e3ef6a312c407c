import type { Log } from "../log.ts";
import { createLogThrottle } from "../log_throttle.ts";

/** How often the log repeats a complaint about one address. */
const COMPLAINT_INTERVAL_MS = 60_000;
/** Complaints that are remembered. */
const SUBJECTS_MAX = 1_000;

const HINTS: Record<string, string> = {
  too_many_connections: "a proxy in front of this service belongs in STOWAGE_TRUSTED_PROXIES",
};

/** Logs an address that does too much of something, at most once a minute, so that a flood of requests does not flood the log. */
export function createComplaints(log: Log): (event: string, address: string) => void {
  const throttle = createLogThrottle({ intervalMs: COMPLAINT_INTERVAL_MS, subjectsMax: SUBJECTS_MAX });

  return (event, address) => {
    if (throttle.isDue(`${event} ${address}`)) log.warn(event, { address, hint: HINTS[event] });
  };
}
