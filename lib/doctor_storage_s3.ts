import type { Config } from "./config.ts";
import {
  corsAdvice,
  makeOf,
  publicAdvice,
  type ServerMake,
  separateKeysAdvice,
  versioningAdvice,
} from "./doctor_advice.ts";
import type { Report } from "./doctor_report.ts";
import {
  allows,
  allowsPut,
  codeOf,
  describeAnswer,
  describeNoAnswer,
  type Got,
  type Sent,
  sendRequest,
} from "./doctor_request.ts";
import { adviceOn, CLOCK_SKEW_MS_MAX, describeSkew } from "./doctor_store.ts";
import { newId, newObjectKey } from "./ids.ts";
import { StoreError } from "./objects.ts";
import type { S3Store } from "./objects_s3.ts";
import type { Removals } from "./removals.ts";

/** How long the URLs live that doctor makes and uses at once. */
const URL_LIFE_MS = 5 * 60_000;
/** The final keys stand in the outbox for so long: whatever becomes of this process, the server removes them. */
const LEASE_MS = 10 * 60_000;
/** Longer ago than clocks may differ. */
const EXPIRED_AGO_MS = 2 * CLOCK_SKEW_MS_MAX;
const CONTENT_TYPE = "text/plain";
const FILENAME = "stowage doctor é.txt";
const CONTENT = "doctor of stowage";
const SECRET = "what only its owner may read";

export interface S3CheckOptions {
  config: Config;
  store: S3Store;
  installationId: string;
  removals: Pick<Removals, "lease" | "takeBackLease">;
  write: <T>(body: () => T) => Promise<T>;
  now: () => number;
  /** Whether a removal of many fell back to single ones. */
  lacksMultiDelete: () => boolean;
}

/**
 * Takes objects of its own through all that the service and its clients do with the store, through the public endpoint and
 * with real URLs, and tries what must not work. Its objects are removed at the end; if it is killed, by the server.
 */
