import type { Keys } from "../books/keys.ts";
import type { Log } from "../log.ts";

/** How often the times of keys' last use are written. */
const FLUSH_MS = 60_000;
/** Keys whose use is remembered until it is written. Beyond it only their time of last use is late. */
const USES_HELD_MAX = 10_000;

export interface KeyUses {
  /** Remembers that a key was used; `nowMs` in milliseconds since 1970. */
  note: (apiKeyId: string, nowMs: number) => void;
  /** Writes the remembered uses in one transaction. Never rejects: a failure is logged, and those uses are forgotten. */
  flush: () => Promise<void>;
  /** Stops writing every minute, and writes for the last time. */
  close: () => Promise<void>;
}

/** Keeps the times at which keys were last used, and writes them once a minute: no request waits for that. */
export function createKeyUses({ keys, log }: { keys: Pick<Keys, "recordUses">; log: Log }): KeyUses {
  let usedAtMsById = new Map<string, number>();

  function note(apiKeyId: string, nowMs: number): void {
    if (usedAtMsById.size < USES_HELD_MAX || usedAtMsById.has(apiKeyId)) usedAtMsById.set(apiKeyId, nowMs);
  }

  async function flush(): Promise<void> {
    if (usedAtMsById.size === 0) return;
    const uses = usedAtMsById;
    usedAtMsById = new Map();
    await keys.recordUses(uses).catch((error) => log.warn("key_uses_not_written", { error }));
  }

  const timer = setInterval(() => void flush(), FLUSH_MS);
  return {
    note,
    flush,
    close() {
      clearInterval(timer);
      return flush();
    },
  };
}
