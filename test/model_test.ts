// Goal: BOOKS, and every other invariant, hold after any sequence of operations, with a store that fails now and then.
// Method: thousands of random steps against a real service; after each the raw database and the raw store are compared
// with a model in memory that knows exactly what must be there. The seed repeats the steps; where two things race, their
// order is the machine's, and the model follows the answers.
import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { temporaryFolder } from "./_app.ts";
import { afterwards } from "./_db.ts";
import { DAY_MS, startFaultyApp } from "./_faulty_app.ts";
import { createModel, type ModelWorkspace } from "./_model.ts";
import { createOperations } from "./_model_operations.ts";
import { type BooksOperator, createBooksOperator } from "./_model_operator_books.ts";
import { createStoreAccidents } from "./_model_operator_store.ts";
import { createRaces } from "./_model_races.ts";
import {
  createWorld,
  MAX_UPLOAD_BYTES,
  PENDING_TTL_SECONDS,
  PENDING_UPLOADS_MAX,
  URL_TTL_SECONDS,
  type World,
} from "./_model_world.ts";
import { mountSmallDisk } from "./_operator.ts";
import { createRandom, testCount, testSeed } from "./_random.ts";
import { checkRawDrained } from "./_raw_store.ts";
import { IS_S3 } from "./_test_store.ts";
import { checkUnconfirmed } from "./_unconfirmed_figures.ts";

const STEPS = testCount("STOWAGE_TEST_STEPS", process.env.CI === "true" ? 6_000 : 2_000);
const WORKSPACES = 3;
const QUOTA_BYTES = 25_000;
/** Large enough for all that is uploaded, and soon filled. */
const DISK_BYTES = 96 * 1024 * 1024;
const CAN_MOUNT = process.platform === "linux" && process.getuid?.() === 0;
/** Every so many steps all bytes and the whole ledger are compared as well. */
const THOROUGH_EVERY = 20;

/** How often the store fails in a step, and in which call. */
type Faults = Parameters<World["drawFault"]>[0];
const ANY_FAULT: Faults = { names: ["stat", "promote", "read", "remove"], chance: 15 };
const NO_FAULT: Faults = { names: [], chance: 0 };
const REMOVAL_FAULT: Faults = { names: ["remove"], chance: 40 };

interface Step {
  name: string;
  /** How often it is chosen, against the others. */
  weight: number;
  run: () => Promise<void>;
  faults?: Faults;
}

/** All that can happen. */
function stepsOf(t: TestContext, world: World, operator: BooksOperator): Step[] {
  const { random, anyWorkspace, anyPending, anyUpload } = world;
  const operations = createOperations(world);
  const races = createRaces(world, operations);
  const accidents = createStoreAccidents(t, world, operations);
  return [
    { name: "create", weight: 20, run: operations.create },
    { name: "PUT", weight: 22, run: () => operations.putBytes(random.percent(10) ? anyUpload() : anyPending()) },
    { name: "confirm", weight: 16, run: () => operations.confirmOne(random.percent(20) ? anyUpload() : anyPending()) },
    { name: "delete", weight: 7, run: () => operations.deleteOne(anyUpload()) },
    { name: "race deletes", weight: 2, run: races.raceDeletes },
    { name: "race confirms", weight: 4, run: races.raceConfirms },
    { name: "race confirm and delete", weight: 4, run: races.raceConfirmAndDelete },
    { name: "race confirm and PUT", weight: 4, run: races.raceConfirmAndPut },
    { name: "slow confirm", weight: 4, run: races.slowConfirm },
    { name: "storm", weight: 6, run: races.storm, faults: { names: ["stat", "promote", "remove"], chance: 30 } },
    { name: "delete by hand", weight: 1, run: operations.deleteByHand },
    { name: "workflows", weight: 2, run: operations.changeWorkflows },
    { name: "keys", weight: 1, run: operations.changeKeys },
    { name: "without right", weight: 3, run: operations.withoutRight },
    { name: "quota", weight: 2, run: () => operations.setQuota(anyWorkspace(), random.integer(0, 40_000)) },
    { name: "cleaner", weight: 6, run: operations.cleanerPass, faults: REMOVAL_FAULT },
    { name: "time", weight: 3, run: operations.passTime },
    { name: "swap the store", weight: 1, run: accidents.swapStore },
    { name: "unmount the folder", weight: 1, run: accidents.unmountStore },
    { name: "start a second copy", weight: 1, run: accidents.startCopy },
    { name: "older copy", weight: 0.2, run: operator.restoreOlderCopy, faults: NO_FAULT },
    { name: "mixed up", weight: 0.2, run: operator.mixUp, faults: NO_FAULT },
    { name: "full disk", weight: 0.2, run: operator.fullDisk, faults: NO_FAULT },
  ];
}

