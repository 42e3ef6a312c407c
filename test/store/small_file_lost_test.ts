// Goal: a file of small objects that is missing, or another one, is a lost store: nothing is booked as removed or as never
// uploaded, whoever runs the service is told, and all goes on when the file is back.
// Method: the real program on the embedded store, with the file taken away, emptied or replaced by hand.
import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, type TestContext, test } from "node:test";
import Database from "better-sqlite3";
import type { Json } from "../help/app.ts";
import { logLines, runProgram, type ServingProgram } from "../help/process.ts";
import { clientFor, drained, entriesOf, openPlace, type Site, stop } from "../help/store_place.ts";
import { until } from "../help/until.ts";

const REASON = /small\.db/;

interface Scene {
  site: Site;
  program: ServingProgram;
  keep: Json;
  gone: Json;
  pending: { id: string };
  /** Moves the file away with what lies beside it, and puts it back. */
  away: () => void;
  back: () => void;
}

async function openScene(t: TestContext): Promise<Scene> {
  const site = await openPlace(t, "disk");
  assert.ok(site !== null);
  const program = await site.start();
  const client = clientFor(program, site.made);
  const keep = await client.uploaded("keep");
  const gone = await client.uploaded("gone");
  const pending = await client.staged("pending");
  await drained(site);
  const folder = join(site.dataDir, "objects");
  const aside = join(site.dataDir, "aside");
  const names = (where: string) => readdirSync(where).filter((name) => name.startsWith("small.db"));
  return {
    ...{ site, program, keep, gone, pending },
    away() {
      mkdirSync(aside, { recursive: true });
      for (const name of names(folder)) renameSync(join(folder, name), join(aside, name));
    },
    back() {
      for (const name of names(folder)) rmSync(join(folder, name));
      for (const name of names(aside)) renameSync(join(aside, name), join(folder, name));
    },
  };
}

/** Nothing is concluded from the file that is there now; the program says so, and what to do. */
async function checkIsLost(t: TestContext, scene: Scene): Promise<void> {
  const { site, program, keep, gone, pending } = scene;
  const client = clientFor(program, site.made);
  assert.equal((await client.confirm(pending.id)).status, 503, "not: nothing was uploaded");
  const url = (await client.show(keep.id)).json.data.download_url;
  assert.equal((await program.call("GET", url)).status, 503, "not: it was deleted");
  assert.equal((await client.remove(gone.id)).status, 200);
  await until(async () => (await client.ready()).status === 503, "/ready says so");
  const { message } = (await client.ready()).json.error;
  assert.match(message, REASON);
  assert.match(message, /bring it back/);
  const told = logLines(program.stderr()).filter(({ msg }) => msg === "store_is_another");
  assert.equal(told.length, 1);
  assert.match(told[0]?.why, REASON);
  // Long enough for a removal: one that is due is made at once.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const entry = entriesOf(site).find(({ object_key }) => object_key.includes(gone.id));
  assert.equal(entry?.attempts, 0, "its removal waits, and no attempt is counted");
  assert.equal((await client.create()).status, 503);
  const doctor = await runProgram(t, ["doctor"], { STOWAGE_DATA_DIR: site.dataDir });
  assert.equal(doctor.exitCode, 1);
  assert.match(doctor.stdout, /^problem +store .*small\.db/m);
}

async function checkGoesOn({ site, program, keep, gone, pending }: Scene): Promise<void> {
  const client = clientFor(program, site.made);
  await until(async () => (await client.ready()).status === 200, "ready again");
  assert.equal((await client.confirm(pending.id)).status, 200);
  for (const [id, bytes] of [
    [keep.id, "keep"],
    [pending.id, "pending"],
  ]) {
    assert.equal((await program.call("GET", (await client.show(id)).json.data.download_url)).text, bytes);
  }
  await drained(site);
  const sql = new Database(join(site.dataDir, "objects", "small.db"), { readonly: true });
  const keys = sql.prepare<[], string>("SELECT object_key FROM objects").pluck().all();
  sql.close();
  assert.ok(!keys.some((key) => key.includes(gone.id)), "what was deleted is removed");
  assert.equal(keys.length, 2);
}

