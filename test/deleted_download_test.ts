// Goal: a file that was deleted is refused from that moment on, whatever the cleaner does and however long its URLs are good.
// Method: the embedded store, whose cleaner runs only when a test says so; every way in which an upload can go.
import assert from "node:assert/strict";
import { copyFile } from "node:fs/promises";
import { test } from "node:test";
import { type Answer, type Json, startTestApp, type TestApp } from "./_app.ts";
import { rawPathOf } from "./_books.ts";
import { EMBEDDED_ONLY } from "./_test_store.ts";

const UPLOADS = "/api/v1/uploads";

function assertGone(answer: Answer): void {
  assert.equal(answer.status, 404, answer.text);
  assert.equal(answer.json.error.code, "NOT_FOUND");
}

/** What holds a URL of a deleted upload: all of these were good a moment before. */
async function checkRefused({ call, put }: TestApp, urls: { download: string; upload: string }): Promise<void> {
  for (const headers of [{}, { Range: "bytes=0-1" }, { "If-None-Match": "*" }]) {
    assertGone(await call("GET", urls.download, { key: "", headers }));
  }
  assert.equal((await call("HEAD", urls.download, { key: "" })).status, 404);
  assertGone(await put(urls.upload, "late"));
}

const DELETIONS: Record<string, (app: TestApp, ids: readonly string[]) => Promise<void>> = {
  async "a delete by the API"({ call }, ids) {
    for (const id of ids) assert.equal((await call("DELETE", `${UPLOADS}/${id}`)).status, 200);
  },
  async "a delete by hand, in SQL"({ sql }, ids) {
    for (const id of ids) sql.prepare("DELETE FROM uploads WHERE id = ?").run(id);
  },
  async "the deletion of its workspace"({ app, owner }) {
    await app.core.workspaces.removeAny(owner.workspaceId);
  },
};

for (const [name, remove] of Object.entries(DELETIONS)) {
  test(`after ${name} its URLs are refused while its file still lies there`, EMBEDDED_ONLY, async (t) => {
    const app = await startTestApp(t, { cleansInBackground: false });
    const confirmed: Json = await app.confirmedUpload("secret");
    const { id, uploadUrl } = await app.createUpload();
    assert.equal((await app.put(uploadUrl, "staged")).status, 200);
    const download: string = confirmed.download_url;
    assert.equal((await app.call("GET", download, { key: "" })).text, "secret");

    await remove(app, [confirmed.id, id]);
    assert.equal((await app.raw.objects()).length, 3, "two of the confirmed, one of the pending");
    await checkRefused(app, { download, upload: uploadUrl });
  });
}

test(
  "a file under another key of an upload that is there is refused: it is not the one that was confirmed",
  EMBEDDED_ONLY,
  async (t) => {
    const app = await startTestApp(t, { cleansInBackground: false });
    const { id } = await app.confirmedUpload("confirmed");
    const key = app.sql.prepare<[string], string>("SELECT object_key FROM uploads WHERE id = ?").pluck().get(id) ?? "";
    // As a confirm leaves it that failed after its copy.
    const otherKey = key.slice(0, -32) + "0".repeat(32);
    await copyFile(rawPathOf(app.dataDir, key), rawPathOf(app.dataDir, otherKey));
    const urlOf = (objectKey: string) =>
      app.app.objects.presignGet(objectKey, {
        ...{ contentType: "text/plain", filename: "a.txt" },
        expiresAtMs: Date.now() + 60_000,
      });
    assert.equal((await app.call("GET", urlOf(key), { key: "" })).text, "confirmed");
    assertGone(await app.call("GET", urlOf(otherKey), { key: "" }));
  },
);
