// Goal: `serve` says once at start that upload URLs are signed with the main key, if that is so and matters, and what mends it.
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startTestApp } from "./_app.ts";
import { s3Env } from "./_s3_app.ts";
import { collectLog, S3_MAKES, type S3Server, useS3Server } from "./_s3_servers.ts";
import { until } from "./_until.ts";

const WARNING = "upload_urls_signed_with_main_key";

/** Starts the service with these settings, and resolves with the warnings that it has given. */
async function warningsOf(t: TestContext, env: Record<string, string>, expected: number) {
  const { log, events } = collectLog();
  const its = await startTestApp(t, { env, log });
  const warnings = () => events.filter(({ msg }) => msg === WARNING);
  if (expected > 0) await until(() => warnings().length >= expected, "the warning");
  // Long enough for the store's answer: what comes in spite of everything comes by then.
  else await delay(1_000);
  await its.close();
  return warnings();
}

const separate = ({ accessKey, secretKey }: S3Server, uploadKey = "stowage-upload") => ({
  STOWAGE_S3_UPLOAD_ACCESS_KEY: uploadKey,
  STOWAGE_S3_UPLOAD_SECRET_KEY: uploadKey === accessKey ? secretKey : "upload-secret",
});

for (const make of S3_MAKES) {
  const isOpen = make === "minio";
  test(`${make}: without an upload key there is ${isOpen ? "one warning, with the settings that mend it" : "no warning: it refuses such copies"}`, async (t) => {
    const server = await useS3Server(t, make);
    if (server === null) return;
    const env = s3Env(server, server.newBucketName());
    const warnings = await warningsOf(t, env, isOpen ? 1 : 0);
    assert.equal(warnings.length, isOpen ? 1 : 0);
    if (!isOpen) return;
    const [{ level, fields } = assert.fail()] = warnings;
    assert.equal(level, "warn");
    assert.match(String(fields.risk), /^MinIO lets whoever has an upload URL/);
    assert.ok(String(fields.hint).includes(`s3:PutObject on ${env.STOWAGE_S3_BUCKET}/staging/*`));
    assert.match(String(fields.hint), /`stowage doctor storage`/);
    assert.deepEqual(fields.set, ["STOWAGE_S3_UPLOAD_ACCESS_KEY", "STOWAGE_S3_UPLOAD_SECRET_KEY"]);
    // What it names mends it; the main key under another name does not.
    assert.deepEqual(await warningsOf(t, { ...env, ...separate(server) }, 0), []);
    assert.equal((await warningsOf(t, { ...env, ...separate(server, server.accessKey) }, 1)).length, 1);
  });
}

test("a store that does not answer is spoken of by the settings alone, and the embedded one not at all", async (t) => {
  const env = {
    STOWAGE_STORE: "s3",
    // Nothing listens on the port of tcpmux.
    STOWAGE_S3_ENDPOINT: "http://127.0.0.1:1",
    STOWAGE_S3_ACCESS_KEY: "key",
    STOWAGE_S3_SECRET_KEY: "secret-key",
  };
  const [{ fields } = assert.fail()] = await warningsOf(t, env, 1);
  assert.match(String(fields.risk), /^some servers, MinIO among them, let/);
  assert.deepEqual(await warningsOf(t, { STOWAGE_STORE: "disk" }, 0), []);
});
