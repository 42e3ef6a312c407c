// Goal: what the store reports as done survives a power loss. Killing a process keeps the page cache, so no such test
// would notice a missing fsync.
// Method: the system calls of one object's life, in the order in which they ended, as strace saw them.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { newObjectKey } from "../../lib/books/object_keys.ts";
import { INSTALLATION_ID } from "../help/disk_store.ts";
import { skipLoudly } from "../help/loud_skip.ts";

const CALLS =
  "fsync,fdatasync,write,writev,pwrite64,utimensat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat";

interface Life {
  calls: string[];
  /** The place of the first call after `from` that fits, which must be before `until`. */
  find: (from: number, until: number, pattern: RegExp) => number;
  opened: number;
  received: number;
  promoted: number;
  removed: number;
}

/** The calls of one object's life, of so many bytes; null, and the test skipped, where there is no strace. */
function traceLife(t: TestContext, bytes: number): Life | null {
  if (spawnSync("strace", ["-V"]).status !== 0) {
    skipLoudly(t, "strace is not there", "install it (Debian: apt-get install strace)");
    return null;
  }
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "stowage_test_sync_")));
  t.after(() => rmSync(folder, { recursive: true }));
  const objects = join(folder, "objects");
  const uploadId = "019ab3f2-77aa-7000-8000-000000000001";
  const stagingKey = newObjectKey("staging", INSTALLATION_ID, uploadId);
  const finalKey = newObjectKey("final", INSTALLATION_ID, uploadId);
  const trace = join(folder, "trace");
  const child = join(import.meta.dirname, "disk_store_life.ts");
  const run = spawnSync(
    "strace",
    ["-f", "-y", "-e", `trace=${CALLS}`, "-e", "signal=none", "-o", trace, process.execPath, child].concat(
      objects,
      stagingKey,
      finalKey,
      String(bytes),
    ),
    { encoding: "utf8" },
  );
  assert.equal(run.stdout, "opened\nreceived\npromoted\nremoved\n", run.stderr);
  const calls = endedCalls(readFileSync(trace, "utf8")).map((call) => call.replaceAll(objects, "OBJECTS"));

  const find = (from: number, until: number, pattern: RegExp): number => {
    const at = calls.findIndex((call, i) => i > from && pattern.test(call));
    assert.ok(at >= 0 && at < until, `no ${pattern} in its place in\n${calls.slice(from, until + 1).join("\n")}`);
    return at;
  };
  const said = (text: string) => calls.findIndex((call) => call.startsWith("write(1") && call.includes(text));
  const [opened, received, promoted, removed] = ["opened", "received", "promoted", "removed"].map(said);
  assert.ok(opened !== undefined && received !== undefined && promoted !== undefined && removed !== undefined);

  return { calls, find, opened, received, promoted, removed };
}

test("every step of a file's life is synced before it resolves", (t) => {
  const life = traceLife(t, 20 * 1024 ** 2);
  if (life === null) return;
  const { calls, find, opened, received, promoted, removed } = life;
  find(-1, opened, /^fsync\(.*<OBJECTS>\)/);

  const synced = calls.filter((call, i) => i < received && /^fdatasync\(.*<OBJECTS\/tmp\/[0-9a-f]{32}>\)/.test(call));
  assert.equal(synced.length, 2, "20 MiB are synced every 8 MiB");
  const lastWrite = calls.findLastIndex((call, i) => i < received && /^writev?\(.*<OBJECTS\/tmp\//.test(call));
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

test("every step of a small object's life is synced before it resolves", (t) => {
  const life = traceLife(t, 1_000);
  if (life === null) return;
  const { find, opened, received, promoted, removed } = life;
  find(find(-1, opened, /^pwrite64\(.*<OBJECTS\/small\.db(-wal)?>/), opened, /^fsync\(.*<OBJECTS>\)/);
  for (const [from, until] of [
    [opened, received],
    [received, promoted],
    [promoted, removed],
  ] as const) {
    const written = find(from, until, /^pwrite64\(.*<OBJECTS\/small\.db-wal>/);
    find(written, until, /^f(data)?sync\(.*<OBJECTS\/small\.db-wal>\)/);
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
