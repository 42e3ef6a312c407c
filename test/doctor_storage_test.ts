import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import http from "node:http";
import { type TestContext, test } from "node:test";
import { Client } from "minio";
import type { Config } from "../lib/config/config.ts";
import { createReport, type Finding, type Report, reportText } from "../lib/doctor/report.ts";
import { runDoctorStorage } from "../lib/doctor/storage.ts";
import { checkS3Storage } from "../lib/doctor/storage_s3.ts";
import type { ListedObject } from "../lib/store/objects.ts";
import { StoreError } from "../lib/store/objects.ts";
import { s3Options } from "../lib/store/open_store.ts";
import { createS3Store, type S3Store } from "../lib/store/s3/objects_s3.ts";
import { silentLog, startTestApp, type TestApp } from "./_app.ts";
import { startFaultProxy } from "./_fault_proxy.ts";
import { initProgram, runProgram, serveProgram } from "./_process.ts";
import { S3_MAKES, type S3Make, type S3Server, useS3Server } from "./_s3_servers.ts";

const ORIGIN = "https://app.example.com";
const MINUTE_MS = 60_000;

interface S3Patient extends TestApp {
  server: S3Server;
  bucket: string;
  /** A store of the test's own on the same bucket. */
  store: S3Store;
  examine: (change?: Partial<Config>) => Promise<Report>;
  /** All that lies in the bucket, but for the ledger's marker. */
  leftovers: () => Promise<string[]>;
  entries: () => string[];
}

async function startS3Patient(
  t: TestContext,
  make: S3Make,
  { env = {}, endpoint }: { env?: Record<string, string>; endpoint?: string } = {},
): Promise<S3Patient | null> {
  const server = await useS3Server(t, make);
  if (server === null) return null;
  const bucket = server.newBucketName();
  const its = await startTestApp(t, {
    cleansInBackground: false,
    env: {
      STOWAGE_STORE: "s3",
      STOWAGE_S3_ENDPOINT: endpoint ?? server.endpoint,
      STOWAGE_S3_BUCKET: bucket,
      STOWAGE_S3_REGION: server.region,
      STOWAGE_S3_ACCESS_KEY: server.accessKey,
      STOWAGE_S3_SECRET_KEY: server.secretKey,
      ...env,
    },
  });
  const store = createS3Store({
    ...s3Options(its.config),
    endpoint: server.endpoint,
    publicEndpoint: server.endpoint,
    log: silentLog,
    now: Date.now,
  });
  t.after(() => store.close());
  return {
    ...its,
    server,
    bucket,
    store,
    examine: (change = {}) =>
      runDoctorStorage({ config: { ...its.config, ...change }, log: silentLog, now: its.clock.now }),
    entries: () => its.sql.prepare<[], string>("SELECT object_key FROM object_removals").pluck().all(),
    async leftovers() {
      const listed: ListedObject[] = [];
      for (const place of ["staging/", "final/"]) for await (const object of store.list(place)) listed.push(object);
      return listed.map(({ objectKey }) => objectKey).filter((key) => !key.endsWith("/ledger-marker"));
    },
  };
}

function resultsOf({ findings }: Report): Record<string, string> {
  return Object.fromEntries(findings.map(({ check, result }) => [check, result]));
}

function find(report: Report, check: string): Finding {
  const found = report.findings.findLast((finding) => finding.check === check);
  assert.ok(found !== undefined, reportText(report));
  return found;
}

function clientOf({ endpoint, accessKey, secretKey, region }: S3Server): Client {
  const { hostname, port } = new URL(endpoint);
  return new Client({ endPoint: hostname, port: Number(port), useSSL: false, accessKey, secretKey, region });
}

async function putCors(its: S3Patient): Promise<void> {
  const body = `<CORSConfiguration><CORSRule><AllowedOrigin>${ORIGIN}</AllowedOrigin><AllowedMethod>PUT</AllowedMethod><AllowedMethod>GET</AllowedMethod><AllowedHeader>*</AllowedHeader></CORSRule></CORSConfiguration>`;
  const headers = { "content-md5": createHash("md5").update(body).digest("base64"), "content-type": "application/xml" };
  const answer = await clientOf(its.server).makeRequestAsync(
    { method: "PUT", bucketName: its.bucket, query: "cors", headers },
    body,
  );
  answer.resume();
}

