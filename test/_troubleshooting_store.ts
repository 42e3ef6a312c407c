import assert from "node:assert/strict";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { type ServingProgram, serveProgram } from "./_process.ts";
import { clientFor, copyDataDir, copyObjects, drained, openPlace, type Site, stop } from "./_store_place.ts";
import type { Case } from "./_troubleshooting.ts";
import { until } from "./_until.ts";

/** The variables of the page's commands that speak to a running service. */
function wire(server: ServingProgram, { made }: Site): Record<string, string> {
  return {
    URL: server.url,
    AUTH: `Authorization: Bearer ${made.api_key}`,
    JSON: "Content-Type: application/json",
    WORKSPACE: made.workspace_id,
  };
}

/** A file of 19 bytes, in the data directory's parent. */
function makeFile({ dataDir }: Site): string {
  const file = join(dataDir, "..", "hello.txt");
  writeFileSync(file, "Hello from Stowage\n");
  return file;
}

async function onDisk(t: TestContext): Promise<Site> {
  const site = await openPlace(t, "disk");
  assert.ok(site !== null, "the embedded store needs nothing");
  return site;
}

/** The files of an upload in the embedded store, by the raw folder. */
function filesOf({ dataDir }: Site, uploadId: string): string[] {
  const folder = join(dataDir, "objects");
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && join(entry.parentPath, entry.name).includes(uploadId))
    .map((entry) => join(entry.parentPath, entry.name));
}

const notReady = async (server: ServingProgram): Promise<boolean> =>
  (await server.call("GET", "/ready")).status === 503;

/** What this page's sections on stores and objects are played with. */
export const STORE_CASES: readonly Case[] = [
  {
    name: "another-store",
    async play(t, cure) {
      const site = await onDisk(t);
      const before = await site.start();
      await clientFor(before, site.made).uploaded("keep");
      await stop(before);
      const bringBack = await site.vanish();
      const during = await site.start();
      await until(() => notReady(during), "it is not ready");
      const { stdout } = await cure.runInVain(site);
      assert.match(stdout, /^problem +store .*but that is lost: the folder .* does not exist/m);
      assert.ok(!existsSync(join(site.dataDir, "objects")), "no folder is made");
      await stop(during);
      await bringBack();
      const { stdout: after } = await cure.run(site);
      assert.match(after, /\n0 problems\n$/);
    },
  },
  {
    name: "moved-store",
    async play(t, cure) {
      const site = await openPlace(t, "minio");
      if (site === null || site.server === null) return;
      const before = await site.start();
      const client = clientFor(before, site.made);
      const [keep, lost] = [await client.uploaded("keep"), await client.uploaded("lost")];
      await drained(site);
      await stop(before);
      const bucket = site.server.newBucketName();
      await copyObjects(site, bucket, (key) => key.includes(keep.id));
      const env = { ...site.env, STOWAGE_S3_BUCKET: bucket };
      const { stdout } = await cure.run({ ...site, env });
      assert.match(stdout, /Not accepted.*\nAccepted: /s);
      assert.match(stdout, /1 /, "one of two is told to be missing");
      const after = await site.start(env);
      await until(async () => !(await notReady(after)), "it is ready");
      assert.equal((await clientFor(after, site.made).create()).status, 201);
      assert.equal((await clientFor(after, site.made).show(lost.id)).status, 200, "its row is left alone");
    },
  },
  {
    name: "two-copies",
    async play(t, cure) {
      const site = await openPlace(t, "minio");
      if (site === null) return;
      const first = await site.start();
      const keep = await clientFor(first, site.made).uploaded("keep");
      await drained(site);
      const second = await serveProgram(t, copyDataDir(site, "copy"), { env: site.env });
      await clientFor(second, site.made).uploaded("of the copy");
      // It compares the marker before it removes something, unless it has done so within the last second.
      await delay(1_100);
      assert.equal((await clientFor(first, site.made).remove(keep.id)).status, 200);
      await until(
        async () => /^paused: /.test(String((await first.call("GET", "/ready")).json.cleaner)),
        "the first one has paused",
      );
      await stop(second);
      const { stdout } = await cure.run({ ...site, env: site.env });
      assert.match(stdout, /Not accepted.*\nAccepted: /s);
      await stop(first);
      const again = await site.start();
      assert.equal((await again.call("GET", "/ready")).json.cleaner, undefined);
    },
  },
  {
    name: "cut-upload",
    async play(t, cure) {
      const site = await onDisk(t);
      const server = await site.start();
      const file = makeFile(site);
      const { api_key: key, workspace_id: workspaceId } = site.made;
      const body = { filename: "hello.txt", category: "file", size_bytes: 19 };
      const { upload, upload_url: url } = (await server.call("POST", "/api/v1/uploads", { key, body })).json.data;
      assert.equal((await server.call("PUT", url, { body: "Hello from Stowage\n" })).status, 200);
      // As a store leaves it that keeps what came of a PUT that was cut.
      const [staged = ""] = filesOf(site, upload.id);
      writeFileSync(staged, "Hello");
      const refused = await clientFor(server, site.made).confirm(upload.id);
      assert.equal(refused.status, 422);
      assert.match(refused.text, /5 of 19 bytes arrived/);
      const env = { ...wire(server, site), ID: upload.id, PUT_URL: url, FILE: file };
      const { stdout } = await cure.run({ ...site, env });
      const confirmed = JSON.parse(stdout).data;
      assert.deepEqual([confirmed.status, confirmed.size_bytes, confirmed.workspace_id], ["uploaded", 19, workspaceId]);
    },
  },
  {
    name: "stated-file",
    async play(t, cure) {
      const site = await onDisk(t);
      const server = await site.start();
      const { stdout } = await cure.run({ ...site, env: { ...wire(server, site), FILE: makeFile(site) } });
      const { upload, upload_url: url, upload_headers: headers } = JSON.parse(stdout).data;
      assert.deepEqual(Object.keys(headers), ["x-amz-checksum-sha256"]);
      assert.equal((await server.call("PUT", url, { body: "Hello from Storage\n" })).status, 400);
      assert.equal((await server.call("PUT", url, { body: "Hello from Stowage\n" })).status, 200);
      assert.equal((await clientFor(server, site.made).confirm(upload.id)).status, 200);
    },
  },
  {
    name: "deletion",
    async play(t, cure) {
      const site = await onDisk(t);
      const server = await site.start();
      const client = clientFor(server, site.made);
      const { id } = await client.uploaded("gone");
      assert.equal((await client.remove(id)).status, 200);
      await drained(site);
      const { stdout } = await cure.run({ ...site, env: { ...wire(server, site), ID: id } });
      assert.match(stdout, /\n0 problems\n/);
      assert.deepEqual(filesOf(site, id), []);
      const { data } = JSON.parse(stdout.slice(stdout.indexOf('{"data"')));
      assert.equal(data.bytes_released, 4);
      assert.match(data.waiting_for[0].reason, /^it was removed; whatever may still arrive/, stdout);
    },
  },
];
