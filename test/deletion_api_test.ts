import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { createDeletions } from "../lib/core/deletions.ts";
import { createRemovals } from "../lib/core/removals.ts";
import { createRemovedObjects } from "../lib/core/removed_objects.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import type { Answer, Json } from "./_app.ts";
import { DAY_MS, startFaultyApp } from "./_faulty_app.ts";
import { noAnswer } from "./_faulty_store.ts";
import { openRig, openSite, type Rig } from "./_matrix_rig.ts";
import { type PeopleApp, type Person, startPeopleApp, uploadAs, wordsOf } from "./_people.ts";
import { queryPlans } from "./_query_plans.ts";
import { useS3Server } from "./_s3_servers.ts";

// Goal: who deleted an upload can show that its object is gone, or sees what that waits for; nobody else learns anything.

const HOUR_MS = 3_600_000;
const NEVER_WAS = "0190a000-0000-7000-8000-000000000000";

/** The deletion as its owner is shown it. */
async function deletionOf(its: Rig["its"], id: string): Promise<Json> {
  const answer = await its.call("GET", `/api/v1/uploads/${id}/deletion`);
  assert.equal(answer.status, 200, answer.text);
  assert.equal(answer.json.data.upload_id, id);
  return answer.json.data;
}

function reasons(deletion: Json): string[] {
  return deletion.waiting_for.map((waiting: Json) => `${waiting.object}: ${waiting.reason}`);
}

for (const make of ["disk", "minio"] as const) {
  const storeDown = async (rig: Rig): Promise<void> => {
    if (rig.s3 === null) {
      rig.hooks.before = () => {
        throw noAnswer();
      };
    } else rig.s3.proxy.setFault({ kind: "refuse" });
  };
  const storeUp = async (rig: Rig): Promise<void> => {
    rig.hooks.before = undefined;
    await rig.s3?.proxy.heal();
  };

  async function start(t: Parameters<typeof openSite>[0]): Promise<Rig | null> {
    const server = make === "disk" ? null : await useS3Server(t, make);
    if (make !== "disk" && server === null) return null;
    return await openRig(t, await openSite(t, server), { timeouts: { callMs: 2_000, manyMs: 2_000 } });
  }

  test(`${make}: a deletion shows what it waits for while the store is down, and when the object was removed`, async (t) => {
    const rig = await start(t);
    if (rig === null) return;
    const { its, raw } = rig;
    const { cleaner } = its.app;
    const { id } = await its.confirmedUpload("object");
    its.clock.advance(HOUR_MS);
    // The staging key goes, for the second time too: its URL has expired.
    for (let pass = 0; pass < 2; pass++) await cleaner.runOnce();
    const beforeMs = Date.now();
    assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
    const deleted = await deletionOf(its, id);
    const deletedAtMs = Date.parse(deleted.deleted_at);
    assert.ok(deletedAtMs >= beforeMs - 1 && deletedAtMs <= Date.now());
    const shown = { upload_id: id, deleted_at: deleted.deleted_at, bytes_released: 6 };
    const now = () => new Date(its.clock.now()).toISOString();
    assert.deepEqual(deleted, {
      ...{ ...shown, status: "waiting", object_removed_at: null, attempts: 0, last_error: null },
      waiting_for: [{ object: "file", reason: "it is to be removed next", next_attempt_at: now() }],
    });

    await storeDown(rig);
    await cleaner.runOnce();
    const waiting = await deletionOf(its, id);
    const words = "the store could not be used when it was to be removed; it is tried again";
    assert.deepEqual(waiting, {
      ...{ ...shown, status: "waiting", object_removed_at: null, attempts: 0, last_error: words },
      waiting_for: [{ object: "file", reason: words, next_attempt_at: now() }],
    });
    assert.equal((await raw.objects()).length, 1);

    await storeUp(rig);
    its.clock.advance(HOUR_MS);
    await cleaner.runOnce();
    assert.deepEqual(await raw.objects(), []);
    const removed = {
      ...{ ...shown, status: "removed", object_removed_at: now(), attempts: 1, last_error: null, waiting_for: [] },
    };
    assert.deepEqual(await deletionOf(its, id), removed);
    // For good, like the ledger.
    await rig.drain();
    assert.deepEqual(await deletionOf(its, id), removed);
    assert.throws(() => its.sql.exec("DELETE FROM removed_objects"), /stays on record/);
  });

  test(`${make}: an upload that was deleted before its URL has expired is not called removed before that`, async (t) => {
    const rig = await start(t);
    if (rig === null) return;
    const { its, raw } = rig;
    const { cleaner } = its.app;
    const { id: confirmed } = await its.confirmedUpload("object");
    const { id: pending, uploadUrl } = await its.createUpload();
    assert.equal((await its.put(uploadUrl, "pending")).status, 200);
    const expiresAtMs = its.clock.now() + 900_000;
    for (const id of [confirmed, pending])
      assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
    await cleaner.runOnce();
    assert.deepEqual(await raw.objects(), []);
    for (const id of [confirmed, pending]) {
      const deletion = await deletionOf(its, id);
      assert.equal(deletion.object_removed_at, null);
      assert.equal(deletion.bytes_released, id === confirmed ? 6 : 0);
      assert.match(reasons(deletion).join(), /^staged_file: it was removed; whatever may still arrive/);
      assert.equal(deletion.waiting_for[0].next_attempt_at, new Date(expiresAtMs).toISOString());
    }
    its.clock.advance(900_000);
    await cleaner.runOnce();
    for (const id of [confirmed, pending]) {
      const { status, object_removed_at, waiting_for } = await deletionOf(its, id);
      assert.deepEqual(
        { status, object_removed_at, waiting_for },
        { status: "removed", object_removed_at: new Date(its.clock.now()).toISOString(), waiting_for: [] },
      );
    }
  });
}

