import type { ObjectStore } from "../lib/store/objects.ts";

/** The calls that confirm and cleaner make of a store. */
export type CallName = "stat" | "promote" | "read" | "remove" | "list" | "readMarker" | "writeMarker";

/** What happens around calls. What a hook throws is what the caller gets. */
export interface Hooks {
  /** The store has done nothing yet. */
  before?: ((name: CallName) => void | Promise<void>) | undefined;
  /** The store has done its work, and nobody has heard of it. */
  after?: ((name: CallName) => void | Promise<void>) | undefined;
  /** Keys that a removal leaves untouched and reports, with the reason. */
  refuse?: ((keys: readonly string[]) => ReadonlyMap<string, string>) | undefined;
}

/** A real store with hooks around every call. */
export function hookedStore(hooks: Hooks, objects: ObjectStore): ObjectStore {
  async function around<T>(name: CallName, work: () => Promise<T>): Promise<T> {
    await hooks.before?.(name);
    const result = await work();
    await hooks.after?.(name);
    return result;
  }

  return {
    ...objects,
    stat: (key) => around("stat", () => objects.stat(key)),
    promote: (from, to, options) => around("promote", () => objects.promote(from, to, options)),
    async read(key) {
      await hooks.before?.("read");
      const body = await objects.read(key);
      try {
        await hooks.after?.("read");
        return body;
      } catch (error) {
        body.destroy();
        throw error;
      }
    },
    remove: (keys) =>
      around("remove", async () => {
        const refused = hooks.refuse?.(keys) ?? new Map<string, string>();
        const failures = await objects.remove(keys.filter((key) => !refused.has(key)));
        return new Map([...failures, ...refused]);
      }),
    async *list(prefix) {
      await hooks.before?.("list");
      yield* objects.list(prefix);
      await hooks.after?.("list");
    },
    readMarker: (key) => around("readMarker", () => objects.readMarker(key)),
    writeMarker: (key, text, options) => around("writeMarker", () => objects.writeMarker(key, text, options)),
  };
}