export async function checkS3Storage(report: Report, options: S3CheckOptions): Promise<void> {
  const { config, store, installationId, removals, write, now } = options;
  const ownId = newId();
  const stagingKeys: string[] = [];
  const finalKeys: string[] = [];
  let make: ServerMake = "another";

  const stagingKey = (): string => {
    const key = newObjectKey("staging", installationId, ownId);
    stagingKeys.push(key);
    return key;
  };
  /** Entered before anything lies under it. */
  const finalKey = async (): Promise<string> => {
    const key = newObjectKey("final", installationId, ownId);
    await write(() =>
      removals.lease(key, { uploadId: ownId, sizeBytes: SECRET.length, nowMs: now(), leaseMs: LEASE_MS }),
    );
    finalKeys.push(key);
    return key;
  };
  const putUrl = (key: string, sizeBytes: number | null = null, lifeMs = URL_LIFE_MS): string =>
    store.presignPut(key, { contentType: CONTENT_TYPE, sizeBytes, expiresAtMs: now() + lifeMs });
  const put = (url: string, sent: Omit<Sent, "method">): Promise<Got> =>
    sendRequest(url, { method: "PUT", ...sent, headers: { "Content-Type": CONTENT_TYPE, ...sent.headers } });
  const sizeOf = async (key: string): Promise<number | null> => (await store.stat(key))?.sizeBytes ?? null;

  try {
    if (!(await checkReach())) return;
    await attempt("clock", checkClock);
    const staged = stagingKey();
    if (!(await attempt("upload", () => checkPut(staged)))) return;
    await attempt("signed length", checkLength);
    await attempt("expired URL", checkExpired);
    const final = await finalKey();
    if (await attempt("copy", () => checkCopy(staged, final))) {
      await attempt("download", () => checkGet(final));
      await attempt("unsigned request", () => checkUnsigned(final));
      await attempt("smuggled copy", () => checkSmuggled(final));
    }
    await attempt("removal", () => checkRemoval(staged));
    await attempt("versions", checkVersions);
    await attempt("CORS", checkCors);
  } finally {
    await cleanUp();
  }

  /** Runs one check; what it could not find out is a finding too. Resolves with whether it found nothing wrong. */
  async function attempt(check: string, work: () => Promise<void>): Promise<boolean> {
    const before = report.findings.length;
    try {
      await work();
    } catch (error) {
      const advice = error instanceof StoreError ? adviceOn(error) : "see that clients can reach the public endpoint";
      report.problem(check, error instanceof StoreError ? error.message : describeNoAnswer(error), { advice });
    }
    return report.findings.slice(before).every(({ result }) => result === "ok" || result === "note");
  }

  function checkReach(): Promise<boolean> {
    return attempt("store", async () => {
      await store.probe();
      report.ok("store", `${config.s3Endpoint} answers, and the bucket "${config.s3Bucket}" is there`);
    });
  }

  async function checkClock(): Promise<void> {
    const skewMs = store.clockSkewMs();
    if (skewMs === null) return report.note("clock", "the store does not say what time it has");
    if (Math.abs(skewMs) <= CLOCK_SKEW_MS_MAX)
      return report.ok("clock", `as this machine's, to ${Math.ceil(Math.abs(skewMs) / 1_000)} s`);
    report.problem("clock", describeSkew(skewMs), {
      advice: "set both clocks by NTP (`timedatectl set-ntp true`): URLs live too long or not at all, ages are wrong",
    });
  }

  async function checkPut(key: string): Promise<void> {
    const check = "upload";
    const url = putUrl(key);
    const { origin } = new URL(url);
    let got: Got;
    try {
      got = await put(url, { body: CONTENT });
    } catch (error) {
      return report.problem(check, `clients cannot reach ${origin}: ${describeNoAnswer(error)}`, {
        advice:
          "set STOWAGE_S3_PUBLIC_ENDPOINT to the store's URL as clients see it, and see that it can be reached from here too",
      });
    }
    const [server] = [got.headers.server].flat();
    make = makeOf(server, config.s3Region);
    if (got.status !== 200) {
      return report.problem(check, `a PUT to a signed URL is answered ${describeAnswer(got)}`, {
        advice: putAdvice(got),
      });
    }
    if ((await sizeOf(key)) !== CONTENT.length) {
      return report.problem(check, `${origin} took an upload that is not in the bucket`, {
        advice: "STOWAGE_S3_PUBLIC_ENDPOINT leads to another server than STOWAGE_S3_ENDPOINT, or to another bucket",
      });
    }
    report.ok(check, `through ${origin}${make === "another" ? "" : ` (${make})`}`);
  }

  function putAdvice({ status, body }: Got): string {
    if (codeOf(body) === "SignatureDoesNotMatch") {
      return "a proxy must pass the Host header on as it came (nginx: proxy_set_header Host $http_host), and the path unchanged";
    }
    if (status === 403)
      return `the key that signs upload URLs needs s3:PutObject on ${config.s3Bucket}/staging/*; its secret must be right`;
    if (status === 413) return "a proxy limits the size of a body (nginx: client_max_body_size 0)";
    return "see the log of the store, and of a proxy in front of it";
  }

  async function checkLength(): Promise<void> {
    const check = "signed length";
    const key = stagingKey();
    const exact = await put(putUrl(key, CONTENT.length), { body: CONTENT });
    if (exact.status !== 200) {
      return report.problem(check, `a PUT of exactly the signed length is answered ${describeAnswer(exact)}`, {
        advice:
          "a proxy must pass Content-Length on, and must not send the body on in chunks (nginx: proxy_request_buffering on)",
      });
    }
    const longer = `${CONTENT} and more`;
    for (const sent of [{ body: longer }, { body: longer, chunked: true }])
      await put(putUrl(key, CONTENT.length), sent);
    if ((await sizeOf(key)) === CONTENT.length) return report.ok(check, "another length is refused");
    report.problem(check, "the store takes another length than was signed", {
      advice:
        "uploads are then bounded at confirm only, by STOWAGE_MAX_UPLOAD_BYTES; use another store, or a proxy that limits bodies",
    });
  }

  async function checkExpired(): Promise<void> {
    const check = "expired URL";
    const key = stagingKey();
    const got = await put(putUrl(key, null, -EXPIRED_AGO_MS), { body: CONTENT });
    if (got.status >= 400 && (await sizeOf(key)) === null) return report.ok(check, `refused (${describeAnswer(got)})`);
    report.problem(check, "the store takes an upload with a URL that has expired", {
      advice: "set the store's clock; if it is right, this store does not enforce X-Amz-Expires: use another",
    });
  }

  async function checkCopy(staged: string, final: string): Promise<void> {
    const check = "copy";
    await store.put(staged, SECRET, CONTENT_TYPE);
    const source = await store.stat(staged);
    if (source === null)
      return report.problem(check, "an object that was just stored is not there", {
        advice: "the store must be strongly consistent",
      });
    const copied = await store.promote(staged, final, { source, contentType: CONTENT_TYPE });
    const other = await finalKey();
    const stale = { ...source, etag: '"00000000000000000000000000000000"' };
    const took = await store.promote(staged, other, { source: stale, contentType: CONTENT_TYPE }).then(
      () => true,
      () => false,
    );
    if (took || (await sizeOf(other)) !== null) {
      return report.problem(check, "the store copies an object that is no longer the one that was looked at", {
        advice:
          "it ignores x-amz-copy-source-if-match: a file that is overwritten while it is confirmed could be charged wrongly. Use another store",
      });
    }
    if (copied.sizeBytes !== SECRET.length)
      return report.problem(check, "the copy is not whole", { advice: "use another store" });
    report.ok(check, "whole, and only of the object that was looked at");
  }

  async function checkGet(final: string): Promise<void> {
    const check = "download";
    const url = store.presignGet(final, {
      contentType: CONTENT_TYPE,
      filename: FILENAME,
      expiresAtMs: now() + URL_LIFE_MS,
    });
    const whole = await sendRequest(url, { method: "GET" });
    if (whole.status !== 200 || whole.body !== SECRET) {
      return report.problem(
        check,
        `a GET of a signed URL is answered ${describeAnswer(whole)}${whole.status === 200 ? " with other bytes" : ""}`,
        {
          advice:
            whole.status === 403
              ? `the key that signs download URLs needs s3:GetObject on ${config.s3Bucket}/final/*; its secret must be right`
              : "see the log of the store, and of a proxy in front of it",
        },
      );
    }
    const part = await sendRequest(url, { method: "GET", headers: { Range: "bytes=5-8" } });
    if (part.status !== 206 || part.body !== SECRET.slice(5, 9)) {
      report.problem(check, `a GET of a range is answered ${describeAnswer(part)}`, {
        advice: "downloads cannot be resumed, media cannot be sought: see whether a proxy drops the Range header",
      });
    }
    const disposition = whole.headers["content-disposition"] ?? "";
    if (!/^attachment\b/i.test(disposition) || whole.headers["content-type"]?.startsWith(CONTENT_TYPE) !== true) {
      return report.problem(check, "the store does not send the signed Content-Disposition and Content-Type", {
        advice:
          "a browser could show a file as a page of the store's origin: give the store an origin of its own, or use another",
      });
    }
    if (part.status === 206) report.ok(check, "whole and in part, as an attachment");
  }

  async function checkUnsigned(final: string): Promise<void> {
    const check = "unsigned request";
    const url = store.presignGet(final, {
      contentType: CONTENT_TYPE,
      filename: FILENAME,
      expiresAtMs: now() + URL_LIFE_MS,
    });
    const got = await sendRequest(url.replace(/\?.*/, ""), { method: "GET" });
    if (got.body !== SECRET) return report.ok(check, `refused (${describeAnswer(got)})`);
    report.problem(check, "everyone may read the bucket, without a signature", { advice: publicAdvice(make, config) });
  }

  async function checkSmuggled(final: string): Promise<void> {
    const check = "smuggled copy";
    const key = stagingKey();
    const got = await put(putUrl(key), { headers: { "x-amz-copy-source": `/${config.s3Bucket}/${final}` } });
    const size = await sizeOf(key);
    if (size !== null && size > 0) {
      return report.problem(
        check,
        "whoever has an upload URL and knows a key can copy that object to where they may read it",
        {
          advice: separateKeysAdvice(make, config),
        },
      );
    }
    report.ok(check, got.status < 300 ? "not made" : `refused (${describeAnswer(got)})`);
    if (config.s3UploadAccessKey === null && make === "MinIO") {
      report.note(check, "URLs are signed with the main key", { advice: separateKeysAdvice(make, config) });
    }
  }

  async function checkRemoval(staged: string): Promise<void> {
    const check = "removal";
    const many = [stagingKey(), stagingKey(), stagingKey()];
    for (const key of many) await store.put(key, CONTENT, CONTENT_TYPE);
    for (const keys of [[staged], many]) {
      const failures = await store.remove(keys);
      const left = await Promise.all(keys.map(sizeOf));
      if (failures.size === 0 && left.every((size) => size === null)) continue;
      return report.problem(
        check,
        `removed objects are still there${[...failures.values()].map((text) => `: ${text}`)[0] ?? ""}`,
        {
          advice: `the main key needs s3:DeleteObject on ${config.s3Bucket}/*, and no object lock or retention may hold objects`,
        },
      );
    }
    if (options.lacksMultiDelete()) {
      return report.note(check, "the store removes objects one by one only", {
        advice: "nothing: a large backlog takes longer",
      });
    }
    report.ok(check, "single and in bulk");
  }

  async function checkVersions(): Promise<void> {
    const keeps = await store.keepsVersions();
    if (keeps === null) return report.note("versions", "the store does not say whether it keeps old versions");
    if (!keeps) return report.ok("versions", "the bucket keeps none");
    report.problem("versions", "the bucket keeps removed objects as old versions, which take up room for good", {
      advice: versioningAdvice(make, config),
    });
  }

  async function checkCors(): Promise<void> {
    const check = "CORS";
    if (config.corsOrigins.length === 0) return report.ok(check, "not asked for: STOWAGE_CORS_ORIGINS is empty");
    const refused: string[] = [];
    for (const origin of config.corsOrigins) {
      const asked = origin === "*" ? "https://app.example.com" : origin;
      const url = putUrl(stagingKey());
      const preflight = await sendRequest(url, {
        method: "OPTIONS",
        headers: {
          Origin: asked,
          "Access-Control-Request-Method": "PUT",
          "Access-Control-Request-Headers": "content-type",
        },
      });
      // Some servers agree to every preflight, and then send an answer that the page may not read.
      const actual = await put(url, { body: CONTENT, headers: { Origin: asked } });
      if (!allowsPut(preflight, asked) || !allows(actual, asked)) refused.push(origin);
    }
    if (refused.length === 0) return report.ok(check, `${config.corsOrigins.join(", ")} may upload`);
    report.problem(check, `pages of ${refused.join(", ")} cannot upload to the store`, {
      advice: corsAdvice(make, config),
    });
  }

  async function cleanUp(): Promise<void> {
    const keys = [...stagingKeys, ...finalKeys];
    if (keys.length === 0) return;
    try {
      const failures = await store.remove(keys);
      await write(() => {
        for (const key of finalKeys) if (!failures.has(key)) removals.takeBackLease(key);
      });
      if (failures.size === 0) return;
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
    }
    report.note("clean-up", `objects of this check were left below staging/${installationId}/${ownId}/ and final/...`, {
      advice: "nothing: the server removes them within a day and an hour",
    });
  }
}
