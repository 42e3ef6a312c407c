import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { checkAll, checkBooks } from "./_books.ts";
import { type Client, openClient, problemsOf } from "./_connection_matrix_client.ts";
import { halfSent, type Run, soon } from "./_connection_matrix_program.ts";
import { openWorld } from "./_connection_matrix_world.ts";
import { createFuzzRequests, Known } from "./_http_fuzz_requests.ts";
import { scrape } from "./_metrics_page.ts";
import { createRandom, type Random, testCount } from "./_random.ts";

// Goal: no bytes that a stranger can send make the service fail, hang, or miscount.
// Method: the real program as a child process. Clients send random requests, right, nearly right and broken, several on a
// connection, and many of them break off. The seed is printed; STOWAGE_TEST_FUZZ_SEED repeats it, and
// STOWAGE_TEST_FUZZ_REQUESTS says how many requests: STOWAGE_TEST_FUZZ_REQUESTS=1000000 takes about half an hour.

const REQUESTS = testCount("STOWAGE_TEST_FUZZ_REQUESTS", 20_000);
const SEED = testCount("STOWAGE_TEST_FUZZ_SEED", Math.floor(Math.random() * 2 ** 31) + 1);
const CLIENTS = 24;
/** With more requests the lines of the log that tell of each would fill the memory. */
const LOGGED_REQUESTS_MAX = 100_000;
/** A client that gets nothing for so long has most likely announced more than it sent. */
const PATIENCE_MS = 400;
const PRINTED_MAX = 20;

/** What the service may say when it cannot do what was asked: the full disk, and the store or database that is busy. */
const ALLOWED_FAILURES: Readonly<Record<number, string>> = { 503: "STORAGE_UNAVAILABLE", 507: "INSUFFICIENT_STORAGE" };

type Ending = "read" | "close" | "reset" | "half-close";

/** Sends some requests on one connection; returns what was wrong with the responses. */
async function useConnection(
  run: Run,
  random: Random,
  { next, known }: { next: ReturnType<typeof createFuzzRequests>; known: Known },
): Promise<{ requests: number; statuses: number[]; problems: string[] }> {
  const requests = Array.from({ length: random.integer(1, random.percent(20) ? 12 : 4) }, next);
  let bytes = Buffer.from(requests.map((request) => request.bytes).join(""), "latin1");
  const isCut = random.percent(15);
  if (isCut) bytes = bytes.subarray(0, random.integer(0, bytes.length));
  const endings: Ending[] = ["close", "reset", "half-close"];
  const ending = isCut || random.percent(15) ? (random.pick(endings) ?? "close") : "read";

  const methods = requests.map(({ method }) => method);
  const client = await openClient(run.url, methods);
  try {
    for (let at = 0; at < bytes.length && !client.hasEnded(); ) {
      const part = bytes.subarray(at, at + (random.percent(60) ? bytes.length : random.integer(1, bytes.length)));
      await client.write(part);
      at += part.length;
      if (at < bytes.length || random.percent(10)) await delay(random.integer(0, 3));
    }
    await end(client, ending, requests.length);
    const problems = client.responses.flatMap((response) => [...problemsOf(response), ...failureOf(response)]);
    // A request that was refused before it was one is answered with a body, whatever its method.
    if (client.garbled() !== "" && !methods.includes("HEAD")) problems.push(`no HTTP: ${client.garbled()}`);
    for (const { text } of client.responses) known.learn(text);
    const statuses = client.responses.map(({ status }) => status);
    const sent = JSON.stringify(bytes.toString("latin1", 0, 1_500));
    return {
      requests: requests.length,
      statuses,
      problems: problems.map((what) => `${what}\n    to ${ending} ${sent}`),
    };
  } finally {
    client.close();
  }
}

async function end(client: Client, ending: Ending, requests: number): Promise<void> {
  if (ending === "close") return client.close();
  if (ending === "reset") return client.reset();
  if (ending === "half-close") client.halfClose();
  const isOver = (): boolean =>
    client.hasEnded() ||
    client.responses.length >= requests ||
    client.responses.at(-1)?.headers.get("connection") === "close";
  await soon(isOver, PATIENCE_MS);
}

function failureOf({ status, text }: { status: number; text: string }): string[] {
  if (status < 500 || text.includes(`"code":"${ALLOWED_FAILURES[status]}"`)) return [];
  return [`a failure of ours: ${status} ${text}`];
}

test(`${REQUESTS} random requests, whole and broken off, do no harm`, async (t) => {
  t.diagnostic(`STOWAGE_TEST_FUZZ_SEED=${SEED} STOWAGE_TEST_FUZZ_REQUESTS=${REQUESTS}`);
  const settings: Record<string, string> = REQUESTS > LOGGED_REQUESTS_MAX ? { STOWAGE_LOG_LEVEL: "warn" } : {};
  const world = await openWorld(t, { settings });
  const run = await world.start();
  for (const path of ["/ready", "/metrics"]) await run.call("GET", path);
  const openFiles = run.openFiles();
  const known = new Known(world);
  const statuses = new Map<number, number>();
  const problems: string[] = [];
  let sent = 0;

  async function client(number: number): Promise<void> {
    const random = createRandom(SEED + number);
    const next = createFuzzRequests(random, world, known);
    while (sent < REQUESTS && run.isAlive() && problems.length < PRINTED_MAX) {
      const done = await useConnection(run, random, { next, known });
      sent += done.requests;
      problems.push(...done.problems);
      for (const status of done.statuses) statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
  }

  await Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number)));
  t.diagnostic(
    [...statuses]
      .sort(([a], [b]) => a - b)
      .map(([status, count]) => `${status}: ${count}`)
      .join(", "),
  );
  const seed = `STOWAGE_TEST_FUZZ_SEED=${SEED}`;
  assert.ok(run.isAlive(), `${seed}: the process ended: ${run.program.stderr().slice(-1_000)}`);
  assert.deepEqual(problems.slice(0, PRINTED_MAX), [], seed);
  assert.equal((await run.call("GET", "/health")).status, 200);
  const isBack = await soon(() => run.openFiles() <= openFiles && halfSent(world.dataDir).length === 0, 10_000);
  assert.ok(isBack, `${seed}: ${run.openFiles() - openFiles} more open files than before`);
  const page = await scrape(`${run.url}/metrics`);
  const failed = page
    .labelsOf("stowage_http_requests_total")
    .filter(({ status }) => Number(status) >= 500 && ALLOWED_FAILURES[Number(status)] === undefined);
  assert.deepEqual(failed, [], seed);
  if (REQUESTS <= LOGGED_REQUESTS_MAX) assert.deepEqual(await run.miscounted(), [], `${seed}: log and metrics differ`);
  checkBooks(world.sql);

  run.program.child.kill("SIGTERM");
  assert.equal((await run.program.ended).exitCode, 0);
  assert.deepEqual(
    run.lines().filter(({ level }) => level === "error" || level === "fatal"),
    [],
    seed,
  );
  // Nothing is under way any more: the store can be compared with the books.
  checkAll(world.sql, world.dataDir);
});