test("a removal that fails shows its attempts, and nothing that the store said", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock, hooks } = its;
  const { id } = await its.confirmedUpload("object");
  const key = its.keyOf(id);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  hooks.refuse = (keys) =>
    new Map(
      keys.filter((other) => other === key).map((other) => [other, `AccessDenied: ${other} on http://10.0.0.1:9000`]),
    );
  for (let attempt = 1; attempt <= 3; attempt++) {
    await app.cleaner.runOnce();
    clock.advance(HOUR_MS);
  }
  const failing = await deletionOf(its, id);
  const words = "the last attempt to remove it failed; it is tried again";
  assert.deepEqual([failing.attempts - 1, failing.last_error, reasons(failing)], [3, words, [`file: ${words}`]]);
  its.heal();
  await app.cleaner.runOnce();
  const removed = await deletionOf(its, id);
  // Three times in vain, once with success, and the staging key.
  assert.deepEqual([removed.attempts, removed.last_error, removed.status], [5, null, "removed"]);
});

test("what a kill cut off, what is being removed, and a cleaner that is paused are told", async (t) => {
  const its = await startFaultyApp(t);
  const { app, sql, clock } = its;
  const { id } = await its.confirmedUpload("object");
  clock.advance(HOUR_MS);
  for (let pass = 0; pass < 2; pass++) await app.cleaner.runOnce();
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  sql.prepare("UPDATE object_removals SET taken_at_ms = ?").run(clock.now());
  assert.deepEqual(reasons(await deletionOf(its, id)), ["file: it is being removed at this moment"]);
  await app.core.removals.clearTaken();
  const cutOff = await deletionOf(its, id);
  assert.match(reasons(cutOff).join(), /the service stopped while it was being removed/);
  assert.equal(cutOff.last_error, cutOff.waiting_for[0].reason);
  Object.assign(app.cleaner, { pauseReason: () => "the store has seen a newer ledger" });
  assert.match(reasons(await deletionOf(its, id)).join(), /nothing is removed at present: the operator/);
});