/** What each check finds on a fresh bucket of each server, without keys of their own for URLs. */
const FRESH: Record<S3Make, Record<string, string>> = {
  minio: { "smuggled copy": "problem" },
  versitygw: { "cut upload": "note", CORS: "problem" },
  garage: { CORS: "problem" },
};
const ALL_OK = {
  store: "ok",
  clock: "ok",
  upload: "ok",
  "signed length": "ok",
  "signed checksum": "ok",
  "cut upload": "ok",
  "expired URL": "ok",
  copy: "ok",
  download: "ok",
  "unsigned request": "ok",
  "smuggled copy": "ok",
  removal: "ok",
  versions: "ok",
  CORS: "ok",
};

for (const make of S3_MAKES) {
  test(`${make}: everything is tried, and nothing is left behind`, async (t) => {
    const its = await startS3Patient(t, make, { env: { STOWAGE_CORS_ORIGINS: ORIGIN } });
    if (its === null) return;
    const report = await its.examine();
    assert.deepEqual(resultsOf(report), { ...ALL_OK, ...FRESH[make] }, reportText(report));
    assert.deepEqual(await its.leftovers(), []);
    assert.deepEqual(its.entries(), []);
    if (make === "minio") {
      assert.match(find(report, "upload").what, /\(MinIO\)$/);
      const { advice = "" } = find(report, "smuggled copy");
      assert.match(advice, /^mc admin policy create ALIAS stowage-upload upload\.json$/m);
      assert.ok(advice.includes(`"Action":["s3:PutObject"],"Resource":["arn:aws:s3:::${its.bucket}/staging/*"]`));
      assert.match(advice, /STOWAGE_S3_UPLOAD_ACCESS_KEY/);
      return;
    }
    const { advice = "", what } = find(report, "CORS");
    assert.equal(what, `pages of ${ORIGIN} cannot upload to the store`);
    if (make === "versitygw") {
      const cut = find(report, "cut upload");
      assert.equal(cut.what, "the store keeps 262144 of 524288 bytes, as if they were the whole file");
      assert.match(
        cut.advice ?? "",
        /state size_bytes when they create an upload.*checksum_sha256.*versitygw 1\.8\.0/s,
      );
    }
    if (make === "versitygw") assert.match(advice, /^start versitygw with --cors-allow-origin, or:$/m);
    assert.match(advice, new RegExp(`^aws s3api put-bucket-cors --bucket ${its.bucket} `, "m"));
    await putCors(its);
    assert.equal(find(await its.examine(), "CORS").result, "ok");
  });
}

for (const make of ["minio", "versitygw"] as const) {
  test(`${make}: a versioned bucket is a problem, with the commands that end it`, async (t) => {
    const its = await startS3Patient(t, make);
    if (its === null) return;
    await clientOf(its.server).setBucketVersioning(its.bucket, { Status: "Enabled" });
    const { result, advice = "" } = find(await its.examine(), "versions");
    assert.equal(result, "problem");
    const command = make === "minio" ? "mc version suspend ALIAS/" : "aws s3api put-bucket-versioning --bucket ";
    assert.ok(advice.includes(`${command}${its.bucket}`), advice);
  });
}

test("a proxy that refuses x-amz-copy-source closes the hole of MinIO; separate keys are advised all the same", async (t) => {
  const server = await useS3Server(t, "minio");
  if (server === null) return;
  const proxy = await startFaultProxy(t, server.endpoint);
  proxy.setFault({ kind: "answer", status: 403, match: { header: ["x-amz-copy-source", /./] } });
  // Signed for the proxy's own host and port, and passed on with them.
  const its = await startS3Patient(t, "minio", { env: { STOWAGE_S3_PUBLIC_ENDPOINT: proxy.url } });
  if (its === null) return;
  const report = await its.examine();
  assert.equal(report.isFine(), true, reportText(report));
  assert.equal(find(report, "smuggled copy").result, "note");
  assert.ok(proxy.requests.length > 8, "all went through the public endpoint");
});

test("a bucket that everyone may read is a problem", async (t) => {
  const its = await startS3Patient(t, "minio");
  if (its === null) return;
  const policy = {
    Version: "2012-10-17",
    Statement: [
      {
        Effect: "Allow",
        Principal: { AWS: ["*"] },
        Action: ["s3:GetObject"],
        Resource: [`arn:aws:s3:::${its.bucket}/*`],
      },
    ],
  };
  await clientOf(its.server).setBucketPolicy(its.bucket, JSON.stringify(policy));
  const found = find(await its.examine(), "unsigned request");
  assert.deepEqual([found.result, found.advice], ["problem", `mc anonymous set none ALIAS/${its.bucket}`]);
});

