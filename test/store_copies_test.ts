// Goal: two copies of one data directory on one store notice each other before either removes what the other still names,
// and a restart, also after a crash, is not taken for a copy.
// Method: real programs on copies of a folder; and the guard alone, with another's write put where it hurts.
import assert from "node:assert/strict";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import { openCore } from "../lib/core/core.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import type { Log } from "../lib/log.ts";
import { createStoreGuard } from "../lib/operations/store_guard.ts";
import { createDiskStore } from "../lib/store/disk/objects_disk.ts";
import { type ObjectStore, StoreError } from "../lib/store/objects.ts";
import { initDataDir, silentLog, temporaryFolder, testConfig } from "./_app.ts";
import { afterwards } from "./_db.ts";
import { uncounted } from "./_disk_store.ts";
import { startFaultProxy } from "./_fault_proxy.ts";
import { logLines, runProgram, type ServingProgram, serveProgram } from "./_process.ts";
import { installationOf } from "./_raw_store.ts";
import { collectLog, openS3Store, type S3Make, useS3Server } from "./_s3_servers.ts";
import { clientFor, copyDataDir, drained, openPlace, type PlaceMake, type Site, stop } from "./_store_place.ts";
import { until } from "./_until.ts";

/** Longer than a comparison of the marker is good for. */
const COMPARED_MS = 1_100;

async function isThere(site: Site, id: string): Promise<boolean> {
  return (await site.keys()).some((key) => key.startsWith("final/") && key.includes(id));
}

async function pausedAs(program: ServingProgram, reason: RegExp): Promise<void> {
  await until(() => program.stderr().includes('"msg":"cleaner_paused"'), "the log says that the cleaner is paused");
  const ready = await program.call("GET", "/ready");
  assert.equal(ready.status, 200, "a person decides; meanwhile the service serves");
  assert.match(ready.json.cleaner, reason);
  assert.match((await program.call("GET", "/metrics")).text, /^stowage_cleaner_paused 1$/m);
}

for (const make of ["minio", "versitygw"] as const satisfies readonly PlaceMake[]) {
  test(`${make}: a copy that is started beside its original: both stop removing, loudly, until a person decides`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null) return;
    const original = await site.start();
    const client = clientFor(original, site.made);
    const [a, b, c] = [await client.uploaded("a"), await client.uploaded("b"), await client.uploaded("c")];
    await drained(site);
    const copyDir = copyDataDir(site, "copy");
    const copy = await serveProgram(t, copyDir, { env: site.env });
    await delay(COMPARED_MS);

    // What is deleted on the one is still named by the other.
    assert.equal((await client.remove(a.id)).status, 200);
    await pausedAs(
      original,
      /^paused: another run has used the store since \(generation 2, here 1\): another copy of this data directory is in use, or this one is an older state of it$/,
    );
    assert.ok(await isThere(site, a.id));
    const other = clientFor(copy, site.made);
    assert.equal((await other.remove(b.id)).status, 200);
    await pausedAs(copy, /^paused: another copy of this data directory was still running when this one took the store/);
    assert.ok(await isThere(site, b.id));
    const { download_url } = (await client.show(b.id)).json.data;
    assert.equal((await original.call("GET", download_url)).text, "b");

    for (const dataDir of [site.dataDir, copyDir]) {
      const doctor = await runProgram(t, ["doctor"], { STOWAGE_DATA_DIR: dataDir, ...site.env });
      assert.equal(doctor.exitCode, 1);
      assert.match(doctor.stdout, /^problem +ledger marker +another (run|copy) /m);
      assert.match(doctor.stdout, /do: .*\n.*stop the copy that is not to go on/);
    }

    await stop(copy);
    const settings = { STOWAGE_DATA_DIR: site.dataDir, ...site.env };
    const declined = await runProgram(t, ["doctor", "--accept-older-database"], settings);
    assert.equal(declined.exitCode, 1);
    assert.match(
      declined.stdout,
      /^This is not the only database that has used the store: another run has used the store since/,
    );
    assert.ok(await isThere(site, a.id));
    const accepted = await runProgram(t, ["doctor", "--accept-older-database", "--yes"], settings);
    assert.equal(accepted.exitCode, 0, accepted.stderr);
    await original.says("cleaner_goes_on");
    await until(async () => !(await isThere(site, a.id)), "what waited is removed");

    // A copy that was left behind stops itself, and disturbs no one. To it the store is simply ahead.
    const stale = await serveProgram(t, copyDir, { env: site.env });
    await pausedAs(stale, /^paused: the ledger's number 4 is not the one that the store has seen$/);
    assert.equal((await client.remove(c.id)).status, 200);
    await until(async () => !(await isThere(site, c.id)), "the one that a person chose goes on");
    assert.equal((await original.call("GET", "/ready")).json.cleaner, undefined);
    assert.ok(await isThere(site, b.id));
  });
}

