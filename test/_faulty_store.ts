import type { Readable } from "node:stream";
import { type ObjectStore, StoreError } from "../lib/store/objects.ts";

export interface StoreCall {
  name: "stat" | "promote" | "read" | "remove";
  /** The keys of the call, the one that is written or removed last. */
  keys: readonly string[];
}

/** What happens around calls of the store. What a hook throws is what the caller gets; a promise is awaited. */
export interface StoreHooks {
  /** The store has done nothing yet. */
  before?: ((call: StoreCall) => void | Promise<void>) | undefined;
  /** The store has done its work, and its answer has not been heard. */
  after?: ((call: StoreCall) => void | Promise<void>) | undefined;
  /** Keys that a removal reports as still there, with the reason. They are not touched. */
  refuse?: ((keys: readonly string[]) => ReadonlyMap<string, string>) | undefined;
}

/** A real store whose calls can be made to wait or to fail, before or after their work. Set the hooks at any time. */
export function faultyStore(): { hooks: StoreHooks; wrapStore: (objects: ObjectStore) => ObjectStore } {
  const hooks: StoreHooks = {};

  async function around<T>(call: StoreCall, work: () => Promise<T>): Promise<T> {
    await hooks.before?.(call);
    const result = await work();
    await hooks.after?.(call);
    return result;
  }

  return {
    hooks,
    wrapStore: (objects) => ({
      ...objects,
      stat: (key) => around({ name: "stat", keys: [key] }, () => objects.stat(key)),
      promote: (from, to, options) =>
        around({ name: "promote", keys: [from, to] }, () => objects.promote(from, to, options)),
      async read(key) {
        let body: Readable | undefined;
        try {
          return await around({ name: "read", keys: [key] }, async () => {
            body = await objects.read(key);
            return body;
          });
        } catch (error) {
          // An answer that nobody hears must not hold its file open.
          body?.destroy();
          throw error;
        }
      },
      remove: (keys) =>
        around({ name: "remove", keys }, async () => {
          const refused = hooks.refuse?.(keys) ?? new Map<string, string>();
          const failures = await objects.remove(keys.filter((key) => !refused.has(key)));
          return new Map([...failures, ...refused]);
        }),
    }),
  };
}

/** No answer: the work may or may not have been done. */
export function noAnswer(): StoreError {
  return new StoreError("unavailable", "The store did not answer");
}

export interface Gate {
  /** Resolves when someone waits at the gate. */
  reached: Promise<void>;
  /** Waits until the gate is opened. */
  pass: () => Promise<void>;
  open: () => void;
}

const opens = new Set<() => void>();

/** Opens every gate that there is: a test that failed must not leave anyone waiting, or its service never closes. */
export function openAllGates(): void {
  for (const open of opens) open();
  opens.clear();
}

/** Holds whoever comes, until it is opened. */
export function createGate(): Gate {
  let arrive: () => void = () => {};
  let open: () => void = () => {};
  const reached = new Promise<void>((resolve) => {
    arrive = resolve;
  });
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  opens.add(open);
  return {
    reached,
    pass: () => {
      arrive();
      return opened;
    },
    open,
  };
}
