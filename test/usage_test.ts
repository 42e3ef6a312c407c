import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { createUsage, type Usage } from "../lib/core/usage.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { type Json, startTestApp, type TestApp, type TestClock, testClock } from "./_app.ts";
import { queryPlans } from "./_query_plans.ts";
import { IS_S3 } from "./_test_store.ts";

const SUMMARY = "/api/v1/usage/summary";
const DAY_MS = 86_400_000;

/** A clock that stands still until it is told the time. */
function standingClock(start: string): TestClock & { set: (time: string) => void } {
  let nowMs = Date.parse(start);
  return {
    now: () => nowMs,
    monotonicNow: () => nowMs,
    advance: (ms) => {
      nowMs += ms;
    },
    setBy: (ms) => {
      nowMs += ms;
    },
    set: (time) => {
      nowMs = Date.parse(time);
    },
  };
}

/** A service whose objects are removed only when a test says so. */
function start(t: TestContext, options: Parameters<typeof startTestApp>[1] = {}): Promise<TestApp> {
  return startTestApp(t, { cleansInBackground: false, ...options });
}

async function summary({ call }: TestApp, query = "", key?: string): Promise<Json> {
  const answer = await call("GET", `${SUMMARY}${query}`, key === undefined ? {} : { key });
  assert.equal(answer.status, 200, answer.text);
  return answer.json.data;
}

const figures = (rows: Json[]) => rows.map(({ characters, lines }) => [characters, lines]);

test("the summary of an empty workspace has every field of the contract", async (t) => {
  const clock = standingClock("2026-03-31T10:00:00Z");
  const app = await start(t, { clock, quotaBytes: 1_000 });
  const { daily, activity, ...rest } = await summary(app);
  assert.deepEqual(rest, {
    range: "30d",
    activity_view: "daily",
    timezone: "UTC",
    period: { start: "2026-03-02T00:00:00.000Z", end: "2026-04-01T00:00:00.000Z" },
    credits: { used: 0, quota: null, percent: null },
    characters: { total: 0 },
    audio: { total_ms: 0 },
    corrected: { total: 0 },
    lines: { total: 0, avg_chars_per_line: null },
    runs: { total: 0, completed: 0, failed: 0, cancelled: 0, running: 0, pending: 0, paused: 0 },
    storage: {
      bytes_used: 0,
      bytes_quota: 1_000,
      percent: 0,
      uploads: 0,
      uploads_pending: 0,
      bytes_pending_stated: 0,
      bytes_pending_stored: 0,
      uploads_held: 0,
      bytes_awaiting_removal: 0,
      oldest_removal_age_seconds: null,
    },
  });
  const { buckets, ...chart } = activity;
  assert.deepEqual(chart, {
    view: "daily",
    bucket_unit: "day",
    range_label: "Last 7 days",
    total: 0,
    avg: 0,
    peak: null,
  });
  assert.deepEqual(buckets.at(-1), {
    label: "Tue",
    start: "2026-03-31T00:00:00.000Z",
    end: "2026-04-01T00:00:00.000Z",
    ...{ credits: 0, characters: 0, lines: 0, runs: 0 },
  });
  assert.equal(daily.length, 30);
  assert.deepEqual(daily[0], { date: "2026-03-02", credits: 0, characters: 0, lines: 0, runs: 0 });
  assert.equal(daily[29].date, "2026-03-31");
});

test("a script counts on the local day of its confirm, across a change of the clocks", async (t) => {
  const clock = standingClock("2026-03-28T22:30:00Z");
  const app = await start(t, { clock });
  const script = { filename: "a.txt", category: "script" };
  // In Berlin: 28 March 23:30, 29 March 00:30 and 23:30 (of 23 hours), 30 March 00:30.
  for (const [time, text] of [
    ["2026-03-28T22:30:00Z", "1"],
    ["2026-03-28T23:30:00Z", "22\n22"],
    ["2026-03-29T21:30:00Z", "4444"],
    ["2026-03-29T22:30:00Z", "88888888"],
  ] as const) {
    clock.set(time);
    await app.confirmedUpload(text, script);
  }
  const last3 = async (timezone: string) => figures((await summary(app, `?timezone=${timezone}`)).daily.slice(-3));
  assert.deepEqual(await last3("Europe/Berlin"), [
    [1, 1],
    [8, 3],
    [8, 1],
  ]);
  assert.deepEqual(await last3("UTC"), [
    [0, 0],
    [5, 3],
    [12, 2],
  ]);
  // In New York all of it is 28 and 29 March.
  assert.deepEqual(await last3("America/New_York"), [
    [0, 0],
    [5, 3],
    [12, 2],
  ]);

  const { characters, lines, activity, daily } = await summary(app, "?timezone=Europe/Berlin");
  assert.equal(characters.total, 17);
  assert.deepEqual(lines, { total: 5, avg_chars_per_line: 3.4 });
  assert.deepEqual(figures(activity.buckets.slice(-3)), figures(daily.slice(-3)));
  assert.deepEqual([activity.total, activity.avg, activity.peak], [0, 0, null], "these count credits");
});

