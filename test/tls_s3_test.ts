// Goal: a store with a certificate of its own is trusted if the administrator says so, and otherwise the log says what to do.
// Method: the real program and a real MinIO that speaks TLS, with a certificate of an authority that the test makes.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { Agent, fetch } from "undici";
import { temporaryFolder } from "./_app.ts";
import { skipLoudly } from "./_loud_skip.ts";
import { initProgram, logLines, serveProgram } from "./_process.ts";
import { s3Env } from "./_s3_app.ts";
import { useTlsMinio } from "./_s3_servers.ts";

interface Authority {
  caFile: string;
  ca: string;
  /** MinIO's folder of certificates. */
  folder: string;
}

/** An authority, and a certificate of it for this name. */
async function makeAuthority(t: TestContext, name: string): Promise<Authority> {
  const top = await temporaryFolder(t);
  const folder = join(top, "certs");
  mkdirSync(join(folder, "CAs"), { recursive: true });
  const caFile = join(top, "ca.pem");
  const [caKey, request, extensions] = [join(top, "ca.key"), join(top, "request.pem"), join(top, "extensions")];
  const openssl = (...args: string[]) => execFileSync("openssl", args, { stdio: "pipe" });
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", "-x509", ...newKey, "-keyout", caKey, "-out", caFile, "-days", "2", "-subj", "/CN=Test authority");
  openssl("req", ...newKey, "-keyout", join(folder, "private.key"), "-out", request, "-subj", "/CN=store");
  writeFileSync(extensions, `subjectAltName=${name}\n`);
  const signed = ["-CA", caFile, "-CAkey", caKey, "-CAcreateserial", "-days", "2", "-extfile", extensions];
  openssl("x509", "-req", "-in", request, ...signed, "-out", join(folder, "public.crt"));
  return { caFile, ca: readFileSync(caFile, "utf8"), folder };
}

async function openTls(t: TestContext, name: string) {
  if (spawnSync("openssl", ["version"]).status !== 0) {
    skipLoudly(t, "openssl makes its certificates", "install openssl");
    return null;
  }
  const authority = await makeAuthority(t, name);
  const s3 = await useTlsMinio(t, authority);
  return s3 === null ? null : { authority, s3, ...(await initProgram(t)) };
}

test("TLS to MinIO: with NODE_EXTRA_CA_CERTS a file lives its whole life", async (t) => {
  const tls = await openTls(t, "IP:127.0.0.1");
  if (tls === null) return;
  const { authority, s3, dataDir, made } = tls;
  const env = { ...s3Env(s3, s3.newBucketName()), NODE_EXTRA_CA_CERTS: authority.caFile };
  const server = await serveProgram(t, dataDir, { env });
  const key = made.api_key;
  assert.equal((await server.call("GET", "/ready")).json.store, "ok");
  const body = { filename: "a.bin", category: "file" };
  const { upload, upload_url } = (await server.call("POST", "/api/v1/uploads", { key, body })).json.data;
  assert.match(upload_url, /^https:/);
  const dispatcher = new Agent({ connect: { ca: authority.ca } });
  t.after(() => dispatcher.destroy());
  assert.equal((await fetch(upload_url, { method: "PUT", body: "over TLS", dispatcher })).status, 200);
  const path = `/api/v1/uploads/${upload.id}`;
  const context = { context_type: "workspace", context_id: made.workspace_id };
  const confirmed = await server.call("POST", path, { key, body: context });
  assert.equal(confirmed.status, 200);
  const { download_url } = confirmed.json.data;
  assert.equal(await (await fetch(download_url, { dispatcher })).text(), "over TLS");
  assert.equal((await server.call("DELETE", path, { key })).status, 200);
  // There are no keys of their own for URLs here, which is warned of.
  const unexpected = logLines(server.stderr()).filter(
    ({ level, msg }) => level !== "info" && msg !== "upload_urls_signed_with_main_key",
  );
  assert.deepEqual(unexpected, []);
});

for (const [what, name, isTrusted, told] of [
  ["of an authority that is not trusted", "IP:127.0.0.1", false, /certificate.*NODE_EXTRA_CA_CERTS/],
  ["for another host", "DNS:elsewhere.example.com", true, /certificate must name the host of STOWAGE_S3_ENDPOINT/],
] as const) {
  test(`TLS to MinIO: a certificate ${what} is told with what to do, and the service runs without its store`, async (t) => {
    const tls = await openTls(t, name);
    if (tls === null) return;
    const { authority, s3, dataDir } = tls;
    const trust: Record<string, string> = isTrusted ? { NODE_EXTRA_CA_CERTS: authority.caFile } : {};
    const env = { ...s3Env(s3, s3.newBucketName()), ...trust };
    const server = await serveProgram(t, dataDir, { env });
    const complaint = logLines(server.stderr()).find(({ msg }) => msg === "store_unavailable");
    assert.match(String(complaint?.error).split("\n")[0] ?? "", told);
    assert.equal((await server.call("GET", "/ready")).json.store, "unavailable");
  });
}
