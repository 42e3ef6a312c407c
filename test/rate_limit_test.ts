import assert from "node:assert/strict";
import { test } from "node:test";
import { createRateLimit } from "../lib/auth/rate_limit.ts";
import { type Answer, startTestApp, type TestApp } from "./_app.ts";
import { stillClock } from "./_faulty_app.ts";
import { startPeopleApp } from "./_people.ts";

const WHOAMI = "/api/v1/auth/whoami";

/** A limit on a clock that stands still until it is moved. */
function onStillClock(defaultPerMin: number, callersHeldMax = 100) {
  const clock = stillClock();
  const limit = createRateLimit({ defaultPerMin, monotonicNow: clock.monotonicNow, callersHeldMax });
  /** How many requests pass at once. */
  function passing(callerId: string, ownPerMin: number | null = null): number {
    let passed = 0;
    while (limit.take(callerId, ownPerMin) === 0) passed++;
    return passed;
  }
  return { ...limit, ...clock, passing };
}

function assertLimited(answer: Answer, message: RegExp): number {
  assert.equal(answer.status, 429, answer.text);
  assert.equal(answer.json.error.code, "RATE_LIMITED");
  assert.match(answer.json.error.message, message);
  const retryAfter = String(answer.headers["retry-after"]);
  assert.match(retryAfter, /^[1-9]\d*$/, "clients take no other form, and no zero");
  return Number(retryAfter);
}

for (const perMin of [1, 7, 60, 1_001, 100_000]) {
  test(`${perMin} a minute: so many at once, then one for each share of a minute, and no saving up`, () => {
    const its = onStillClock(perMin);
    assert.equal(its.passing("a"), perMin);
    let passed = 0;
    // A hundred minutes in odd steps: nothing is lost to rounding, and nothing gained.
    for (let step = 0; step < 6_000; step++) {
      its.advance(1_000);
      passed += its.passing("a");
    }
    assert.ok(Math.abs(passed - 100 * perMin) <= 1, `${passed} in 100 minutes`);
    its.advance(60 * 60_000);
    assert.equal(its.passing("a"), perMin);
  });
}

test("who waits as long as they are told is let through, and not a second earlier", () => {
  for (const perMin of [1, 7, 59, 60, 61, 600]) {
    const its = onStillClock(perMin);
    its.passing("a");
    for (let round = 0; round < 20; round++) {
      const waitSeconds = its.take("a", null);
      assert.ok(Number.isInteger(waitSeconds) && waitSeconds >= 1 && waitSeconds <= 60, `${waitSeconds} s`);
      its.advance(waitSeconds * 1_000 - 1_001);
      if (waitSeconds > 1) assert.ok(its.take("a", null) > 0);
      its.advance(1_001);
      assert.equal(its.take("a", null), 0);
      its.passing("a");
    }
  }
});

test("what is refused uses nothing: who never stops asking gets no less than who waits", () => {
  const its = onStillClock(60);
  its.passing("a");
  for (let i = 0; i < 10_000; i++) assert.ok(its.take("a", null) > 0);
  its.advance(1_000);
  assert.equal(its.passing("a"), 1);
});

test("callers do not share: one that uses all of its allowance leaves the others theirs", () => {
  const its = onStillClock(10);
  its.passing("a");
  assert.equal(its.passing("b"), 10);
  assert.equal(its.passing("c", 3), 3);
});

test("a limit of one's own goes before the default, also as none at all", () => {
  const its = onStillClock(2);
  assert.equal(its.passing("a", 5), 5);
  for (let i = 0; i < 1_000; i++) assert.equal(its.take("b", 0), 0);
  assert.deepEqual([its.limitOf(5), its.limitOf(null), its.limitOf(0)], [5, 2, 0]);
});

test("a limit that is changed holds from the next request on, for what is left of the minute", () => {
  const its = onStillClock(0);
  assert.equal(its.passing("a", 100), 100);
  assert.ok(its.take("a", 10) > 0);
  its.advance(30_000);
  assert.equal(its.passing("a", 10), 5, "half a minute is back, of whatever a minute is now");
  its.advance(30_000);
  assert.equal(its.passing("a", 1_000), 500);
});

test("without a limit the clock is not asked and nothing is remembered", () => {
  const limit = createRateLimit({
    defaultPerMin: 0,
    monotonicNow: () => {
      throw new Error("The clock was asked");
    },
  });
  for (let i = 0; i < 100; i++) assert.equal(limit.take(`caller ${i}`, null), 0);
  assert.equal(limit.size(), 0);
});

