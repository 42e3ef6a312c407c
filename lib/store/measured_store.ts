import { type ObjectStore, type StoreCall, StoreError } from "./objects.ts";

/**
 * Reports the calls of the embedded store, which does not do so itself. The PUTs and GETs of clients are not among them:
 * they are requests.
 */
export function measuredStore(objects: ObjectStore, onCall: (call: StoreCall) => void): ObjectStore {
  async function timed<T>(operation: string, work: () => Promise<T>): Promise<T> {
    const startedAtMs = performance.now();
    let failure: StoreCall["failure"] = null;
    try {
      return await work();
    } catch (error) {
      failure = error instanceof StoreError ? error.failure : "unavailable";
      throw error;
    } finally {
      onCall({ operation, durationMs: performance.now() - startedAtMs, failure });
    }
  }

  return {
    ...objects,
    stat: (objectKey) => timed("stat", () => objects.stat(objectKey)),
    promote: (stagingKey, finalKey, options) => timed("promote", () => objects.promote(stagingKey, finalKey, options)),
    read: (objectKey) => timed("read", () => objects.read(objectKey)),
    remove: (objectKeys) => timed("remove", () => objects.remove(objectKeys)),
    probe: () => timed("probe", () => objects.probe()),
  };
}
