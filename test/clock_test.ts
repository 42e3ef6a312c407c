import assert from "node:assert/strict";
import { test } from "node:test";
import { startTestApp } from "./_app.ts";
import { DAY_MS, startFaultyApp, stillClock } from "./_faulty_app.ts";

const HOUR_MS = 3_600_000;

test("a clock that is set two days on, and back, expires no upload and loses nothing that is confirmed", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock } = its;
  const pending = await its.staged("pending");
  const confirmed = await its.confirmedUpload("confirmed");

  clock.setBy(2 * DAY_MS);
  assert.equal((await app.cleaner.runOnce()).expired, 0);
  clock.advance(HOUR_MS / 2);
  assert.equal((await app.cleaner.runOnce()).expired, 0);
  const meanwhile = await its.confirmedUpload("confirmed in the future");
  clock.setBy(-2 * DAY_MS);
  assert.equal((await app.cleaner.runOnce()).expired, 0);
  its.check();

  // Being set back is one more jump: from it on the clock is distrusted for an hour.
  clock.advance(HOUR_MS - 60_000);
  assert.equal((await app.cleaner.runOnce()).expired, 0);
  clock.advance(120_000);
  assert.equal((await app.cleaner.runOnce()).expired, 0);
  assert.equal((await its.confirm(pending.id)).status, 200);
  assert.equal(its.bytesOf(confirmed.id), "confirmed");
  assert.equal(its.bytesOf(meanwhile.id), "confirmed in the future");
  await its.checkEnd();
});

test("after a jump of the clock expiry rests for an hour and then goes on", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock } = its;
  const { id } = await its.staged("pending");
  clock.setBy(2 * DAY_MS);
  assert.equal((await app.cleaner.runOnce()).expired, 0);
  clock.advance(HOUR_MS - 60_000);
  assert.equal((await app.cleaner.runOnce()).expired, 0);
  assert.equal(its.statusOf(id), "pending");
  clock.advance(120_000);
  assert.equal((await app.cleaner.runOnce()).expired, 1);
  assert.equal(its.statusOf(id), undefined);
  await its.checkEnd();
});

test("time that goes by evenly is no jump, however much of it", async (t) => {
  const its = await startFaultyApp(t);
  await its.staged("pending");
  its.clock.advance(30 * DAY_MS);
  assert.equal((await its.app.cleaner.runOnce()).expired, 1);
  await its.checkEnd();
});

test("a clock that is set while rows are being expired does not expire those that were young", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock } = its;
  await its.staged("old");
  clock.advance(DAY_MS);
  // The first pass of a process first clears marks: the clock is to be set in a later one, between its steps.
  clock.setBy(-60_000);
  assert.equal((await app.cleaner.runOnce()).expired, 0);
  clock.setBy(60_000);
  const young = await its.staged("young");
  const pass = app.cleaner.runOnce();
  // The pass has asked the clock and waits for the database.
  clock.setBy(2 * DAY_MS);
  assert.equal((await pass).expired, 1);
  assert.equal(its.statusOf(young.id), "pending");
  clock.setBy(-2 * DAY_MS);
  await its.checkEnd();
});

test("removals go on while the clock is not trusted, and nothing that a row names is touched", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock } = its;
  const deleted = await its.confirmedUpload("deleted");
  const kept = await its.confirmedUpload("kept");
  const pending = await its.staged("pending");
  clock.setBy(2 * DAY_MS);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${deleted.id}`)).status, 200);
  await app.cleaner.runOnce();
  assert.deepEqual(its.files().sort(), [its.keyOf(kept.id), its.keyOf(pending.id)].sort());
  assert.deepEqual(its.entries(), []);
  clock.setBy(-2 * DAY_MS);
  assert.equal((await its.confirm(pending.id)).status, 200);
  assert.equal((await its.call("GET", `/api/v1/uploads/${pending.id}`)).json.data.size_bytes, 7);
  await its.checkEnd();
  assert.equal(its.bytesOf(kept.id), "kept");
});

test("a clock that is set back makes entries wait, and forgets none", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock } = its;
  its.hooks.refuse = (keys) => new Map(keys.map((key) => [key, "the store refused"]));
  const { id } = await its.confirmedUpload("deleted");
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  await app.cleaner.runOnce();
  clock.setBy(-2 * DAY_MS);
  its.heal();
  await app.cleaner.runOnce();
  its.check();
  clock.setBy(2 * DAY_MS);
  await its.checkEnd();
  assert.deepEqual(its.files(), []);
});

test("a clock that differs from the store's by more than 5 minutes expires nothing and trusts no age", async (t) => {
  let skewMs: number | null = null;
  const its = await startTestApp(t, {
    clock: stillClock(),
    cleansInBackground: false,
    wrapStore: (objects) => ({ ...objects, clockSkewMs: () => skewMs }),
  });
  const { app, clock } = its;
  const expired = async () => (await app.cleaner.runOnce()).expired;
  await its.createUpload();
  clock.advance(2 * DAY_MS);
  skewMs = -301_000;
  assert.equal(await expired(), 0);
  skewMs = 301_000;
  assert.equal(await expired(), 0);
  skewMs = -299_000;
  assert.equal(await expired(), 1);
});
