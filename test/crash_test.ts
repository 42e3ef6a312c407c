// Goal: NO-LOSS, ROW-FIRST, NO-ORPHAN, NO-GHOST and ONCE hold whenever the process is killed.
// Method: the real program is killed with SIGKILL at random moments, again and again on one data directory, while clients
// note what they are answered. After each kill the raw database and the raw store are compared with every answer. (SIGKILL
// keeps the page cache: that what is answered also survives a power loss is shown by the test of the order of syncs.)
import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { openCore } from "../lib/core/core.ts";
import { initDataDir, type Owner, silentLog, temporaryFolder, testConfig } from "./_app.ts";
import { checkAfterKill, checkTwoDaysOn, type Met, type Place } from "./_crash_check.ts";
import { createLoad } from "./_crash_load.ts";
import { type Server, startServer } from "./_crash_server.ts";
import { createRandom, type Random, testCount, testSeed } from "./_random.ts";
import { testBucket } from "./_test_store.ts";

const KILLS = testCount("STOWAGE_TEST_KILLS", process.env.CI === "true" ? 200 : 12);
/** Data directories at once: while one process starts, another is under load. */
const LANES = 2;
/** After so many kills the rest of the work is done, two days on, and what remains is compared. */
const KILLS_UNTIL_DRAINED = 20;
const QUOTA_BYTES = 1_000_000_000;
const LOAD_MS = { min: 20, max: 400 };

test(`what was answered is true after each of ${KILLS} kills`, async (t) => {
  const seed = testSeed((text) => t.diagnostic(text));
  let isOver = false;
  t.after(() => {
    isOver = true;
  });
  const lanes = Array.from({ length: LANES }, async (_, lane) => {
    const kills = Math.floor((KILLS + lane) / LANES);
    const told = await killAgainAndAgain(t, { random: createRandom(seed + lane), kills, isOver: () => isOver });
    for (const text of told) t.diagnostic(text);
  });
  await Promise.all(lanes);
});

interface Lane {
  random: Random;
  kills: number;
  /** Whether another lane has failed. */
  isOver: () => boolean;
}

/** Kills the service of one data directory so many times, and tells what that met. */
async function killAgainAndAgain(t: TestContext, { random, kills, isOver }: Lane): Promise<string[]> {
  const dataDir = join(await temporaryFolder(t), "data");
  const place: Place = { dataDir, bucket: await testBucket(t, dataDir) };
  const config = testConfig(dataDir);
  const owners = [await initDataDir(config, QUOTA_BYTES)];
  owners.push(await addOwner(config));
  const load = createLoad(owners, random);
  const strangers = new Set<string>();
  const met: Met = { unanswered: 0, lease: 0, taken: 0, halfWritten: 0 };
  let startMs = 1_000;
  let server: Server | undefined;
  t.after(() => server?.kill("SIGKILL"));

  /** Kills the process after a while, in the middle of its work. */
  async function killAfter(
    ms: number,
    running: Server,
    work: Promise<void>,
    how?: "asked to stop first",
  ): Promise<void> {
    // It is awaited below, after the kill: until then its failure waits.
    work.catch(() => {});
    await delay(ms);
    if (how !== undefined) {
      running.kill("SIGTERM");
      await delay(random.integer(0, 60));
    }
    running.kill("SIGKILL");
    await running.ended;
    await work;
  }

  async function serving(running: Server): Promise<string> {
    const startedMs = performance.now();
    const url = await running.listening;
    if (url === null) assert.fail(`The server did not start:\n${running.lines()}`);
    startMs = performance.now() - startedMs;
    return url;
  }

  // Each way to die, with how often it is chosen in a hundred times.
  const deaths: { what: string; chance: number; die: (running: Server) => Promise<void> }[] = [
    {
      what: "under load",
      chance: 60,
      die: async (running) => {
        const url = await serving(running);
        await killAfter(random.integer(LOAD_MS.min, LOAD_MS.max), running, load.work(url));
      },
    },
    {
      what: "while it cleans",
      chance: 15,
      die: async (running) => {
        const url = await serving(running);
        await killAfter(random.integer(5, 80), running, load.deleteMany(url));
      },
    },
    {
      what: "while it starts",
      chance: 15,
      die: (running) =>
        killAfter(random.integer(Math.floor(startMs / 3), Math.ceil(startMs * 1.1)), running, Promise.resolve()),
    },
    {
      what: "while it stops",
      chance: 10,
      die: async (running) => {
        const url = await serving(running);
        await killAfter(random.integer(LOAD_MS.min, LOAD_MS.max / 2), running, load.work(url), "asked to stop first");
      },
    },
  ];
  const deck = deaths.flatMap((death) => Array.from({ length: death.chance }, () => death));

  const died = new Map<string, number>();
  for (let kill = 1; kill <= kills && !isOver(); kill++) {
    const death = random.pick(deck) ?? assert.fail();
    died.set(death.what, (died.get(death.what) ?? 0) + 1);
    try {
      server = startServer(dataDir, place.bucket?.env ?? {});
      await death.die(server);
      assert.deepEqual(server.errors(), []);
      await checkAfterKill(place, load, strangers, met);
      if (kill % KILLS_UNTIL_DRAINED === 0 || kill === kills) await checkTwoDaysOn(place, load, strangers);
    } catch (error) {
      throw new Error(`Kill ${kill}, ${death.what}, broke something. The log:\n${server?.lines()}`, { cause: error });
    }
  }
  return [
    `${load.answers()} answers; killed ${[...died].map(([what, times]) => `${what} ${times}`).join(", ")}`,
    `kills that met something half-way: ${JSON.stringify(met)}`,
  ];
}

async function addOwner(config: ReturnType<typeof testConfig>): Promise<Owner> {
  const core = openCore({ config, log: silentLog, now: Date.now, migrate: false, onFatal: () => {} });
  try {
    const workspace = await core.workspaces.create({ name: "another", storageBytesQuota: QUOTA_BYTES });
    const { apiKeyId, apiKey: key } = await core.keys.create(workspace);
    return { ...workspace, apiKeyId, key };
  } finally {
    await core.db.close();
  }
}