test("a script counts by the time of its confirm, not of its create", async (t) => {
  const clock = standingClock("2026-05-01T23:59:00Z");
  const app = await start(t, { clock });
  const { id, uploadUrl } = await app.createUpload({ filename: "a.txt", category: "script" });
  await app.put(uploadUrl, "abc");
  clock.set("2026-05-02T00:01:00Z");
  assert.equal((await app.confirm(id)).status, 200);
  assert.deepEqual(figures((await summary(app)).daily.slice(-2)), [
    [0, 0],
    [3, 1],
  ]);
});

test("ranges and views count what was confirmed in them, to the day", async (t) => {
  const clock = standingClock("2026-05-13T12:00:00Z");
  const app = await start(t, { clock });
  // One script on each of these days, of 1, 10, 100 … characters, so that a sum tells which were counted.
  const days = ["2026-05-13", "2026-05-07", "2026-05-06", "2026-04-14", "2026-04-13", "2026-02-23", "2026-02-22"];
  for (const [i, day] of days.entries()) {
    clock.set(`${day}T12:00:00Z`);
    await app.confirmedUpload("x".repeat(10 ** i), { filename: "a.txt", category: "script" });
  }
  clock.set("2026-05-13T13:00:00Z");
  const sums = async (query: string) => {
    const { characters, activity, daily, period } = await summary(app, query);
    const sum = (rows: Json[]) => rows.reduce((total, row) => total + row.characters, 0);
    assert.equal(sum(daily), characters.total);
    assert.equal(`${daily[0].date}T00:00:00.000Z`, period.start);
    return [characters.total, sum(activity.buckets)];
  };
  assert.deepEqual(await sums("?range=30d&activity_view=daily"), [1_111, 11], "30 days back to 14 April, 7 to 7 May");
  assert.deepEqual(
    await sums("?range=60d&activity_view=weekly"),
    [11_111, 111_111],
    "12 weeks back to Monday 23 February",
  );
  assert.deepEqual(await sums("?range=90d&activity_view=monthly"), [1_111_111, 1_111_111]);
  const { activity } = await summary(app, "?activity_view=monthly");
  assert.deepEqual(figures(activity.buckets.slice(-4)), [
    [1_100_000, 2],
    [0, 0],
    [11_000, 2],
    [111, 3],
  ]);
});

test("only confirmed scripts of the workspace have characters and lines", async (t) => {
  const app = await start(t);
  const other = await app.addOwner();
  await app.confirmedUpload("hello\nworld", { filename: "a.txt", category: "script" });
  const gone = await app.confirmedUpload("gone", { filename: "b.txt", category: "script" });
  await app.confirmedUpload("not counted", { filename: "c.srt", category: "script" });
  await app.confirmedUpload("not counted", { filename: "d.txt", category: "file" });
  await app.confirmedUpload("of another", { filename: "e.txt", category: "script", owner: other });
  const { uploadUrl } = await app.createUpload({ filename: "f.txt", category: "script" });
  await app.put(uploadUrl, "never confirmed");
  await app.call("DELETE", `/api/v1/uploads/${gone.id}`);

  const own = await summary(app);
  assert.deepEqual([own.characters, own.lines.total], [{ total: 10 }, 2]);
  const others = await summary(app, "", other.key);
  assert.deepEqual([others.characters, others.lines.total], [{ total: 10 }, 1]);
});