test("a public endpoint that clients cannot use is a problem that says why", async (t) => {
  const its = await startS3Patient(t, "minio");
  if (its === null) return;
  const cases: [RegExp, RegExp, string][] = [
    [
      /^clients cannot reach http:\/\/127\.0\.0\.1:9: .*ECONNREFUSED/,
      /STOWAGE_S3_PUBLIC_ENDPOINT/,
      "http://127.0.0.1:9",
    ],
    [/answered 403 SignatureDoesNotMatch$/, /proxy_set_header Host/, await startHostChanger(t, its.server.endpoint)],
    [/took an upload that is not in the bucket$/, /another server/, await startLiar(t)],
  ];
  for (const [what, advice, s3PublicEndpoint] of cases) {
    const report = await its.examine({ s3PublicEndpoint });
    const found = find(report, "upload");
    assert.equal(found.result, "problem");
    assert.match(found.what, what);
    assert.match(found.advice ?? "", advice);
    assert.deepEqual(Object.keys(resultsOf(report)), ["store", "clock", "upload"], "nothing further is tried");
  }
  assert.deepEqual(await its.leftovers(), []);
});

test("a store that enforces nothing fails each check that must be refused", async (t) => {
  const its = await startS3Patient(t, "minio", { env: { STOWAGE_CORS_ORIGINS: ORIGIN } });
  if (its === null) return;
  const report = await its.examine({ s3PublicEndpoint: await startLaxStore(t, its) });
  assert.deepEqual(resultsOf(report), {
    ...ALL_OK,
    "signed length": "problem",
    "signed checksum": "problem",
    "cut upload": "note",
    "expired URL": "problem",
    download: "problem",
    "unsigned request": "problem",
    "smuggled copy": "problem",
    CORS: "problem",
  });
  const downloads = report.findings.filter(({ check }) => check === "download").map(({ what }) => what);
  assert.deepEqual(downloads, [
    "a GET of a range is answered 200",
    "the store does not send the signed Content-Disposition and Content-Type",
  ]);
  assert.deepEqual(await its.leftovers(), []);
});

test("what the service itself asks of the store is tried too: condition, removal, bulk, bucket, clock", async (t) => {
  const its = await startS3Patient(t, "minio");
  if (its === null) return;
  const examine = async (change: Partial<S3Store>, lacksMultiDelete = false): Promise<Report> => {
    const report = createReport();
    await checkS3Storage(report, {
      ...{ config: its.config, installationId: its.app.core.workspaces.installationId(), now: Date.now },
      store: { ...its.store, ...change },
      removals: its.app.core.removals,
      write: its.app.core.db.write,
      lacksMultiDelete: () => lacksMultiDelete,
    });
    return report;
  };
  const unconditional = await examine({
    promote: async (from, to, options) => {
      const source = await its.store.stat(from);
      assert.ok(source !== null);
      return await its.store.promote(from, to, { ...options, source });
    },
  });
  assert.match(find(unconditional, "copy").what, /copies an object that is no longer the one/);

  const locked = await examine({ remove: async (keys) => new Map(keys.map((key) => [key, "it is locked"])) });
  assert.equal(find(locked, "removal").what, "it is locked");
  assert.equal(find(locked, "clean-up").result, "note");
  const left = (await its.leftovers()).filter((key) => key.startsWith("final/"));
  assert.equal(left.length, 1);
  assert.ok(its.entries().includes(String(left[0])), "NO-ORPHAN: a final object that stays is entered");
  its.clock.advance(11 * MINUTE_MS);
  await its.app.cleaner.runOnce();
  assert.deepEqual(
    (await its.leftovers()).filter((key) => key.startsWith("final/")),
    [],
  );

  const lying = await examine({ remove: async () => new Map() });
  assert.match(find(lying, "removal").what, /^objects whose removal succeeded are still there$/);
  assert.equal(find(await examine({}, true), "removal").result, "note");
  assert.equal(find(await examine({ keepsVersions: async () => null }), "versions").result, "note");
  const skewed = find(await examine({ clockSkewMs: () => -6 * MINUTE_MS }), "clock");
  assert.deepEqual([skewed.result, skewed.what], ["problem", "the store's clock is 360 s behind this machine's"]);
  const down = await examine({
    probe: async () => {
      throw new StoreError("bucket_missing", "Cannot list the bucket: NoSuchBucket");
    },
  });
  assert.deepEqual(resultsOf(down), { store: "problem" });
});