test("the staging key of an upload that exists leaves no record; a late arrival of a deleted one is on it", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock, sql } = its;
  const records = sql.prepare<[], string>("SELECT upload_id FROM removed_objects").pluck();
  const { id } = await its.confirmedUpload("object");
  clock.advance(DAY_MS);
  for (let pass = 0; pass < 2; pass++) await app.cleaner.runOnce();
  assert.deepEqual(its.entries(), []);
  assert.deepEqual(records.all(), []);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  await app.cleaner.runOnce();
  assert.deepEqual(records.all(), [id]);

  const objectKey = `staging/${app.core.workspaces.installationId()}/${id}/${"a".repeat(32)}`;
  await app.core.removals.enterFound({ objectKey, uploadId: id, sizeBytes: 5, nowMs: clock.now() });
  assert.equal((await deletionOf(its, id)).object_removed_at, null);
  clock.advance(HOUR_MS);
  await app.cleaner.runOnce();
  const { object_removed_at, attempts } = await deletionOf(its, id);
  assert.deepEqual([object_removed_at, attempts], [new Date(clock.now()).toISOString(), 2]);
  // Of an id that nobody knows, nobody could ask.
  const strange = objectKey.replace(id, NEVER_WAS);
  await app.core.removals.enterFound({ objectKey: strange, uploadId: NEVER_WAS, sizeBytes: 5, nowMs: clock.now() });
  await app.cleaner.runOnce();
  assert.deepEqual(records.all(), [id]);
});

test("an expired upload's deletion is shown as well", async (t) => {
  const its = await startFaultyApp(t);
  const { id } = await its.staged("never confirmed");
  its.clock.advance(2 * DAY_MS);
  await its.app.cleaner.runOnce();
  await its.app.cleaner.runOnce();
  const { status, bytes_released, waiting_for } = await deletionOf(its, id);
  assert.deepEqual({ status, bytes_released, waiting_for }, { status: "removed", bytes_released: 0, waiting_for: [] });
});

