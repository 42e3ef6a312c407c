/** Does a piece of work for a key when all that began before it for the same key has ended. */
export type KeyTurns = <T>(key: string, work: () => Promise<T>) => Promise<T>;

/** Lets what is done under one key happen one after the other; other keys do not wait. */
export function createKeyTurns(): KeyTurns {
  const last = new Map<string, Promise<unknown>>();

  return async (key, work) => {
    const before = last.get(key);
    // Begins in this turn of the event loop if nobody is before it.
    const done = before === undefined ? work() : before.then(work, work);
    last.set(key, done);
    try {
      return await done;
    } finally {
      if (last.get(key) === done) last.delete(key);
    }
  };
}