function makeOtherDatabase(path: string): void {
  const sql = new Database(path);
  sql.exec("CREATE TABLE things (id INTEGER)");
  sql.close();
}

describe("the file of small objects", { concurrency: 3 }, () => {
  for (const { what, replace } of [
    { what: "missing", replace: () => {} },
    { what: "an empty file", replace: (path: string) => writeFileSync(path, "") },
    { what: "another program's database", replace: makeOtherDatabase },
  ]) {
    test(`${what} while the service runs`, async (t) => {
      const scene = await openScene(t);
      scene.away();
      replace(join(scene.site.dataDir, "objects", "small.db"));
      await checkIsLost(t, scene);
      scene.back();
      await checkGoesOn(scene);
    });

    test(`${what} when the service starts`, async (t) => {
      const scene = await openScene(t);
      await stop(scene.program);
      scene.away();
      const path = join(scene.site.dataDir, "objects", "small.db");
      replace(path);
      const isThere = existsSync(path);
      const started = { ...scene, program: await scene.site.start() };
      await checkIsLost(t, started);
      assert.equal(existsSync(path), isThere, "none is made");
      scene.back();
      await checkGoesOn(started);
    });
  }

  test("an older copy of itself, when the service starts", async (t) => {
    const scene = await openScene(t);
    await stop(scene.program);
    const folder = join(scene.site.dataDir, "objects");
    cpSync(join(folder, "small.db"), join(scene.site.dataDir, "older.db"));
    const program = await scene.site.start();
    const latest = await clientFor(program, scene.site.made).uploaded("latest");
    await drained(scene.site);
    await stop(program);
    scene.away();
    cpSync(join(scene.site.dataDir, "older.db"), join(folder, "small.db"));
    const started = { ...scene, program: await scene.site.start() };
    await checkIsLost(t, started);
    scene.back();
    const client = clientFor(started.program, scene.site.made);
    await until(async () => (await client.ready()).status === 200, "ready again");
    const url = (await client.show(latest.id)).json.data.download_url;
    assert.equal((await started.program.call("GET", url)).text, "latest");
  });

  test("that is lost for good can be given up: `doctor --accept-store` goes on without it", async (t) => {
    const scene = await openScene(t);
    const { site, program } = scene;
    scene.away();
    const client = clientFor(program, site.made);
    await until(async () => (await client.create()).status === 503, "noticed");
    const accepted = await runProgram(t, ["doctor", "--accept-store", "--yes"], { STOWAGE_DATA_DIR: site.dataDir });
    assert.match(accepted.stdout, /2 confirmed uploads .* whose object is not in it/);
    // Wakes the cleaner, which an idle service does once a minute.
    assert.equal((await client.remove(scene.gone.id)).status, 200);
    await until(async () => (await client.ready()).status === 200, "ready again");
    await client.uploaded("after");
    assert.ok(existsSync(join(site.dataDir, "objects", "small.db")));
  });

  test("of a data directory from before there was one is made at the next start", async (t) => {
    const site = await openPlace(t, "disk");
    assert.ok(site !== null);
    const first = await site.start();
    const large = await clientFor(first, site.made).uploaded("x".repeat(100_000));
    await drained(site);
    await stop(first);
    rmSync(join(site.dataDir, "objects", "small.db"));
    const { has_part: _, ...marker } = await site.marker();
    await site.setMarker(marker);
    const program = await site.start();
    const client = clientFor(program, site.made);
    const small = await client.uploaded("small");
    for (const { id } of [large, small]) {
      assert.equal((await program.call("GET", (await client.show(id)).json.data.download_url)).status, 200);
    }
    assert.equal((await site.marker()).has_part, true);
    assert.equal((await client.ready()).status, 200);
  });
});
