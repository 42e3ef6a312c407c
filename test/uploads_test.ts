import assert from "node:assert/strict";
import { test } from "node:test";
import { startTestApp } from "./_app.ts";
import { checkBooks, checkObjects, rawDiskKeys } from "./_books.ts";

test("an upload is created, PUT, confirmed, downloaded and deleted, and its bytes come back", async (t) => {
  const { app, call, createUpload, put, confirm, sql, dataDir } = await startTestApp(t);
  const { id, uploadUrl } = await createUpload({ filename: "notes.txt", category: "script" });
  assert.equal((await put(uploadUrl, "  hello \n\n wörld\r\n")).status, 200);

  const confirmed = await confirm(id);
  assert.equal(confirmed.status, 200);
  assert.equal(confirmed.json.data.status, "uploaded");
  assert.equal(confirmed.json.data.size_bytes, 19);
  assert.equal(confirmed.json.data.char_count, 10);
  assert.equal(confirmed.json.data.line_count, 2);
  const used = () => sql.prepare("SELECT storage_bytes_used FROM workspaces").pluck().get();
  assert.equal(used(), 19);

  const download = await call("GET", confirmed.json.data.download_url, { key: "" });
  assert.equal(download.text, "  hello \n\n wörld\r\n");

  const deleted = await call("DELETE", `/api/v1/uploads/${id}`);
  assert.equal(deleted.status, 200);
  assert.deepEqual(deleted.json.data, {});
  assert.equal(used(), 0);
  await app.cleaner.runOnce();
  assert.deepEqual(await rawDiskKeys(dataDir, app.core.workspaces.installationId()), []);
  checkBooks(sql);
  checkObjects(sql, []);
});
