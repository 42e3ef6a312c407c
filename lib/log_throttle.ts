export interface LogThrottle {
  /** Whether to log this subject now: the first time, and then once in each interval. True counts as logged. */
  isDue: (subject: string) => boolean;
  /** The trouble is over: it is logged at once if it returns. Returns whether anything had been logged. */
  forget: () => boolean;
}

export interface LogThrottleOptions {
  intervalMs: number;
  /** How many subjects are remembered. With one, each change of the subject is logged at once. */
  subjectsMax?: number;
  monotonicNow?: () => number;
}

/** Keeps the log from repeating itself while some trouble lasts. */
export function createLogThrottle(options: LogThrottleOptions): LogThrottle {
  const { intervalMs, subjectsMax = 1, monotonicNow = () => performance.now() } = options;
  const loggedAtMs = new Map<string, number>();

  function isDue(subject: string): boolean {
    const nowMs = monotonicNow();
    const lastMs = loggedAtMs.get(subject);
    if (lastMs !== undefined && nowMs - lastMs < intervalMs) return false;
    if (lastMs === undefined && loggedAtMs.size >= subjectsMax) loggedAtMs.clear();
    loggedAtMs.set(subject, nowMs);
    return true;
  }

  function forget(): boolean {
    const hasLogged = loggedAtMs.size > 0;
    loggedAtMs.clear();
    return hasLogged;
  }

  return { isDue, forget };
}
