// Goal: whatever goes wrong at whichever call to the store, and also where the process is killed at it, no byte is
// miscounted, no object is orphaned and no confirmed file is lost.
// Method: each call of confirm, delete and cleaner meets each fault, on the embedded store and on three real servers; after
// each the raw database and a raw listing of the bucket are compared. The results are printed, and kept in
// docs/crash-matrix.md where STOWAGE_TEST_WRITE_MATRIX is 1 or CI is true.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { request } from "undici";
import { checkBooks } from "./_books.ts";
import type { FaultHandle } from "./_fault_proxy.ts";
import { DAY_MS } from "./_faulty_app.ts";
import type { ChildOptions } from "./_matrix_child.ts";
import { FAULTS, type Fault } from "./_matrix_faults.ts";
import { createReport } from "./_matrix_report.ts";
import { openRig, openSite, type Rig, type Site, STORES, type StoreName, soon } from "./_matrix_rig.ts";
import { act, type Scene, STEPS, type Step, TEXT_COUNTS } from "./_matrix_steps.ts";
import { serveProgram } from "./_process.ts";
import { checkRaw } from "./_raw_store.ts";
import { type S3Server, useS3Server } from "./_s3_servers.ts";
import { until } from "./_until.ts";

/** Only the cells whose `store: step: fault` this matches are run. */
const CELLS = new RegExp(process.env.STOWAGE_TEST_CELLS ?? "");
const CHILD = fileURLToPath(new URL("./_matrix_child.ts", import.meta.url));
const report = createReport();
after(() => report.finish());

for (const store of STORES) {
  test(`${store}: every call to the store meets every fault`, async (t) => {
    const server = store === "disk" ? null : await useS3Server(t, store);
    if (store !== "disk" && server === null) return report.skipped(store, `${store} is not installed`);
    for (const step of STEPS) {
      for (const fault of FAULTS) {
        const absent = whyNot(store, fault, step);
        if (absent === "never") continue;
        if (absent !== null) {
          report.set(store, fault.name, step.name, { notRun: absent });
          continue;
        }
        await t.test(`${step.name}: ${fault.name}`, async (t) => {
          report.set(store, fault.name, step.name, { failed: "it did not end" });
          const result = await runCell(t, server, { fault, step });
          report.set(store, fault.name, step.name, { result });
        });
      }
    }
  });
}

/** Why a cell is not run; `never` where the fault cannot meet the step. */
function whyNot(store: StoreName, fault: Fault, step: Step): string | null {
  if (fault.applies !== undefined && !fault.applies(step)) return "never";
  const leftOut = CELLS.test(`${store}: ${step.name}: ${fault.name}`) ? null : "left out by STOWAGE_TEST_CELLS";
  if (store !== "disk") return leftOut;
  // It is no call of its own there.
  if (step.name === "confirm: look at the copy") return "never";
  return fault.kill === undefined && fault.disk === undefined ? "never" : leftOut;
}

interface Cell {
  fault: Fault;
  step: Step;
}

async function runCell(t: TestContext, server: S3Server | null, cell: Cell): Promise<string> {
  const { fault, step } = cell;
  const site = await openSite(t, server);
  const isDelete = step.action === "delete";
  const rig = await openRig(t, site, {
    timeouts: fault.timeouts,
    // The cleaner is there, and hangs, while people delete.
    cleansInBackground: isDelete && fault.kill === undefined,
  });
  const scene = await step.prepare(rig, { paged: fault.paged === true });
  return fault.kill === undefined
    ? await runFault(t, rig, { ...cell, scene })
    : await runKill(t, rig, { ...cell, scene, point: fault.kill });
}

async function runFault(t: TestContext, rig: Rig, { fault, step, scene }: Cell & { scene: Scene }): Promise<string> {
  const { its, raw } = rig;
  const begin = (rig.s3 === null ? fault.disk : fault.s3) ?? assert.fail();
  const begun = await begin({ t, rig, step, scene });
  const first = await act(rig, step, scene);
  if (step.action === "delete") assert.equal(first, "200", "deletes do not wait for the store");
  else assert.ok(begun.hits() > 0, "the fault was met");
  if (step.action === "confirm") checkConfirm(rig, scene, first);
  if (fault.isBlinding) checkBooks(its.sql);
  else await checkRaw(its.sql, raw, scene.lateKeys);
  await begun.heal();
  // Where the cleaner runs by itself it drains now what the deletes left; only then nothing is under way.
  if (step.action === "delete") await until(() => dueEntries(rig) === 0, "the backlog is drained");
  await checkRaw(its.sql, raw, scene.lateKeys);
  return `${first}, ${await finish(rig, step, scene)}`;
}

function dueEntries({ its }: Rig): unknown {
  return its.sql.prepare("SELECT count(*) FROM object_removals WHERE due_at_ms <= ?").pluck().get(its.clock.now());
}

/** A confirm is done or not done, and its answer says which. */
function checkConfirm(rig: Rig, { confirmId = "" }: Scene, answer: string): void {
  assert.ok(answer === "200" || answer === "503", `a confirm was answered with ${answer}`);
  assert.equal(rig.statusOf(confirmId), answer === "200" ? "uploaded" : "pending");
}