test("a deletion is found, and a batch settled, by index, however many there are", async (t) => {
  const { dataDir, app } = await startFaultyApp(t);
  const parts = { uploads: app.core.uploads, installationId: "i", removed: { record: () => {}, find: () => null } };
  const plans = queryPlans(join(dataDir, DATABASE_FILE), (db) => {
    createDeletions(db, parts);
    createRemovedObjects(db);
    createRemovals(db, { releaseUrl: () => () => {}, recordRemoved: () => {} });
  });
  // At start alone, and with each failed pass: nothing is marked by an index.
  const few = /taken_at_ms = NULL, last_error = coalesce/;
  assert.ok(plans.length > 12);
  // Of one batch, which is grouped by its uploads.
  const ofBatch = /^(SCAN n|USE TEMP B-TREE FOR GROUP BY)$/gm;
  for (const { sql, steps: all } of plans) {
    const steps = sql.includes("json_each(:seqs)") ? all.replace(ofBatch, "") : all;
    if (!few.test(sql))
      assert.doesNotMatch(steps, /SCAN (?!CONSTANT|json_each|(\(subquery|uploads$))|TEMP B-TREE/m, `${sql}\n${steps}`);
  }
});

interface Scene {
  app: PeopleApp;
  owner: Person;
  viewer: Person;
  editor: Person;
  stranger: Person;
  workspace: string;
}

async function startScene(t: Parameters<typeof startPeopleApp>[0]): Promise<Scene> {
  const app = await startPeopleApp(t, { cleansInBackground: false });
  const [owner, viewer, editor, stranger] = await Promise.all(["o", "v", "e", "s"].map((name) => app.signIn(name)));
  assert.ok(owner && viewer && editor && stranger);
  const workspace = await app.makeWorkspace(owner);
  await app.join(workspace, viewer, "editor");
  await app.join(workspace, editor, "editor");
  return { app, owner, viewer, editor, stranger, workspace };
}

const ask = (person: Person, id: string): Promise<Answer> => person.call("GET", `/api/v1/uploads/${id}/deletion`);

/** A confirmed upload of someone in the workspace, deleted. */
async function deletedUpload({ app, workspace }: Scene, by: Person, confirms: boolean): Promise<string> {
  const id = await uploadAs(app, by, { workspace, bytes: "x" });
  if (confirms) {
    const body = { context_type: "workspace", context_id: workspace };
    assert.equal((await by.call("POST", `/api/v1/uploads/${id}`, { body })).status, 200);
  }
  assert.equal((await by.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  return id;
}

test("before and after the object is removed, in either state, the same people may ask; all others hear what they hear of no id", async (t) => {
  const scene = await startScene(t);
  const { app, owner, viewer, editor, stranger, workspace } = scene;
  const other = await app.addOwner();
  const ids: string[] = [];
  for (const confirms of [true, false]) ids.push(await deletedUpload(scene, viewer, confirms));
  const personal = await uploadAs(app, viewer);
  assert.equal((await viewer.call("DELETE", `/api/v1/uploads/${personal}`)).status, 200);
  await app.app.core.members.setRole("administrator", workspace, { userId: viewer.userId, role: "viewer" });

  const nothing = wordsOf(await ask(stranger, NEVER_WAS));
  const check = async (what: string): Promise<void> => {
    for (const id of ids) {
      // The viewer had made it.
      for (const person of [owner, viewer, editor]) assert.equal((await ask(person, id)).status, 200, what);
      assert.deepEqual(wordsOf(await ask(stranger, id)), nothing, what);
      const foreign = await app.call("GET", `/api/v1/uploads/${id}/deletion`, { key: other.key });
      assert.deepEqual(wordsOf(foreign), nothing, what);
    }
    assert.equal((await ask(viewer, personal)).status, 200, what);
    for (const person of [owner, editor]) assert.deepEqual(wordsOf(await ask(person, personal)), nothing, what);
  };
  await check("before");
  await app.app.cleaner.runOnce();
  await check("after");
  app.clock.advance(HOUR_MS);
  await app.app.cleaner.runOnce();
  await check("for good");
  const ofEditor = await deletedUpload(scene, editor, true);
  assert.deepEqual(wordsOf(await ask(viewer, ofEditor)), nothing, "a viewer could not have deleted another's");
  await app.app.core.members.remove("administrator", workspace, viewer.userId);
  assert.deepEqual(wordsOf(await ask(viewer, ids[0] ?? "")), nothing, "who is no longer a member");
});

test("an upload that exists has no deletion: 404 in words of its own, to those who could delete it alone", async (t) => {
  const scene = await startScene(t);
  const { app, viewer, stranger, workspace } = scene;
  const id = await uploadAs(app, viewer, { workspace });
  const answer = await ask(viewer, id);
  assert.equal(answer.status, 404);
  assert.match(answer.json.error.message, /not deleted: send a DELETE for it first/);
  assert.deepEqual(wordsOf(await ask(stranger, id)), wordsOf(await ask(stranger, NEVER_WAS)));
});

test("of a deleted workspace its owner may still ask, nobody else", async (t) => {
  const scene = await startScene(t);
  const { app, owner, editor, workspace } = scene;
  const before = await deletedUpload(scene, editor, true);
  const with_ = await uploadAs(app, editor, { workspace, bytes: "x" });
  assert.equal((await owner.call("DELETE", `/api/v1/workspaces/${workspace}`)).status, 200);
  await app.app.cleaner.runOnce();
  const nothing = wordsOf(await ask(editor, NEVER_WAS));
  for (const id of [before, with_]) {
    assert.equal((await ask(owner, id)).status, 200);
    assert.deepEqual(wordsOf(await ask(editor, id)), nothing);
  }
});