test("the storage figures follow an upload from create to the removal of its object", async (t) => {
  const clock = testClock();
  const app = await start(t, { clock, quotaBytes: 1_000 });
  const other = await app.addOwner();
  const storage = async (key?: string) => (await summary(app, "", key)).storage;
  const empty = await storage(other.key);
  // An S3 server takes PUTs to the URLs of deleted and confirmed uploads until they expire.
  const held = (figures: Json, uploads: number) => (IS_S3 ? { ...figures, uploads_held: uploads } : figures);

  await app.createUpload({ size_bytes: 300 });
  const { id: unstated } = await app.createUpload();
  assert.deepEqual(await storage(), { ...empty, uploads_pending: 2, bytes_pending_stated: 300 });

  const kept = await app.confirmedUpload("k".repeat(125));
  const first = await app.confirmedUpload("f".repeat(200));
  const used = { ...empty, bytes_used: 325, percent: 32.5, uploads: 2, uploads_pending: 2, bytes_pending_stated: 300 };
  // Nothing but the bytes themselves: on an S3 server the staged objects lie there besides until they are removed.
  await app.app.cleaner.runOnce();
  assert.deepEqual(await storage(), held(used, 2));

  await app.call("DELETE", `/api/v1/uploads/${first.id}`);
  await app.call("DELETE", `/api/v1/uploads/${unstated}`);
  clock.advance(90_500);
  await app.call("DELETE", `/api/v1/uploads/${kept.id}`);
  const after = await storage();
  const age = after.oldest_removal_age_seconds;
  assert.ok(age >= 90 && age < 200, `the oldest was deleted 90 seconds ago, not ${age}`);
  const left = { ...empty, uploads_pending: 1, bytes_pending_stated: 300 };
  assert.deepEqual(after, held({ ...left, bytes_awaiting_removal: 325, oldest_removal_age_seconds: age }, 3));
  assert.deepEqual(await storage(other.key), empty, "another workspace sees nothing of it");
  const others = await app.confirmedUpload("o".repeat(40), { owner: other });
  await app.call("DELETE", `/api/v1/uploads/${others.id}`, { key: other.key });
  assert.deepEqual(
    [(await storage()).bytes_awaiting_removal, (await storage(other.key)).bytes_awaiting_removal],
    // On an S3 server its staged copy lies there too.
    [325, IS_S3 ? 80 : 40],
  );

  await app.app.cleaner.runOnce();
  assert.deepEqual(await storage(), held(left, 3));
});

test("what a failed confirm left behind does not count as given back", async (t) => {
  const app = await start(t);
  const { id } = await app.confirmedUpload("12345");
  await app.app.cleaner.runOnce();
  // As a confirm of this upload enters it that had to be given up, before another one succeeded.
  const leftKey = `final/${app.app.core.workspaces.installationId()}/${id}/${"0".repeat(32)}`;
  app.sql
    .prepare(
      "INSERT INTO object_removals (object_key, upload_id, size_bytes, entered_at_ms, due_at_ms) VALUES (?, ?, 5, 1, 9e15)",
    )
    .run(leftKey, id);
  assert.equal((await summary(app)).storage.bytes_awaiting_removal, 0);
  await app.call("DELETE", `/api/v1/uploads/${id}`);
  assert.equal((await summary(app)).storage.bytes_awaiting_removal, 5);
});

test("the share of the quota passes 100 where the quota was lowered, and is null where there is none", async (t) => {
  const app = await start(t, { quotaBytes: 1_000 });
  await app.confirmedUpload("x".repeat(30));
  const percentOf = async (quota: number) => {
    await app.app.core.workspaces.setQuota(app.owner.workspaceId, quota);
    return (await summary(app)).storage.percent;
  };
  assert.deepEqual([await percentOf(90), await percentOf(20), await percentOf(0)], [33.33, 150, null]);
});

test("activity is a valid empty feed, by-language a valid empty table", async (t) => {
  const clock = standingClock("2026-03-31T10:00:00Z");
  const { call, owner } = await start(t, { clock });
  for (const query of [
    "",
    "?type=workflow_run&range=90d&timezone=Asia/Kathmandu&cursor=x",
    `?user_id=${owner.userId}`,
  ]) {
    const { status, json } = await call("GET", `/api/v1/usage/activity${query}`);
    assert.equal(status, 200);
    assert.deepEqual([json.data, json.pagination], [[], { next: null, prev: null, limit: 20 }]);
  }
  assert.equal((await call("GET", "/api/v1/usage/activity?limit=100")).json.pagination.limit, 100);
  const stranger = await call("GET", "/api/v1/usage/activity?user_id=01900000-0000-7000-8000-0000000000f1");
  assert.equal(stranger.status, 404);
  assert.equal(stranger.json.error.details[0].field, "user_id");

  const byLanguage = async (query: string) => (await call("GET", `/api/v1/usage/by-language${query}`)).json.data;
  const none = { languages: [], total_credits: 0, untagged_credits: 0 };
  assert.deepEqual(await byLanguage("?range=60d&timezone=Europe/Berlin"), {
    ...{ range: "60d", activity_view: null, timezone: "Europe/Berlin" },
    period: { start: "2026-01-30T23:00:00.000Z", end: "2026-03-31T22:00:00.000Z" },
    ...none,
  });
  assert.deepEqual(await byLanguage("?range=60d&activity_view=monthly"), {
    ...{ range: null, activity_view: "monthly", timezone: "UTC" },
    period: { start: "2025-04-01T00:00:00.000Z", end: "2026-04-01T00:00:00.000Z" },
    ...none,
  });
});

