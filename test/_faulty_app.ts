import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { TestContext } from "node:test";
import { startTestApp, type TestApp, type TestAppOptions, type TestClock } from "./_app.ts";
import { checkAll, checkDrained, rawDiskObjects, rawPathOf } from "./_books.ts";
import { afterwards } from "./_db.ts";
import { faultyStore, openAllGates, type StoreHooks } from "./_faulty_store.ts";

/** How long a confirm may take in these tests. */
export const LEASE_MS = 10_000;
export const DAY_MS = 86_400_000;

export interface Staged {
  id: string;
  uploadUrl: string;
}

export interface FaultyApp extends TestApp {
  hooks: StoreHooks;
  heal: () => void;
  usedBytes: () => unknown;
  /** The upload's status, or undefined where its row is gone. */
  statusOf: (id: string) => unknown;
  keyOf: (id: string) => string;
  /** The bytes that lie under the upload's key, read by hand. */
  bytesOf: (id: string) => string;
  /** The keys of all files in the store. */
  files: () => string[];
  /** The outbox, in the order of entry. */
  entries: () => Entry[];
  staged: (bytes: string, options?: { filename?: string; category?: string }) => Promise<Staged>;
  check: () => void;
  /** Days later: everything that was left to do is done, and the files left are exactly the confirmed ones. */
  checkEnd: () => Promise<void>;
}

export interface Entry {
  object_key: string;
  due_at_ms: number;
  again_at_ms: number | null;
  taken_at_ms: number | null;
  attempts: number;
  last_error: string | null;
}

/** Clocks that stand still until they are moved: how slow a machine is changes nothing that is due. */
export function stillClock(): TestClock {
  let nowMs = Date.now();
  let monotonicMs = 0;
  return {
    now: () => nowMs,
    monotonicNow: () => monotonicMs,
    advance: (ms) => {
      nowMs += ms;
      monotonicMs += ms;
    },
    setBy: (ms) => {
      nowMs += ms;
    },
  };
}

/** A real service whose store can be made to wait or fail, and whose cleaner runs when it is told to. */
export async function startFaultyApp(t: TestContext, options: TestAppOptions = {}): Promise<FaultyApp> {
  const { hooks, wrapStore } = faultyStore();
  const testApp = await startTestApp(t, {
    clock: stillClock(),
    leaseMs: () => LEASE_MS,
    cleansInBackground: false,
    ...options,
    wrapStore,
  });
  // Before the service is closed: that waits for what waits at a gate.
  afterwards(t, openAllGates);
  const { app, sql, dataDir, clock, createUpload, put } = testApp;

  function heal(): void {
    for (const name of ["before", "after", "refuse"] as const) hooks[name] = undefined;
  }

  const keyOf = (id: string) =>
    String(sql.prepare<[string], string>("SELECT object_key FROM uploads WHERE id = ?").pluck().get(id));

  return {
    ...testApp,
    hooks,
    heal,
    usedBytes: () => sql.prepare("SELECT sum(storage_bytes_used) FROM workspaces").pluck().get(),
    statusOf: (id) => sql.prepare("SELECT status FROM uploads WHERE id = ?").pluck().get(id),
    keyOf,
    bytesOf: (id) => readFileSync(rawPathOf(dataDir, keyOf(id)), "utf8"),
    files: () => rawDiskObjects(dataDir, app.core.workspaces.installationId()).map(({ objectKey }) => objectKey),
    entries: () => sql.prepare<[], Entry>("SELECT * FROM object_removals ORDER BY seq").all(),
    check: () => checkAll(sql, dataDir),
    async staged(bytes, uploadOptions) {
      const upload = await createUpload(uploadOptions);
      assert.equal((await put(upload.uploadUrl, bytes)).status, 200);
      return upload;
    },
    async checkEnd() {
      heal();
      clock.advance(3 * DAY_MS);
      // The first pass brings back what is still taken or waits for a store that was down; the last finds nothing.
      for (let pass = 0; pass < 4; pass++) await app.cleaner.runOnce();
      checkDrained(sql, dataDir);
    },
  };
}