/** Asks again, lets the days go by, and checks that everything has come to its end. */
async function finish(rig: Rig, step: Step, scene: Scene): Promise<string> {
  const { its } = rig;
  let then = "";
  if (step.action === "confirm") {
    then = await act(rig, step, scene);
    assert.equal(then, "200");
    const counts = its.sql.prepare("SELECT char_count, line_count FROM uploads WHERE id = ?").raw();
    assert.deepEqual(counts.get(scene.confirmId), [TEXT_COUNTS.chars, TEXT_COUNTS.lines], "the whole text is counted");
  } else if (step.action === "look") then = await act(rig, step, scene);
  await checkRaw(its.sql, rig.raw);
  await rig.drain();
  const left = new Set((await rig.raw.objects()).map(({ objectKey }) => objectKey));
  for (const key of scene.lateKeys) assert.ok(!left.has(key), "a late arrival is removed");
  for (const id of scene.deleteIds) assert.equal(rig.statusOf(id), undefined);
  for (const id of [scene.bystanderId, scene.confirmId ?? scene.bystanderId])
    assert.equal(rig.statusOf(id), "uploaded");
  assert.equal(left.size, scene.confirmId === undefined ? 1 : 2);
  await its.close();
  return then === "" ? "removed" : then;
}

async function runKill(
  t: TestContext,
  prepared: Rig,
  { step, scene, point }: Cell & { scene: Scene; point: "before" | "after" },
): Promise<string> {
  const site: Site = prepared;
  await prepared.its.close();
  // The real program; in its place a process of the same parts where it must stop inside of the embedded store, or do
  // what the program does once an hour.
  const isProgram = site.s3 !== null && step.action !== "look";
  const held = site.s3?.proxy.setFault({ kind: "hold", point, match: step.match, times: 1 });
  const running = isProgram
    ? await startProgram(t, site)
    : startChild(t, {
        ...{
          dataDir: site.dataDir,
          env: site.env,
          aheadMs: step.action === "look" ? 2 * DAY_MS : 0,
          looks: step.action === "look",
        },
        hold: held === undefined ? { call: step.call, point } : null,
      });
  // What it does by itself may already hold up its start.
  const asked = step.action === "clean" ? Promise.resolve([]) : ask(await running.url, site, step, scene);
  if (step.action === "delete")
    assert.deepEqual(
      await asked,
      scene.deleteIds.map(() => 200),
    );
  await soon(Promise.race([heldBy(held, running), asked.then(() => new Promise(() => {}))]), `${step.name}, held`);
  await running.kill();
  await asked;
  await site.s3?.proxy.heal();

  const rig = await openRig(t, site);
  if (step.action === "look") rig.its.clock.advance(2 * DAY_MS);
  await checkRaw(rig.its.sql, rig.raw, scene.lateKeys);
  if (step.action === "delete") for (const id of scene.deleteIds) assert.equal(rig.statusOf(id), undefined, "NO-LOSS");
  return `killed, ${await finish(rig, step, scene)}`;
}

interface Running {
  url: Promise<string>;
  /** Resolves where the process says that it waits inside of a call. */
  says: Promise<void>;
  kill: () => Promise<void>;
}

function heldBy(held: FaultHandle | undefined, running: Running): Promise<unknown> {
  return held === undefined ? running.says : held.seen;
}

async function startProgram(t: TestContext, { dataDir, env }: Site): Promise<Running> {
  const { url, child, ended } = await serveProgram(t, dataDir, { env });
  return {
    url: Promise.resolve(url),
    says: new Promise(() => {}),
    async kill() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

function startChild(t: TestContext, options: ChildOptions): Running {
  const child = spawn(process.execPath, [CHILD, JSON.stringify(options)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const url = Promise.withResolvers<string>();
  const says = Promise.withResolvers<void>();
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    for (const line of text.split("\n")) {
      if (line.startsWith("http")) url.resolve(line);
      if (line === "held") says.resolve();
    }
  });
  const ended = once(child, "close");
  async function kill(): Promise<void> {
    child.kill("SIGKILL");
    await ended;
  }
  t.after(kill);
  return { url: url.promise, says: says.promise, kill };
}

/** Sends what comes to the step's call. What the cleaner does it does by itself. Resolves with the statuses, 0 for none. */
async function ask(url: string, { owner }: Site, { action }: Step, scene: Scene): Promise<number[]> {
  const send = async (method: "POST" | "DELETE", id: string, body: string | null): Promise<number> => {
    const headers = {
      Authorization: `Bearer ${owner.key}`,
      ...(body === null ? {} : { "Content-Type": "application/json" }),
    };
    try {
      const answer = await request(`${url}/api/v1/uploads/${id}`, { method, body, headers });
      await answer.body.dump();
      return answer.statusCode;
    } catch {
      return 0;
    }
  };
  if (action === "confirm") {
    const context = JSON.stringify({ context_type: "workspace", context_id: owner.workspaceId });
    return [await send("POST", scene.confirmId ?? assert.fail(), context)];
  }
  if (action === "delete") return await Promise.all(scene.deleteIds.map((id) => send("DELETE", id, null)));
  return [];
}