test("minio: a copy that is started beside an original that idles removes nothing before the original has noticed", async (t) => {
  const site = await openPlace(t, "minio");
  if (site === null) return;
  const original = await site.start();
  const client = clientFor(original, site.made);
  const [a, b] = [await client.uploaded("a"), await client.uploaded("b")];
  await drained(site);
  const copy = await serveProgram(t, copyDataDir(site, "copy"), { env: site.env });
  assert.equal((await clientFor(copy, site.made).remove(b.id)).status, 200);
  await until(() => copy.stderr().includes('"msg":"removals_held_back"'), "the copy waits");
  // Nobody asks the original for anything.
  await until(() => original.stderr().includes('"msg":"cleaner_paused"'), "the original notices");
  await until(() => copy.stderr().includes('"msg":"cleaner_paused"'), "and the copy hears of it");
  assert.ok(await isThere(site, b.id));
  const { download_url } = (await client.show(b.id)).json.data;
  assert.equal((await original.call("GET", download_url)).text, "b");
  assert.ok(await isThere(site, a.id));
});

test("minio: the copy that has the store goes on as the log says, once its original is stopped", async (t) => {
  const site = await openPlace(t, "minio");
  if (site === null) return;
  const original = await site.start();
  const b = await clientFor(original, site.made).uploaded("b");
  await drained(site);
  const copyDir = copyDataDir(site, "copy");
  const copy = await serveProgram(t, copyDir, { env: site.env });
  assert.equal((await clientFor(copy, site.made).remove(b.id)).status, 200);
  await until(() => original.stderr().includes('"msg":"cleaner_paused"'), "the original notices");
  await until(() => copy.stderr().includes('"msg":"cleaner_paused"'), "and the copy hears of it");
  await stop(original);
  const told = logLines(copy.stderr()).find(({ msg }) => msg === "cleaner_paused");
  const [, option = ""] = /`stowage doctor (--[a-z-]+)` here/.exec(told?.hint) ?? [];
  const settings = { STOWAGE_DATA_DIR: copyDir, ...site.env };
  const shown = await runProgram(t, ["doctor", option], settings);
  assert.equal(shown.exitCode, 1);
  assert.match(
    shown.stdout,
    /^This is not the only database that has used the store: another copy .* was still running/,
  );
  const accepted = await runProgram(t, ["doctor", option, "--yes"], settings);
  assert.equal(accepted.exitCode, 0, accepted.stderr);
  await until(async () => !(await isThere(site, b.id)), "what waited is removed");
  assert.equal((await copy.call("GET", "/ready")).json.cleaner, undefined);
});

for (const make of ["disk", "minio", "versitygw"] as const satisfies readonly PlaceMake[]) {
  test(`${make}: a restart, also after a crash, is no copy`, async (t) => {
    const site = await openPlace(t, make);
    if (site === null) return;
    for (let round = 0; round < 3; round++) {
      const program = await site.start();
      const client = clientFor(program, site.made);
      const { id } = await client.uploaded("x");
      assert.equal((await client.remove(id)).status, 200);
      await drained(site);
      assert.ok(!(await isThere(site, id)));
      assert.equal((await client.ready()).json.cleaner, undefined);
      program.child.kill("SIGKILL");
      await program.ended;
    }
    assert.equal((await site.marker()).generation, 3);
  });
}

test("minio: a copy that cannot even listen takes nothing from its original", async (t) => {
  const site = await openPlace(t, "minio");
  if (site === null) return;
  const original = await site.start();
  const client = clientFor(original, site.made);
  const { id } = await client.uploaded("x");
  const env = { ...site.env, STOWAGE_PORT: new URL(original.url).port };
  const copy = await runProgram(t, ["serve"], { STOWAGE_DATA_DIR: copyDataDir(site, "copy"), ...env });
  assert.equal(copy.exitCode, 1);
  assert.match(copy.stderr, /STOWAGE_PORT/);
  await delay(COMPARED_MS);
  assert.equal((await client.remove(id)).status, 200);
  await until(async () => !(await isThere(site, id)), "it is removed");
  assert.equal((await client.ready()).json.cleaner, undefined);
});