test(`the books are the model's after each of ${STEPS} random steps`, async (t) => {
  const random = createRandom(testSeed((text) => t.diagnostic(text)));
  const disk = CAN_MOUNT ? mountSmallDisk(t, DISK_BYTES) : null;
  if (disk === null) t.diagnostic('without the step "full disk": it needs root on Linux');
  const dataDir = join(disk ?? (await temporaryFolder(t)), "data");
  const startOptions = {
    quotaBytes: QUOTA_BYTES,
    dataDir,
    env: {
      STOWAGE_MAX_UPLOAD_BYTES: String(MAX_UPLOAD_BYTES),
      STOWAGE_PENDING_UPLOADS_MAX: String(PENDING_UPLOADS_MAX),
      STOWAGE_UPLOAD_URL_TTL_SECONDS: String(URL_TTL_SECONDS),
      STOWAGE_PENDING_TTL_SECONDS: String(PENDING_TTL_SECONDS),
    },
  };
  let its = await startFaultyApp(t, startOptions);
  const owners = [its.owner];
  while (owners.length < WORKSPACES) owners.push(await its.addOwner());
  const workspaces = owners.map(
    (owner): ModelWorkspace => ({
      owner: { ...owner },
      revokedKeys: [],
      quotaBytes: QUOTA_BYTES,
      workflows: [],
      deletedWorkflows: [],
    }),
  );
  const model = createModel(workspaces);
  const operator = createBooksOperator({ its: () => its, whileStopped, model, random, disk });
  afterwards(t, operator.close);
  let { world, deck } = deal();

  /** The steps as they are taken with the service that runs now. */
  function deal() {
    const dealt = createWorld({ its, model, random });
    const steps = stepsOf(t, dealt, operator);
    // Some are rarer than one in all.
    return { world: dealt, deck: steps.flatMap((step) => Array.from({ length: step.weight * 5 }, () => step)) };
  }

  /** The same service on the same port, so that the URLs that are out stay good. */
  async function whileStopped(work: () => void): Promise<void> {
    const { app, owner, clock } = its;
    const env = { ...startOptions.env, STOWAGE_PORT: new URL(app.url).port };
    // Notes that the clock is trusted: after a day without that, a start would let nothing expire for an hour.
    model.expire(clock.now());
    await app.cleaner.runOnce();
    await its.close();
    work();
    its = await startFaultyApp(t, { ...startOptions, env, owner, clock });
    ({ world, deck } = deal());
  }

  async function checkFigures(workspace: ModelWorkspace): Promise<void> {
    const { workspaceId: ownerId } = workspace.owner;
    // Counted at once, before any note of it is written.
    if (!IS_S3) assert.equal(its.app.core.unconfirmed.figuresOf(ownerId).stagedBytes, model.stagedBytes(workspace));
    await checkUnconfirmed(its.app, its.sql, { ownerId, onS3: IS_S3 });
  }

  const done = new Map<string, number>();
  for (let i = 1; i <= STEPS; i++) {
    const step = random.pick(deck) ?? assert.fail();
    done.set(step.name, (done.get(step.name) ?? 0) + 1);
    try {
      world.drawFault(step.faults ?? ANY_FAULT);
      await step.run();
      its.heal();
      await model.check(its.sql, its.raw, { thoroughly: i % THOROUGH_EVERY === 0 });
      for (const workspace of workspaces) await checkFigures(workspace);
    } catch (error) {
      throw new Error(`Step ${i}, "${step.name}", broke something`, { cause: error });
    }
  }
  t.diagnostic([...done].map(([name, times]) => `${name} ${times}`).join(", "));

  // Days later nothing is left to do: the files are exactly the confirmed ones.
  its.clock.advance(3 * DAY_MS);
  model.expire(its.clock.now());
  await its.app.cleaner.runOnce();
  await its.app.cleaner.lookForLateArrivals();
  for (let pass = 0; pass < 3; pass++) await its.app.cleaner.runOnce();
  model.strays.clear();
  await model.check(its.sql, its.raw, { thoroughly: true });
  await checkRawDrained(its.sql, its.raw);

  // And everything can be given back.
  for (const { id, workspace } of model.all()) {
    assert.equal((await its.call("DELETE", `/api/v1/uploads/${id}`, { key: workspace.owner.key })).status, 200);
  }
  await its.app.cleaner.runOnce();
  await checkRawDrained(its.sql, its.raw);
  assert.equal(its.usedBytes(), 0);
  assert.deepEqual(await its.raw.objects(), []);
});