test("a parameter that cannot be is answered with 422 and its name", async (t) => {
  const { call } = await start(t);
  const common = ["range=31d", "range=", "range=30d&range=60d", "timezone=Mars/Base", "timezone=%2B01:00", "timezone="];
  const views = ["activity_view=hourly", "activity_view="];
  const limits = ["limit=0", "limit=101", "limit=x", "limit=-1"];
  for (const [path, queries] of Object.entries({
    summary: [...common, ...views],
    "by-language": [...common, ...views],
    activity: [
      ...common,
      ...limits,
      "type=upload",
      "user_id=x",
      "cursor=",
      `cursor=${"x".repeat(513)}`,
      "cursor=a&cursor=b",
    ],
    "storage-events": [
      ...limits,
      "kind=refund",
      "upload_id=x",
      "cursor=x",
      "cursor=0",
      "cursor=-1",
      "cursor=1e3",
      "cursor=",
    ],
  })) {
    for (const query of queries) {
      const { status, json } = await call("GET", `/api/v1/usage/${path}?${query}`);
      assert.equal(status, 422, `${path}?${query}`);
      assert.equal(json.error.code, "VALIDATION_ERROR");
      assert.equal(json.error.details[0].field, query.split("=")[0]);
      assert.match(json.error.message, new RegExp(`^Invalid ${query.split("=")[0]}: `));
    }
  }
});

test("usage asks for workspace:read; limits, plan and credits for any key", async (t) => {
  const { app, call, owner, addOwner } = await start(t, { quotaBytes: 1_234 });
  const { apiKey: key } = await app.core.keys.create({ ...owner, scopes: ["uploads:write"] });
  for (const path of ["summary", "activity", "by-language", "storage-events"]) {
    const { status, json } = await call("GET", `/api/v1/usage/${path}`, { key });
    assert.deepEqual([status, json.error?.code], [403, "FORBIDDEN"], path);
    assert.equal((await call("GET", `/api/v1/usage/${path}`, { key: "" })).status, 401);
    assert.equal((await call("GET", `/api/v1/usage/${path}`)).status, 200);
  }
  const limits = await call("GET", "/api/v1/users/me/limits", { key });
  assert.equal(limits.json.data.storage_bytes_per_workspace, 1_234);
  for (const field of ["monthly_credits", "workspaces_per_owner", "concurrent_runs_per_user"]) {
    assert.ok(Number.isSafeInteger(limits.json.data[field]), field);
  }
  const plan = await call("GET", `/api/v1/workspaces/${owner.workspaceId.toUpperCase()}/plan`, { key });
  assert.deepEqual(plan.json.data, limits.json.data);
  const { balance, plan_grant, plan_tier } = (await call("GET", "/api/v1/users/me/credits", { key })).json.data;
  assert.deepEqual({ balance, plan_grant, plan_tier }, { balance: 0, plan_grant: 0, plan_tier: "custom" });

  const other = await addOwner();
  const foreign = await call("GET", `/api/v1/workspaces/${other.workspaceId}/plan`);
  const unknown = await call("GET", "/api/v1/workspaces/01900000-0000-7000-8000-000000000000/plan");
  assert.deepEqual([foreign.status, unknown.status], [404, 404]);
  assert.deepEqual(foreign.json.error, unknown.json.error);
  assert.equal((await call("GET", "/api/v1/workspaces/x/plan")).json.error.details[0].field, "workspace_id");
});