test("minio: a store that refuses conditions gets its marker without", async (t) => {
  const server = await useS3Server(t, "minio");
  if (server === null) return;
  const proxy = await startFaultProxy(t, server.endpoint);
  const body = "<Error><Code>NotImplemented</Code><Message>no conditions</Message></Error>";
  for (const name of ["if-match", "if-none-match"]) {
    proxy.setFault({ kind: "answer", status: 501, body, match: { header: [name, /./] } });
    const store = await openS3Store(t, server, { url: proxy.url });
    const key = "final/0123456789abcdef/ledger-marker";
    let replaces: string | null = null;
    for (const text of ["one", "two"]) {
      await store.writeMarker(key, text, { replaces });
      const stored = await store.readMarker(key);
      assert.equal(stored?.text, text);
      replaces = stored?.etag ?? null;
    }
    await proxy.heal();
  }
});

/** What two copies share, and what is done to the one's calls of it. */
interface Shared {
  objects: ObjectStore;
  /** Runs once, just before the next marker is written. */
  beforeWrite: (() => Promise<void>) | null;
  /** The answer to the next write is lost, before or after its work. */
  losesAnswer: "before" | "after" | null;
  knowsConditions: boolean;
}

async function openShared(t: TestContext, make: "disk" | S3Make, installationId: string): Promise<ObjectStore | null> {
  if (make !== "disk") {
    const server = await useS3Server(t, make);
    return server === null ? null : await openS3Store(t, server);
  }
  const objectsDir = join(await temporaryFolder(t), "objects");
  const store = createDiskStore({
    ...{ objectsDir, installationId, publicUrl: () => "", signingKey: Buffer.alloc(32) },
    ...{ maxUploadBytes: 1, minFreeBytes: 0, staging: uncounted(() => null), sweep: false, now: Date.now },
    log: silentLog,
  });
  await store.prepare({ makes: true });
  return store;
}

/** What two guards say of their directories where neither is to wait for the other. */
const ONE_DIRECTORY = "one";

/** A guard on a database of its own, as a process has it. */
function startGuard(
  t: TestContext,
  dataDir: string,
  shared: Shared,
  { log = silentLog, directory = ONE_DIRECTORY }: { log?: Log; directory?: string | null } = {},
) {
  const config = testConfig(dataDir);
  const core = openCore({ config, log: silentLog, now: Date.now, migrate: false, onFatal: () => {} });
  afterwards(t, () => core.db.close());
  let nowMs = 0;
  const guard = createStoreGuard({
    ...{ ledger: core.ledger, stores: core.stores, installationId: core.workspaces.installationId() },
    ...{ place: { kind: "disk", folder: "shared" }, log, now: Date.now, monotonicNow: () => nowMs },
    directory,
    objects: {
      ...shared.objects,
      async writeMarker(key, text, options) {
        const before = shared.beforeWrite;
        shared.beforeWrite = null;
        await before?.();
        const lost = shared.losesAnswer;
        shared.losesAnswer = null;
        if (lost === "before") throw new StoreError("unavailable", "no answer");
        const present = shared.knowsConditions
          ? options.replaces
          : ((await shared.objects.readMarker(key))?.etag ?? null);
        await shared.objects.writeMarker(key, text, { replaces: present });
        if (lost === "after") throw new StoreError("unavailable", "no answer");
      },
    },
  });
  return {
    ...{ guard, core },
    /** Time goes by: what was compared is to be compared anew. */
    pass(ms = 2_000) {
      nowMs += ms;
    },
  };
}

async function openCopies(t: TestContext, make: "disk" | S3Make) {
  const folder = await temporaryFolder(t);
  const one = join(folder, "one");
  const two = join(folder, "two");
  await initDataDir(testConfig(one), 1_000);
  mkdirSync(two);
  const db = new Database(join(one, DATABASE_FILE));
  const objects = await openShared(t, make, installationOf(db));
  if (objects === null) return null;
  const shared: Shared = { objects, beforeWrite: null, losesAnswer: null, knowsConditions: true };
  const { guard, core } = startGuard(t, one, shared);
  assert.equal(await guard.isCurrent(), true);
  await core.db.close();
  db.exec(`VACUUM INTO '${join(two, DATABASE_FILE)}'`);
  db.close();
  return { one, two, shared };
}