test("the memory is bounded, and who calls again and again is not forgotten, not even where each call is refused", () => {
  const its = onStillClock(10, 20);
  its.passing("a");
  for (let i = 0; i < 1_000; i++) {
    its.take(`passing by ${i}`, null);
    assert.ok(its.size() <= 20);
    if (i % 5 === 0) assert.ok(its.take("a", null) > 0, `after ${i} others`);
  }
  assert.ok(its.size() >= 10);
  assert.ok(its.take("passing by 999", 1) > 0);
});

/** Asks until it is refused; returns how often it was answered, and the refusal. */
async function askUntilLimited({ call }: TestApp, key: string): Promise<{ answered: number; refusal: Answer }> {
  for (let answered = 0; ; answered++) {
    const refusal = await call("GET", WHOAMI, { key });
    if (refusal.status !== 200) return { answered, refusal };
  }
}

test("a key above its limit gets 429 with Retry-After; another key goes on", async (t) => {
  const clock = stillClock();
  const its = await startTestApp(t, { clock, env: { STOWAGE_RATE_LIMIT_PER_MIN: "6" } });
  const { keys } = its.app.core;
  const own = await keys.create({ workspaceId: its.owner.workspaceId, rateLimitPerMin: 2 });
  const free = await keys.create({ workspaceId: its.owner.workspaceId, rateLimitPerMin: 0 });

  const first = await askUntilLimited(its, its.owner.key);
  assert.equal(first.answered, 6);
  assert.equal(assertLimited(first.refusal, /^Too many requests: 6 a minute are allowed\. Ask again in 10 s$/), 10);
  const second = await askUntilLimited(its, own.apiKey);
  assert.equal(second.answered, 2);
  assert.equal(assertLimited(second.refusal, /: 2 a minute .* in 30 s$/), 30);
  for (let i = 0; i < 20; i++) assert.equal((await its.call("GET", WHOAMI, { key: free.apiKey })).status, 200);

  // Someone sets the wall clock: the allowance is of another one.
  clock.setBy(3_600_000);
  assertLimited(await its.call("GET", WHOAMI), /6 a minute/);
  clock.setBy(-7_200_000);
  assertLimited(await its.call("GET", WHOAMI), /6 a minute/);
  clock.advance(10_000);
  assert.equal((await its.call("GET", WHOAMI)).status, 200);
  assertLimited(await its.call("GET", WHOAMI), /6 a minute/);
});

test("every request of a key counts, refused ones too; strangers, health and signed URLs do not", async (t) => {
  const its = await startTestApp(t, { clock: stillClock(), env: { STOWAGE_RATE_LIMIT_PER_MIN: "5" } });
  const few = await its.app.core.keys.create({ workspaceId: its.owner.workspaceId, scopes: ["workspace:read"] });
  const key = few.apiKey;
  for (let i = 0; i < 3; i++) {
    assert.equal((await its.call("POST", "/api/v1/uploads", { key, body: {} })).status, 403);
  }
  const foreign = { key, headers: { "X-Workspace-Id": "01890a5d-ac96-774b-bcce-b302099a8057" } };
  assert.equal((await its.call("GET", WHOAMI, foreign)).status, 403);
  assert.equal((await its.call("GET", "/api/v1/uploads/x", { key })).status, 422);
  assertLimited(await its.call("POST", "/api/v1/uploads", { key, body: {} }), /5 a minute/);

  const { uploadUrl } = await its.createUpload();
  for (let i = 0; i < 8; i++) {
    assert.equal((await its.put(uploadUrl, "bytes")).status, 200);
    assert.equal((await its.call("GET", "/health", { key: "" })).status, 200);
    assert.equal((await its.call("GET", WHOAMI, { key: `op_live_${"x".repeat(32)}` })).status, 401);
  }
  await its.app.core.keys.revoke(few.apiKeyId);
  assert.equal((await its.call("GET", WHOAMI, { key })).status, 401, "a key that is no more has no limit either");
});

test("a session counts for its person, whichever token and workspace they come with", async (t) => {
  const app = await startPeopleApp(t, { clock: stillClock(), env: { STOWAGE_RATE_LIMIT_PER_MIN: "3" } });
  const ann = await app.signIn("ann");
  const workspace = await app.makeWorkspace(ann);
  assert.equal((await ann.call("GET", "/api/v1/uploads", { workspace })).status, 200);
  assertLimited(await ann.call("GET", WHOAMI), /3 a minute/);
  const again = await app.issuer.mint({ sub: "ann", email: ann.email, name: "ann", ttlSeconds: 1_800 });
  assert.notEqual(again, ann.token);
  assertLimited(await app.callAs(again, "GET", WHOAMI), /3 a minute/);
  assertLimited(await ann.call("GET", "/api/v1/uploads", { workspace }), /3 a minute/);
  const bob = await app.signIn("bob");
  assert.equal((await bob.call("GET", WHOAMI)).status, 200);
  assert.equal((await app.call("GET", WHOAMI)).status, 200, "a key counts for itself, not for the person who made it");
});
