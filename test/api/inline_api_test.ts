import assert from "node:assert/strict";
import { test } from "node:test";
import { startAppOn } from "../help/each_store.ts";

const UPLOADS = "/api/v1/uploads";

test("with disposition=inline a download is shown and still sandboxed, for what a browser can show alone", async (t) => {
  const app = await startAppOn(t, "disk");
  assert.ok(app !== null);
  for (const [filename, contentType] of [
    ["a.png", "image/png"],
    ["a.svg", "image/svg+xml"],
    ["a.mp3", "audio/mpeg"],
    ["a.mp4", "video/mp4"],
    ["a.txt", "text/plain"],
    ["a.html", "text/html"],
    ["a.pdf", "application/pdf"],
  ] as const) {
    const upload = await app.confirmedUpload("<script>", { filename });
    const shown = await app.call("GET", `${UPLOADS}/${upload.id}?disposition=inline`);
    assert.equal(shown.status, 200, shown.text);
    const { download_url: url, ...rest } = shown.json.data;
    const { download_url: plainUrl, ...plain } = upload;
    assert.deepEqual(rest, plain, "nothing else changes");
    for (const method of ["GET", "HEAD"]) {
      const { status, headers } = await app.call(method, url, { key: "" });
      assert.equal(status, 200);
      assert.equal(headers["content-disposition"], `inline; filename=${filename}`);
      assert.equal(headers["content-type"], contentType);
      assert.match(String(headers["content-security-policy"]), /^sandbox; default-src 'none';/);
      assert.doesNotMatch(String(headers["content-security-policy"]), /allow-|script/);
      assert.equal(headers["x-content-type-options"], "nosniff");
    }
    for (const target of ["?disposition=attachment", ""]) {
      const { json } = await app.call("GET", `${UPLOADS}/${upload.id}${target}`);
      assert.equal(new URL(json.data.download_url).searchParams.get("disposition"), null);
    }
    const { headers } = await app.call("GET", plainUrl, { key: "" });
    assert.equal(headers["content-disposition"], `attachment; filename=${filename}`);
  }
});

test("inline for a type that a browser would not show, or another disposition, is 422 and names it", async (t) => {
  const app = await startAppOn(t, "disk");
  assert.ok(app !== null);
  const { id: pending } = await app.createUpload({ filename: "a.png" });
  const { json } = await app.call("GET", `${UPLOADS}/${pending}?disposition=inline`);
  assert.equal(json.data.download_url, null);
  for (const filename of ["a.zip", "a", "a.js", "a.xhtml"]) {
    const { id } = await app.createUpload({ filename });
    const refused = await app.call("GET", `${UPLOADS}/${id}?disposition=inline`);
    // Scripts are text by the table of types; they are shown, not run.
    if (filename === "a.js") assert.equal(refused.status, 200);
    else {
      assert.deepEqual([refused.status, refused.json.error.details[0].field], [422, "disposition"], refused.text);
      assert.match(refused.json.error.message, /images, audio, video, text and PDF/);
    }
  }
  for (const value of ["", "Inline", "inline&disposition=inline"]) {
    const refused = await app.call("GET", `${UPLOADS}/${pending}?disposition=${value}`);
    assert.deepEqual([refused.status, refused.json.error.details[0].field], [422, "disposition"], value);
  }
});