// Goal: reading in steps changes no figure, wherever the steps end.
// Method: make them so short that every kind of row needs several, also rows of one and the same millisecond.
test("figures are the same in steps of any length", async (t) => {
  const clock = standingClock("2026-05-13T01:00:00Z");
  const app = await start(t, { clock });
  const ids: string[] = [];
  for (let i = 0; i < 12; i++) {
    // Four at a time, 11 hours apart.
    if (i % 4 === 0) clock.advance(11 * 3_600_000);
    const { id } = await app.confirmedUpload("x".repeat(i + 1), { filename: "a.txt", category: "script" });
    ids.push(id);
  }
  for (const id of ids.slice(0, 5)) await app.call("DELETE", `/api/v1/uploads/${id}`);
  await app.createUpload({ size_bytes: 7 });
  const { workspaceId } = app.owner;
  const dayMs = Math.floor(clock.now() / DAY_MS) * DAY_MS;
  const spans = [
    { startMs: dayMs - DAY_MS, endMs: dayMs },
    { startMs: dayMs, endMs: dayMs + DAY_MS },
    { startMs: dayMs - 10 * DAY_MS, endMs: dayMs + DAY_MS },
    { startMs: dayMs - 10 * DAY_MS, endMs: dayMs - 9 * DAY_MS },
  ];
  for (const stepRows of [1, 2, 3, 4, 5, 1_000]) {
    const usage = createUsage(app.app.core.db, { stepRows });
    assert.deepEqual(await usage.scriptFigures(workspaceId, spans), [
      { characters: 6 + 7 + 8, lines: 3 },
      { characters: 9 + 10 + 11 + 12, lines: 4 },
      { characters: 63, lines: 7 },
      { characters: 0, lines: 0 },
    ]);
    const { oldestRemovalEnteredAtMs, ...storage } = await usage.storageFigures(workspaceId);
    assert.deepEqual(storage, {
      ...{ bytesUsed: 63, bytesQuota: 10_000_000, uploads: 7, uploadsPending: 1, bytesPendingStated: 7 },
      ...{ bytesPendingStored: 0, uploadsHeld: 0 },
      bytesAwaitingRemoval: 1 + 2 + 3 + 4 + 5,
    });
    const released = app.sql.prepare("SELECT min(at_ms) FROM storage_events WHERE kind = 'release'").pluck().get();
    assert.equal(oldestRemovalEnteredAtMs, released);
  }
});

test("a long outbox is not read anew for each request, a short one is", async (t) => {
  const app = await start(t);
  const ids = [(await app.confirmedUpload("1")).id, (await app.confirmedUpload("22")).id];
  const removeNext = () => app.sql.prepare("DELETE FROM uploads WHERE id = ?").run(ids.shift());
  const awaiting = async (usage: Usage) => (await usage.storageFigures(app.owner.workspaceId)).bytesAwaitingRemoval;
  const inOneStep = createUsage(app.app.core.db, { outboxKeptFactor: 10_000 });
  const kept = createUsage(app.app.core.db, { stepRows: 1, outboxKeptFactor: 10_000 });
  const forgotten = createUsage(app.app.core.db, { stepRows: 1, outboxKeptFactor: 0 });
  removeNext();
  for (const usage of [inOneStep, kept, forgotten]) assert.equal(await awaiting(usage), 1);
  removeNext();
  assert.deepEqual([await awaiting(inOneStep), await awaiting(kept)], [3, 1]);
  while ((await awaiting(forgotten)) === 1) await nextTurn();
  assert.equal(await awaiting(kept), 1);
});

test("no figure needs to look at rows one by one", async (t) => {
  const { dataDir } = await start(t);
  const plansOf = (urlsOutliveUploads: boolean) =>
    queryPlans(join(dataDir, DATABASE_FILE), (db) => createUsage(db, { urlsOutliveUploads }));
  const plans = plansOf(false);
  assert.equal(plans.length, 9);
  const planOf = (part: string) => plans.filter(({ sql }) => sql.includes(part)).map(({ steps }) => steps);
  const byConfirm =
    "SEARCH uploads USING COVERING INDEX uploads_scripts_by_confirm (workspace_id=? AND updated_at_ms>? AND updated_at_ms<?)";
  assert.deepEqual(planOf("char_count IS NOT NULL"), [byConfirm, byConfirm]);
  assert.match(
    planOf("max(id)")[0] ?? "",
    /SEARCH uploads USING COVERING INDEX uploads_by_workspace \(workspace_id=\? AND id>\?\)/,
  );
  assert.match(
    planOf("stated_size_bytes")[0] ?? "",
    /USING COVERING INDEX uploads_pending_by_owner \(workspace_id=\?\)/,
  );
  const outbox = planOf("GLOB")[0] ?? "";
  assert.match(outbox, /SEARCH r USING INTEGER PRIMARY KEY \(rowid>\? AND rowid<\?\)/);
  assert.match(outbox, /SEARCH e USING INDEX storage_events_once \(upload_id=\? AND kind=\?\)/);
  for (const { steps } of [...plans, ...plansOf(true)].filter(({ sql }) => sql.includes("owner_id"))) {
    assert.match(steps, /SEARCH r USING INTEGER PRIMARY KEY \(rowid>\? AND rowid<\?\)/);
  }
  for (const { sql, steps } of plans) assert.doesNotMatch(steps, /^SCAN (?!\(subquery)/m, sql);
});
