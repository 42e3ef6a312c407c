// Goal: a database that is lost does not cost the objects that it knew: no command makes a new one over them, or takes
// them for leftovers of another.
import assert from "node:assert/strict";
import { existsSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { runProgram } from "./_process.ts";
import { clientFor, drained, openPlace, stop } from "./_store_place.ts";
import { until } from "./_until.ts";

test("without its database an embedded store is left alone: by serve, init and doctor alike", async (t) => {
  const site = await openPlace(t, "disk");
  assert.ok(site !== null);
  const server = await site.start();
  const { id } = await clientFor(server, site.made).uploaded("keep");
  await drained(site);
  await stop(server);
  const db = join(site.dataDir, DATABASE_FILE);
  renameSync(db, `${db}.lost`);
  const env = { STOWAGE_DATA_DIR: site.dataDir };
  for (const args of [["serve"], ["init"], ["doctor"], ["keys", "list"]]) {
    const { exitCode, stdout, stderr } = await runProgram(t, args, env);
    assert.equal(exitCode, 1, args.join());
    assert.match(stdout + stderr, /The database of ".*" is missing, but ".*objects" holds its files/);
    assert.match(stdout + stderr, /restore ".*stowage\.db" from a backup/);
    assert.equal(existsSync(db), false, `${args.join()} made none`);
  }
  renameSync(`${db}.lost`, db);
  const again = await site.start();
  assert.equal((await clientFor(again, site.made).show(id)).status, 200);
});

test("an embedded store whose marker names another installation cannot be accepted", async (t) => {
  const [one, other] = [await openPlace(t, "disk"), await openPlace(t, "disk")];
  assert.ok(one !== null && other !== null);
  for (const site of [one, other]) {
    const server = await site.start();
    await clientFor(server, site.made).uploaded("keep");
    await drained(site);
    await stop(server);
  }
  const keys = await other.keys();
  const marker = await other.marker();
  rmSync(join(one.dataDir, "objects"), { recursive: true });
  renameSync(join(other.dataDir, "objects"), join(one.dataDir, "objects"));
  const env = { STOWAGE_DATA_DIR: one.dataDir };
  const { exitCode, stderr } = await runProgram(t, ["doctor", "--accept-store", "--yes"], env);
  assert.equal(exitCode, 1);
  assert.match(
    stderr,
    /it holds the objects of the installation "[0-9a-f]{16}", and this database is of "[0-9a-f]{16}"/,
  );
  assert.deepEqual([await one.keys(), await one.marker()], [keys, marker], "nothing in it was touched");
});

test("while the folder of the objects is away a download and a PUT are 503, and never said to be deleted", async (t) => {
  const site = await openPlace(t, "disk");
  assert.ok(site !== null);
  const server = await site.start();
  const client = clientFor(server, site.made);
  const { id } = await client.uploaded("keep");
  const { upload_url: putUrl } = (await client.create()).json.data;
  await drained(site);
  const { download_url: url } = (await client.show(id)).json.data;
  const bringBack = await site.vanish();
  for (const answer of [await server.call("GET", url), await server.call("PUT", putUrl, { body: "x" })]) {
    assert.equal(answer.status, 503, answer.text);
    assert.doesNotMatch(answer.text, /deleted/);
  }
  await bringBack();
  assert.equal((await server.call("GET", url)).text, "keep");
  assert.equal((await server.call("PUT", putUrl, { body: "x" })).status, 200);
  assert.doesNotMatch(server.stderr(), /request_failed/);
});

test("what is deleted while the folder of the objects is away is not settled against an empty one in its place", async (t) => {
  const site = await openPlace(t, "disk");
  assert.ok(site !== null);
  const server = await site.start();
  const client = clientFor(server, site.made);
  const ids: string[] = [];
  for (const name of ["a", "b", "c"]) ids.push((await client.uploaded(name)).id);
  await drained(site);
  const bringBack = await site.vanish();
  await site.makeEmpty();
  for (const id of ids) assert.equal((await client.remove(id)).status, 200);
  await until(async () => (await client.ready()).status === 503, "it is noticed");
  await bringBack();
  await until(async () => (await client.ready()).status === 200, "it is back");
  const left = async () => (await site.keys()).filter((key) => ids.some((id) => key.includes(id)));
  await until(async () => (await left()).length === 0, "the files are removed");
});
