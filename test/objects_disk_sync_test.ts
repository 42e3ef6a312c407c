// Goal: what the store reports as done survives a power loss. Killing a process keeps the page cache, so no such test
// would notice a missing fsync.
// Method: the system calls of one object's life, in the order in which they ended, as strace saw them.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { newObjectKey } from "../lib/ids.ts";
import { INSTALLATION_ID } from "./_disk_store.ts";
import { skipLoudly } from "./_loud_skip.ts";

const CALLS = "fsync,fdatasync,write,utimensat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat";

test("every step of an object's life is synced before it resolves", (t) => {
  if (spawnSync("strace", ["-V"]).status !== 0) {
    return skipLoudly(t, "strace is not there", "install it (Debian: apt-get install strace)");
  }
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "stowage_test_sync_")));
  t.after(() => rmSync(folder, { recursive: true }));
  const objects = join(folder, "objects");
  const uploadId = "019ab3f2-77aa-7000-8000-000000000001";
  const stagingKey = newObjectKey("staging", INSTALLATION_ID, uploadId);
  const finalKey = newObjectKey("final", INSTALLATION_ID, uploadId);
  const trace = join(folder, "trace");
  const child = join(import.meta.dirname, "_disk_store_life.ts");
  const run = spawnSync(
    "strace",
    ["-f", "-y", "-e", `trace=${CALLS}`, "-e", "signal=none", "-o", trace, process.execPath, child].concat(
      objects,
      stagingKey,
      finalKey,
      "20",
    ),
    { encoding: "utf8" },
  );
  assert.equal(run.stdout, "opened\nreceived\npromoted\nremoved\n", run.stderr);
  const calls = endedCalls(readFileSync(trace, "utf8")).map((call) => call.replaceAll(objects, "OBJECTS"));

  /** The place of the first call after `from` that fits, which must be before `until`. */
  const find = (from: number, until: number, pattern: RegExp): number => {
    const at = calls.findIndex((call, i) => i > from && pattern.test(call));
    assert.ok(at >= 0 && at < until, `no ${pattern} in its place in\n${calls.slice(from, until + 1).join("\n")}`);
    return at;
  };
  const said = (text: string) => calls.findIndex((call) => call.startsWith("write(1") && call.includes(text));
  const [opened, received, promoted, removed] = ["opened", "received", "promoted", "removed"].map(said);
  assert.ok(opened !== undefined && received !== undefined && promoted !== undefined && removed !== undefined);

  find(-1, opened, /^fsync\(.*<OBJECTS>\)/);

  const synced = calls.filter((call, i) => i < received && /^fdatasync\(.*<OBJECTS\/tmp\/[0-9a-f]{32}>\)/.test(call));
  assert.equal(synced.length, 2, "20 MiB are synced every 8 MiB");
  const lastWrite = calls.findLastIndex((call, i) => i < received && /^write\(.*<OBJECTS\/tmp\//.test(call));
  const stamped = find(lastWrite, received, /^utimensat\(.*<OBJECTS\/tmp\//);
  const whole = find(stamped, received, /^fsync\(.*<OBJECTS\/tmp\/[0-9a-f]{32}>\)/);
  const renamed = find(whole, received, /^rename.*"OBJECTS\/tmp\/.*"OBJECTS\/staging\/019ab\/3f2\/.*= 0/);
  find(renamed, received, /^fsync\(.*<OBJECTS\/staging\/019ab\/3f2>\)/);
  find(opened, received, /^fsync\(.*<OBJECTS\/staging\/019ab>\)/);
  find(opened, received, /^fsync\(.*<OBJECTS\/staging>\)/);

  const linked = find(received, promoted, /^link.*"OBJECTS\/staging\/.*"OBJECTS\/final\/019ab\/3f2\/.*= 0/);
  find(linked, promoted, /^fsync\(.*<OBJECTS\/final\/019ab\/3f2>\)/);
  find(received, promoted, /^fsync\(.*<OBJECTS\/final\/019ab>\)/);
  find(received, promoted, /^fsync\(.*<OBJECTS\/final>\)/);

  for (const place of ["staging", "final"]) {
    const unlinked = find(promoted, removed, new RegExp(`^unlink.*"OBJECTS/${place}/019ab/3f2/.*= 0`));
    find(unlinked, removed, new RegExp(`^fsync\\(.*<OBJECTS/${place}/019ab/3f2>\\)`));
  }
});

/** The calls in the order in which they ended: strace writes a call that another thread interrupts as two lines. */
function endedCalls(trace: string): string[] {
  const begun = new Map<string, string>();
  const ended: string[] = [];
  for (const line of trace.split("\n")) {
    const [, thread, text] = /^(\d+) +(.*)$/.exec(line) ?? [];
    if (thread === undefined || text === undefined) continue;
    const unfinished = / *<unfinished \.\.\.>$/;
    if (unfinished.test(text)) begun.set(thread, text.replace(unfinished, ""));
    else ended.push(text.replace(/^<\.\.\. \w+ resumed>/, () => begun.get(thread) ?? ""));
  }
  return ended;
}
