import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { checkAll, checkBooks } from "./_books.ts";
import { type Client, openClient, problemsOf } from "./_connection_matrix_client.ts";
import { halfSent, type Run, soon } from "./_connection_matrix_program.ts";
import { openWorld, type World } from "./_connection_matrix_world.ts";
import { createFuzzRequests, Known } from "./_http_fuzz_requests.ts";
import { scrape } from "./_metrics_page.ts";
import { createRandom, type Random, testCount } from "./_random.ts";

// Goal: no bytes that a stranger can send make the service fail, hang, or miscount.
// Method: the real program as a child process. Clients send random requests, right, nearly right and broken, several on a
// connection, and many of them break off. The seed is printed; STOWAGE_TEST_FUZZ_SEED repeats it, and
// STOWAGE_TEST_FUZZ_REQUESTS says how many requests: STOWAGE_TEST_FUZZ_REQUESTS=1000000 takes about a quarter of an hour.

const REQUESTS = testCount("STOWAGE_TEST_FUZZ_REQUESTS", 20_000);
const SEED = testCount("STOWAGE_TEST_FUZZ_SEED", Math.floor(Math.random() * 2 ** 31) + 1);
const CLIENTS = 24;
/** Then the program is started anew: the lines of its log, which are all kept, would fill the memory. */
const REQUESTS_OF_A_RUN = 50_000;
/** A client that gets nothing for so long has most likely announced more than it sent. */
const PATIENCE_MS = 400;
const PRINTED_MAX = 20;
const CONNECTIONS_SHOWN = 10_000;

/** What the service may say when it cannot do what was asked: the full disk, and the store or database that is busy. */
const ALLOWED_FAILURES: Readonly<Record<number, string>> = { 503: "STORAGE_UNAVAILABLE", 507: "INSUFFICIENT_STORAGE" };

type Ending = "read" | "close" | "reset" | "half-close";

interface Fuzz {
  next: ReturnType<typeof createFuzzRequests>;
  known: Known;
  /** What was sent lately, by the client's port: to be shown if its connection stays. */
  sentFrom: Map<number, string>;
}

/** Sends some requests on one connection; returns what was wrong with the responses. */
async function useConnection(
  run: Run,
  random: Random,
  { next, known, sentFrom }: Fuzz,
): Promise<{ requests: number; statuses: number[]; problems: string[] }> {
  const requests = Array.from({ length: random.integer(1, random.percent(20) ? 12 : 4) }, next);
  let bytes = Buffer.from(requests.map((request) => request.bytes).join(""), "latin1");
  const isCut = random.percent(15);
  if (isCut) bytes = bytes.subarray(0, random.integer(0, bytes.length));
  const endings: Ending[] = ["close", "reset", "half-close"];
  const ending = isCut || random.percent(15) ? (random.pick(endings) ?? "close") : "read";

  const methods = requests.map(({ method }) => method);
  const client = await openClient(run.url, methods);
  const sent = `${ending} ${JSON.stringify(readable(bytes.toString("latin1")))}`;
  sentFrom.delete(client.port);
  sentFrom.set(client.port, sent);
  for (const port of sentFrom.keys()) if (sentFrom.size > CONNECTIONS_SHOWN) sentFrom.delete(port);
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
    return {
      requests: requests.length,
      statuses,
      problems: problems.map((what) => `${what}\n    to ${sent}`),
    };
  } finally {
    client.close();
  }
}

/** What was sent, without its long runs of one character. */
function readable(text: string): string {
  return text.replaceAll(/(.)\1{19,}/g, (run, char) => `<${run.length} times ${char}>`);
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

/** Sends random requests to one run of the program until so many were sent, then ends it and looks at what is left. */
async function fuzz(
  world: World,
  known: Known,
  { requests, seed }: { requests: number; seed: number },
): Promise<string> {
  const run = await world.start();
  for (const path of ["/ready", "/metrics"]) await run.call("GET", path);
  const openFiles = run.openFiles();
  const statuses = new Map<number, number>();
  const problems: string[] = [];
  const sentFrom = new Map<number, string>();
  let sent = 0;

  async function client(number: number): Promise<void> {
    const random = createRandom(seed + number);
    const next = createFuzzRequests(random, world, known);
    while (sent < requests && run.isAlive() && problems.length < PRINTED_MAX) {
      const done = await useConnection(run, random, { next, known, sentFrom });
      sent += done.requests;
      problems.push(...done.problems);
      for (const status of done.statuses) statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
  }

  await Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number)));
  assert.ok(run.isAlive(), `the process ended: ${run.program.stderr().slice(-1_000)}`);
  assert.deepEqual(problems.slice(0, PRINTED_MAX), []);
  assert.equal((await run.call("GET", "/health")).status, 200);
  const isBack = await soon(() => run.openFiles() <= openFiles && halfSent(world.dataDir).length === 0, 10_000);
  const open = run.clientPorts().map((port) => `${port}: ${sentFrom.get(port)}`);
  assert.ok(isBack, `${run.openFiles() - openFiles} more open files than before, of\n${open.join("\n")}`);
  const page = await scrape(`${run.url}/metrics`);
  const failed = page
    .labelsOf("stowage_http_requests_total")
    .filter(({ status }) => Number(status) >= 500 && ALLOWED_FAILURES[Number(status)] === undefined);
  assert.deepEqual(failed, []);
  assert.deepEqual(await run.miscounted(), [], "log and metrics agree");
  checkBooks(world.sql);

  run.program.child.kill("SIGTERM");
  assert.equal((await run.program.ended).exitCode, 0);
  assert.deepEqual(
    run.lines().filter(({ level }) => level === "error" || level === "fatal"),
    [],
  );
  // Nothing is under way any more: the store can be compared with the books.
  checkAll(world.sql, world.dataDir);
  const counts = [...statuses].sort(([a], [b]) => a - b).map(([status, count]) => `${status}: ${count}`);
  return `${sent} requests, answered with ${counts.join(", ")}`;
}

test(`${REQUESTS} random requests, whole and broken off, do no harm`, async (t) => {
  const repeat = `STOWAGE_TEST_FUZZ_SEED=${SEED} STOWAGE_TEST_FUZZ_REQUESTS=${REQUESTS}`;
  t.diagnostic(repeat);
  const world = await openWorld(t);
  const known = new Known(world);
  for (let sent = 0; sent < REQUESTS; sent += REQUESTS_OF_A_RUN) {
    const requests = Math.min(REQUESTS_OF_A_RUN, REQUESTS - sent);
    try {
      t.diagnostic(await fuzz(world, known, { requests, seed: SEED + sent }));
    } catch (error) {
      throw new Error(`Failed after ${sent} requests with ${repeat}`, { cause: error });
    }
  }
});