test("the embedded store: tried through the running server, by the command, and nothing is left behind", async (t) => {
  const { dataDir } = await initProgram(t);
  const env = { STOWAGE_DATA_DIR: dataDir, STOWAGE_CORS_ORIGINS: ORIGIN };
  const idle = await runProgram(t, ["doctor", "storage"], env);
  assert.equal(idle.exitCode, 1);
  assert.match(idle.stdout, /^unknown +server +nothing serves .*\n +do: .*`stowage serve`: start it/m);

  const server = await serveProgram(t, dataDir, { env });
  const { exitCode, stdout, stderr } = await runProgram(t, ["doctor", "storage", "--json"], env);
  assert.deepEqual([exitCode, stderr], [0, ""], stdout);
  const { findings } = JSON.parse(stdout);
  assert.deepEqual(
    findings.map(({ check, result }: Finding) => `${check} ${result}`),
    ["clock ok", "upload ok", "download ok", "signed length ok", "expired URL ok", "forged URL ok", "CORS ok"],
  );
  const other = await runProgram(t, ["doctor", "storage"], {
    ...env,
    STOWAGE_CORS_ORIGINS: "https://other.example.com",
  });
  assert.equal(other.exitCode, 1);
  assert.match(other.stdout, /^problem +CORS +pages of https:\/\/other\.example\.com cannot upload$/m);
  const elsewhere = await runProgram(t, ["doctor", "storage"], { ...env, STOWAGE_PUBLIC_URL: "http://127.0.0.1:9" });
  assert.match(elsewhere.stdout, /^problem +upload +clients cannot reach http:\/\/127\.0\.0\.1:9/m);
  assert.equal((await server.call("GET", "/ready")).status, 200);
});

test("the embedded store behind something that says yes to everything", async (t) => {
  const its = await startTestApp(t, { cleansInBackground: false });
  // It passes the first PUT on, so that the file is there, and answers the rest itself.
  const liar = await startLiar(t, its.app.url);
  const report = await runDoctorStorage({ config: { ...its.config, publicUrl: liar }, log: silentLog });
  assert.deepEqual(resultsOf(report), {
    clock: "ok",
    upload: "ok",
    download: "problem",
    "signed length": "problem",
    "expired URL": "problem",
    "forged URL": "problem",
    CORS: "ok",
  });
  assert.equal(its.sql.prepare("SELECT count(*) FROM uploads").pluck().get(), 0, "its own upload is deleted");
  await its.app.cleaner.runOnce();
  const notTheRight = await runDoctorStorage({
    config: { ...its.config, publicUrl: await startLiar(t) },
    log: silentLog,
  });
  assert.match(find(notTheRight, "upload").what, /took an upload that is not in the store$/);
});

async function listen(t: TestContext, handler: http.RequestListener): Promise<string> {
  const server = http.createServer(handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  return `http://127.0.0.1:${address.port}`;
}

/** A proxy as many are set up: it puts its target's name in place of the Host that the client sent. */
function startHostChanger(t: TestContext, target: string): Promise<string> {
  return listen(t, (req, res) => {
    const { host } = new URL(target);
    const onward = http.request(
      target + req.url,
      { method: req.method, headers: { ...req.headers, host } },
      (answer) => {
        res.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(res);
      },
    );
    req.pipe(onward);
  });
}

/** Answers 200 to whatever comes, and passes the first request on to `target` if there is one. */
function startLiar(t: TestContext, target?: string): Promise<string> {
  let first = target;
  return listen(t, (req, res) => {
    if (first === undefined) {
      req.resume().on("end", () => res.end());
      return;
    }
    const onward = http.request(first + req.url, { method: req.method, headers: req.headers }, (answer) => {
      answer.resume().on("end", () => res.end());
    });
    first = undefined;
    req.pipe(onward);
  });
}

/** A store that looks at no signature, length, time, range or header, and copies whatever it is told to. */
function startLaxStore(t: TestContext, { store, bucket }: S3Patient): Promise<string> {
  return listen(t, async (req, res) => {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of req) chunks.push(chunk);
    } catch {
      // The client has gone: what came is the object.
    }
    const keyIn = (path: string): string => decodeURIComponent(path.replace(/\?.*/, "").slice(bucket.length + 2));
    const key = keyIn(req.url ?? "");
    const from = req.headers["x-amz-copy-source"];
    if (req.method === "PUT" && typeof from === "string") {
      const source = await store.stat(keyIn(from));
      if (source !== null) await store.promote(keyIn(from), key, { source, contentType: "text/plain" });
    } else if (req.method === "PUT") await store.put(key, Buffer.concat(chunks).toString(), "text/plain");
    else if (req.method === "GET") {
      for await (const chunk of await store.read(key)) res.write(chunk);
    }
    res.end();
  });
}