for (const make of ["disk", "minio", "versitygw"] as const) {
  test(`${make}: of two that take the store at once the one whose write comes second has lost`, async (t) => {
    const copies = await openCopies(t, make);
    if (copies === null) return;
    const { one, two, shared } = copies;
    const [first, second] = [startGuard(t, one, shared), startGuard(t, two, shared)];
    shared.beforeWrite = async () => assert.equal(await second.guard.isCurrent(), true);
    assert.equal(await first.guard.isCurrent(), false);
    assert.match(first.guard.pauseReason() ?? "", /another copy of this data directory/);
    second.pass();
    assert.equal(await second.guard.keepUp(), true);
  });

  test(`${make}: a start that is cut off before or after its marker is written goes on with the next`, async (t) => {
    const copies = await openCopies(t, make);
    if (copies === null) return;
    const { one, shared } = copies;
    for (const lost of ["before", "after", null] as const) {
      shared.losesAnswer = lost;
      const { guard, core } = startGuard(t, one, shared);
      if (lost === null) assert.equal(await guard.isCurrent(), true);
      else await assert.rejects(guard.isCurrent(), StoreError);
      await core.db.close();
    }
  });
}

test("a store that knows no conditions: who was written over has lost at its next look, and says so to the other", async (t) => {
  const copies = await openCopies(t, "disk");
  assert.ok(copies !== null);
  const { one, two, shared } = copies;
  shared.knowsConditions = false;
  const { log, events } = collectLog();
  const [first, second] = [startGuard(t, one, shared), startGuard(t, two, shared, { log })];
  shared.beforeWrite = async () => assert.equal(await second.guard.isCurrent(), true);
  assert.equal(await first.guard.isCurrent(), true, "it has written over the other");
  assert.equal(await second.guard.keepUp(), false, "the embedded store is looked at each time");
  assert.deepEqual(
    events.map(({ msg }) => msg),
    ["cleaner_paused"],
  );
  first.pass();
  assert.equal(await first.guard.keepUp(), false);
  assert.match(first.guard.pauseReason() ?? "", /was still running/);
  second.pass();
  assert.equal(await second.guard.isCurrent(), false, "and it stays so");
  await first.core.db.close();
  const again = startGuard(t, one, shared);
  assert.equal(await again.guard.isCurrent(), false, "a new start of the one that has the store takes it, and waits");
  assert.equal(again.guard.pauseReason(), null);
  second.pass();
  assert.equal(await second.guard.isCurrent(), false);
  again.pass();
  assert.equal(await again.guard.keepUp(), false, "as long as the other runs it says so again");
});

for (const make of ["disk", "minio", "versitygw"] as const) {
  test(`${make}: a run is held back only where another may still be at work, and its successors with it`, async (t) => {
    const copies = await openCopies(t, make);
    if (copies === null) return;
    const { one, two, shared } = copies;
    const own = startGuard(t, one, shared);
    assert.equal(await own.guard.isCurrent(), true, "after a crash on this very directory");
    await own.core.db.close();

    const { log, events } = collectLog();
    const db = new Database(join(one, DATABASE_FILE));
    rmSync(join(two, DATABASE_FILE));
    db.exec(`VACUUM INTO '${join(two, DATABASE_FILE)}'`);
    db.close();
    const copy = startGuard(t, two, shared, { log, directory: "two" });
    assert.equal(await copy.guard.isCurrent(), false);
    await copy.guard.admitConfirm();
    copy.guard.checkTakesUploads();
    assert.equal(copy.guard.pauseReason(), null, "uploads go on");
    await copy.guard.release();
    await copy.core.db.close();

    // Neither a good end nor a crash makes the next wait less.
    const next = startGuard(t, two, shared, { log, directory: "two" });
    assert.equal(await next.guard.isCurrent(), false);
    next.pass(19_000);
    assert.equal(await next.guard.isCurrent(), false);
    assert.equal(await next.guard.keepUp(), false);
    next.pass(1_000);
    assert.equal(await next.guard.keepUp(), true);
    await next.core.db.close();
    assert.deepEqual(
      events.map(({ msg }) => msg),
      ["removals_held_back", "removals_held_back", "removals_go_on"],
    );

    const crashed = startGuard(t, two, shared, { directory: "two" });
    assert.equal(await crashed.guard.isCurrent(), true, "once it was its own, a crash costs nothing");
    await crashed.guard.release();
    await crashed.core.db.close();
    const elsewhere = startGuard(t, two, shared, { directory: null });
    assert.equal(await elsewhere.guard.isCurrent(), true, "nor does a good end, wherever the next starts");
    await elsewhere.core.db.close();
    const booted = startGuard(t, two, shared, { directory: null });
    assert.equal(await booted.guard.isCurrent(), false, "after a crash of a machine that cannot tell it waits");
  });

  test(`${make}: who is told during its wait that the other still runs removes nothing`, async (t) => {
    const copies = await openCopies(t, make);
    if (copies === null) return;
    const { one, two, shared } = copies;
    const original = startGuard(t, one, shared);
    assert.equal(await original.guard.isCurrent(), true);
    const db = new Database(join(one, DATABASE_FILE));
    rmSync(join(two, DATABASE_FILE));
    db.exec(`VACUUM INTO '${join(two, DATABASE_FILE)}'`);
    db.close();
    const copy = startGuard(t, two, shared, { directory: "two" });
    assert.equal(await copy.guard.isCurrent(), false);
    original.pass();
    assert.equal(await original.guard.isCurrent(), false);
    copy.pass(20_000);
    assert.equal(await copy.guard.keepUp(), false);
    assert.match(copy.guard.pauseReason() ?? "", /was still running/);
  });
}

