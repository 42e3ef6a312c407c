import assert from "node:assert/strict";
import { test } from "node:test";
import { DELETED_OVERDUE_MS, OVERDUE_MS } from "../lib/core/outbox.ts";
import { checkOutbox } from "../lib/doctor/database.ts";
import { createDoctorQueries } from "../lib/doctor/queries.ts";
import { createReport } from "../lib/doctor/report.ts";
import { createReadiness } from "../lib/routes/readiness.ts";
import { DAY_MS, type FaultyApp, startFaultyApp } from "./_faulty_app.ts";
import { noAnswer } from "./_faulty_store.ts";
import { scrape } from "./_metrics_page.ts";

// Goal: doctor, /metrics and /ready agree on since when the oldest entry could have been removed, whatever has put it off.

const HOUR_MS = 3_600_000;

/** Since when the oldest entry could have been removed by each of the three; null if it is no matter yet. */
async function toldBy({ app, clock }: FaultyApp) {
  const report = createReport();
  const nowMs = clock.now();
  await checkOutbox(report, { queries: createDoctorQueries(app.core.db), outbox: app.core.outbox, nowMs });
  const doctor = report.findings.map(({ what }) => /the oldest for (\S+) hours/.exec(what)?.[1]).find(Boolean) ?? null;
  const page = await scrape(app.metricsUrl);
  // Each time a new one, because it keeps what it has seen for some seconds of real time.
  const ready = await createReadiness(app)(nowMs);
  return {
    doctorHours: doctor === null ? null : Number(doctor),
    metricsHours: Math.round(page.value("stowage_outbox_oldest_due_age_seconds") / 360) / 10,
    ready: ready.removals ?? null,
    sinceMs: (await app.core.outbox.read(nowMs)).oldestDueSinceMs,
    deletedOverdue: page.value("stowage_deleted_objects_overdue"),
  };
}

/** A service whose outbox holds the object of one deleted upload, due at once, and nothing else. */
async function startWithOneDeleted(
  t: Parameters<typeof startFaultyApp>[0],
): Promise<FaultyApp & { enteredAtMs: number }> {
  const its = await startFaultyApp(t);
  const { id } = await its.confirmedUpload("object");
  its.clock.advance(HOUR_MS);
  // The staging key goes, for the second time too.
  for (let pass = 0; pass < 2; pass++) await its.app.cleaner.runOnce();
  assert.deepEqual(its.entries(), []);
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  const enteredAtMs = its.clock.now();
  // Triggers have the system's clock, the service here has its own.
  its.sql.prepare("UPDATE object_removals SET entered_at_ms = ?").run(enteredAtMs);
  return { ...its, enteredAtMs };
}

const PUT_OFF: Record<string, (its: FaultyApp) => Promise<void>> = {
  "its removal failed, and is repeated later": async ({ app, hooks }) => {
    hooks.refuse = (keys) => new Map(keys.map((key) => [key, "no"]));
    await app.cleaner.runOnce();
  },
  "the store was down": async ({ app, hooks }) => {
    hooks.before = () => {
      throw noAnswer();
    };
    await app.cleaner.runOnce();
  },
  "it was taken by a process that was killed": async ({ app, sql, clock }) => {
    sql.prepare("UPDATE object_removals SET taken_at_ms = ?").run(clock.now());
    await app.core.removals.clearTaken();
  },
  "it is taken": async ({ sql, clock }) => {
    sql.prepare("UPDATE object_removals SET taken_at_ms = ?").run(clock.now());
  },
  "a hand postponed it": async ({ sql }) => {
    sql.exec("UPDATE object_removals SET due_at_ms = 9e15");
  },
};

for (const [reason, putOff] of Object.entries(PUT_OFF)) {
  test(`an entry is overdue since it could first have been removed, for doctor, metrics and ready alike: ${reason}`, async (t) => {
    const its = await startWithOneDeleted(t);
    const told = () => toldBy(its);
    its.clock.advance(9 * HOUR_MS);
    await putOff(its);
    its.clock.advance(HOUR_MS);
    const ready = `overdue since ${new Date(its.enteredAtMs).toISOString()}`;
    const expected = { doctorHours: 10, metricsHours: 10, ready, sinceMs: its.enteredAtMs, deletedOverdue: 0 };
    assert.deepEqual(await told(), expected);
    its.clock.advance(DELETED_OVERDUE_MS - 10 * HOUR_MS);
    assert.deepEqual(await told(), { ...expected, doctorHours: 24, metricsHours: 24, deletedOverdue: 1 });
    its.sql.exec("UPDATE object_removals SET due_at_ms = 0, taken_at_ms = NULL");
    its.heal();
    await its.app.cleaner.runOnce();
    assert.deepEqual(await told(), {
      ...{ doctorHours: null, metricsHours: 0, ready: null, sinceMs: null, deletedOverdue: 0 },
    });
  });
}

test("what is due for no longer than an hour is no matter for doctor and ready", async (t) => {
  const its = await startWithOneDeleted(t);
  its.clock.advance(OVERDUE_MS);
  const { doctorHours, ready, metricsHours } = await toldBy(its);
  assert.deepEqual({ doctorHours, ready, metricsHours }, { doctorHours: null, ready: null, metricsHours: 1 });
});

test("a second removal and a lease count from their time, also after they failed", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock, sql } = its;
  await its.confirmedUpload("object");
  await app.cleaner.runOnce();
  const dueAtMs = Number(sql.prepare("SELECT due_at_ms FROM object_removals").pluck().get());
  const since = async (nowMs: number) => (await app.core.outbox.read(nowMs)).oldestDueSinceMs;
  assert.equal(await since(dueAtMs - 1), null);
  assert.equal(await since(dueAtMs), dueAtMs);
  clock.advance(dueAtMs + 1 - clock.now());
  its.hooks.refuse = (keys) => new Map(keys.map((key) => [key, "no"]));
  await app.cleaner.runOnce();
  assert.equal(await since(clock.now()), dueAtMs);
  // The upload still exists: what waits is no one's deletion.
  clock.advance(2 * DAY_MS);
  assert.equal((await app.core.outbox.read(clock.now())).deletedOverdue, 0);
  its.heal();
  await app.cleaner.runOnce();
  assert.deepEqual(its.entries(), []);

  const { id } = await its.createUpload();
  const leaseMs = 60_000;
  await app.core.uploads.reserveFinalKey(id, { sizeBytes: 1, leaseMs });
  const leasedAtMs = clock.now();
  assert.equal(await since(leasedAtMs + leaseMs - 1), null);
  assert.equal(await since(leasedAtMs + leaseMs), leasedAtMs + leaseMs);
});

test("what a deleted upload had staged counts as overdue too, though the deletion did not enter it", async (t) => {
  const its = await startFaultyApp(t);
  const { app, clock } = its;
  const { id } = await its.confirmedUpload("object");
  its.hooks.refuse = (keys) => new Map(keys.filter((key) => key.startsWith("staging/")).map((key) => [key, "no"]));
  await app.cleaner.runOnce();
  clock.advance(2 * DAY_MS);
  const overdue = async () => (await app.core.outbox.read(clock.now())).deletedOverdue;
  assert.equal(await overdue(), 0, "its upload still exists");
  assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  await app.cleaner.runOnce();
  assert.equal(its.entries().length, 1);
  assert.equal(await overdue(), 1);
});
