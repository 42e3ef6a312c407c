// A service in a process of its own, to be killed while it waits inside of a call to its store, or while it looks for late
// arrivals: what the real program does once an hour.   node test/_matrix_child.ts <options as JSON>
import { writeSync } from "node:fs";
import { openApp } from "../lib/app.ts";
import { silentLog, testConfig } from "./_app.ts";
import { type CallName, type Hooks, hookedStore } from "./_matrix_hooks.ts";

export interface ChildOptions {
  dataDir: string;
  env: Record<string, string>;
  /** How far its clock is ahead. */
  aheadMs: number;
  looks: boolean;
  /** Where it stops, says `held` and waits for its end; null where a proxy holds it. */
  hold: { call: CallName; point: "before" | "after" } | null;
}

const { dataDir, env, aheadMs, looks, hold }: ChildOptions = JSON.parse(process.argv[2] ?? "{}");
const hooks: Hooks = {};
if (hold !== null) {
  hooks[hold.point] = (name) => {
    if (name !== hold.call) return;
    writeSync(1, "held\n");
    return new Promise(() => {});
  };
}
const app = await openApp({
  ...{ config: testConfig(dataDir, env), log: silentLog, cleansInBackground: !looks },
  now: () => Date.now() + aheadMs,
  s3: { now: Date.now },
  wrapStore: (objects) => hookedStore(hooks, objects),
  onFatal: () => process.exit(1),
});
writeSync(1, `${app.url}\n`);
if (looks) await app.cleaner.lookForLateArrivals();