test("a store that knows no conditions: a marker that an older run has written over is taken back, and waited for", async (t) => {
  const copies = await openCopies(t, "disk");
  assert.ok(copies !== null);
  const { one, shared } = copies;
  const before = JSON.parse((await shared.objects.readMarker(""))?.text ?? "");
  const own = startGuard(t, one, shared);
  assert.equal(await own.guard.isCurrent(), true);
  const stored = await shared.objects.readMarker("");
  const other = { ...before, run: "another", directory: "elsewhere" };
  await shared.objects.writeMarker("", JSON.stringify(other), { replaces: stored?.etag ?? null });
  own.pass();
  assert.equal(await own.guard.keepUp(), false);
  assert.equal(own.guard.pauseReason(), null);
  const taken = JSON.parse((await shared.objects.readMarker(""))?.text ?? "");
  assert.equal(taken.generation, before.generation + 2, "the other sees it, and says whether it runs");
  assert.notEqual(taken.run, "another");
});

test("a marker that others write again and again is a failure of the store, in words of its own", async (t) => {
  const copies = await openCopies(t, "disk");
  assert.ok(copies !== null);
  const { one, shared } = copies;
  const always: ObjectStore = {
    ...shared.objects,
    writeMarker: () => Promise.reject(new StoreError("changed", "another by now")),
  };
  const { guard } = startGuard(t, one, { ...shared, objects: always });
  await assert.rejects(guard.admitConfirm(), (error) => {
    assert.ok(error instanceof StoreError);
    assert.equal(error.failure, "unavailable");
    assert.match(error.message, /another process writes its marker again and again/);
    return true;
  });
});

test("what has to be decided is told once, whatever numbers its reason has", async (t) => {
  const copies = await openCopies(t, "disk");
  assert.ok(copies !== null);
  const { one, shared } = copies;
  const { log, events } = collectLog();
  const own = startGuard(t, one, shared, { log });
  assert.equal(await own.guard.isCurrent(), true);
  for (const generation of [9, 10, 11]) {
    const stored = await shared.objects.readMarker("");
    const marker = { ...JSON.parse(stored?.text ?? ""), run: "another", generation };
    await shared.objects.writeMarker("", JSON.stringify(marker), { replaces: stored?.etag ?? null });
    own.pass();
    assert.equal(await own.guard.isCurrent(), false);
    assert.match(own.guard.pauseReason() ?? "", new RegExp(`generation ${generation}, here`));
  }
  assert.deepEqual(
    events.map(({ msg }) => msg),
    ["cleaner_paused"],
  );
});

test("a copy that has booked more than its original is noticed by it as a copy", async (t) => {
  const copies = await openCopies(t, "disk");
  assert.ok(copies !== null);
  const { one, two, shared } = copies;
  const first = startGuard(t, one, shared);
  assert.equal(await first.guard.isCurrent(), true);
  const marker = JSON.parse((await shared.objects.readMarker(""))?.text ?? "");
  const second = startGuard(t, two, shared);
  assert.equal(await second.guard.isCurrent(), false, "its generation is the older one");
  first.pass();
  assert.equal(await first.guard.keepUp(), true, "who has never had the store stops no one");
  const stored = await shared.objects.readMarker("");
  const ahead = { ...marker, ledger_seq: 9, run: "another", generation: 9 };
  await shared.objects.writeMarker("", JSON.stringify(ahead), { replaces: stored?.etag ?? null });
  first.pass();
  assert.equal(await first.guard.keepUp(), false);
  assert.match(
    first.guard.pauseReason() ?? "",
    /^another copy of this data directory has used the store since: the ledger ends/,
  );
  const told = JSON.parse((await shared.objects.readMarker(""))?.text ?? "");
  assert.deepEqual(told, { ...ahead, contested_by: marker.run });
});
