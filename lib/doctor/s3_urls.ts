import { CHECKSUM_HEADER } from "../store/checksum.ts";
import { corsAdvice, publicAdvice, separateKeysAdvice } from "./advice.ts";
import { allows, allowsPut, codeOf, describeAnswer, describeNoAnswer, type Got, sendRequest } from "./request.ts";
import { CLOCK_SKEW_MS_MAX } from "./store.ts";
import { CONTENT, CONTENT_TYPE, SECRET, type Trial } from "./trial.ts";

/** Longer ago than clocks may differ. */
const EXPIRED_AGO_MS = 2 * CLOCK_SKEW_MS_MAX;
const FILENAME = "stowage doctor é.txt";

/** Whether a client can upload by a signed URL, and the object is then where the service looks for it. */
export async function checkUpload({ report, config, ...trial }: Trial, key: string): Promise<void> {
  const check = "upload";
  const url = trial.putUrl(key);
  const { origin } = new URL(url);
  let got: Got;
  try {
    got = await trial.put(url, { body: CONTENT });
  } catch (error) {
    return report.problem(check, `clients cannot reach ${origin}: ${describeNoAnswer(error)}`, {
      advice:
        "set STOWAGE_S3_PUBLIC_ENDPOINT to the store's URL as clients see it, and see that it can be reached from here too",
    });
  }
  if (got.status !== 200) {
    return report.problem(check, `a PUT to a signed URL is answered ${describeAnswer(got)}`, {
      advice: uploadAdvice(got, config.s3Bucket),
    });
  }
  if ((await trial.sizeOf(key)) !== CONTENT.length) {
    return report.problem(check, `${origin} took an upload that is not in the bucket`, {
      advice: "STOWAGE_S3_PUBLIC_ENDPOINT leads to another server than STOWAGE_S3_ENDPOINT, or to another bucket",
    });
  }
  const make = trial.make();
  report.ok(check, `through ${origin}${make === "another" ? "" : ` (${make})`}`);
}

function uploadAdvice({ status, body }: Got, bucket: string): string {
  if (codeOf(body) === "SignatureDoesNotMatch") {
    return "the secret of the key that signs upload URLs must be right, and a proxy must pass the Host header and the path on as they came (nginx: proxy_set_header Host $http_host)";
  }
  if (status === 403) return `the key that signs upload URLs needs s3:PutObject on ${bucket}/staging/*`;
  if (status === 413) return "a proxy limits the size of a body (nginx: client_max_body_size 0)";
  return "see the log of the store, and of a proxy in front of it";
}

/** Whether a URL that is signed for one length takes that length and no other. */
export async function checkLength({ report, ...trial }: Trial): Promise<void> {
  const check = "signed length";
  const key = trial.stagingKey();
  const url = (): string => trial.putUrl(key, { sizeBytes: CONTENT.length });
  const exact = await trial.put(url(), { body: CONTENT });
  if (exact.status !== 200) {
    return report.problem(check, `a PUT of exactly the signed length is answered ${describeAnswer(exact)}`, {
      advice:
        "a proxy must pass Content-Length on, and not send the body on in chunks (nginx: proxy_request_buffering on)",
    });
  }
  const longer = `${CONTENT} and more`;
  for (const chunked of [false, true]) await trial.put(url(), { body: longer, chunked });
  if ((await trial.sizeOf(key)) === CONTENT.length) return report.ok(check, "another length is refused");
  report.problem(check, "the store takes another length than was signed", {
    advice:
      "uploads are then bounded only at confirm, by STOWAGE_MAX_UPLOAD_BYTES: use another store, or a proxy that limits bodies",
  });
}

/** Whether a URL stops working when its time is over. */
export async function checkExpired({ report, ...trial }: Trial): Promise<void> {
  const check = "expired URL";
  const key = trial.stagingKey();
  const got = await trial.put(trial.putUrl(key, { lifeMs: -EXPIRED_AGO_MS }), { body: CONTENT });
  if (got.status >= 400 && (await trial.sizeOf(key)) === null) {
    return report.ok(check, `refused (${describeAnswer(got)})`);
  }
  report.problem(check, "the store takes an upload with a URL that has expired", {
    advice: "set the store's clock; if it is right, the store does not enforce X-Amz-Expires: use another",
  });
}

/** Whether a client can download by a signed URL, whole and in part, and is told to save it as a file. */
export async function checkDownload({ report, config, ...trial }: Trial, final: string): Promise<void> {
  const check = "download";
  const url = trial.getUrl(final, FILENAME);
  const whole = await sendRequest(url, { method: "GET" });
  if (whole.status !== 200 || whole.body !== SECRET) {
    const otherwise = whole.status === 200 ? " with other bytes" : "";
    return report.problem(check, `a GET of a signed URL is answered ${describeAnswer(whole)}${otherwise}`, {
      advice:
        whole.status === 403
          ? `the key that signs download URLs needs s3:GetObject on ${config.s3Bucket}/final/*; its secret must be right`
          : "see the log of the store, and of a proxy in front of it",
    });
  }
  const part = await sendRequest(url, { method: "GET", headers: { Range: "bytes=5-8" } });
  const hasRange = part.status === 206 && part.body === SECRET.slice(5, 9);
  if (!hasRange) {
    report.problem(check, `a GET of a range is answered ${describeAnswer(part)}`, {
      advice: "downloads cannot be resumed, and media not be sought: see whether a proxy drops the Range header",
    });
  }
  const disposition = whole.headers["content-disposition"] ?? "";
  const hasType = whole.headers["content-type"]?.startsWith(CONTENT_TYPE) === true;
  if (!/^attachment\b/i.test(disposition) || !hasType) {
    return report.problem(check, "the store does not send the signed Content-Disposition and Content-Type", {
      advice:
        "a browser could show a file as a page of the store's origin: give the store an origin of its own, or use another",
    });
  }
  if (hasRange) report.ok(check, "whole and in part, as an attachment");
}

/** Whether an object can be read without a signature, by whoever knows its key. */
export async function checkUnsigned({ report, config, ...trial }: Trial, final: string): Promise<void> {
  const check = "unsigned request";
  const got = await sendRequest(trial.getUrl(final, FILENAME).replace(/\?.*/, ""), { method: "GET" });
  if (got.body !== SECRET) return report.ok(check, `refused (${describeAnswer(got)})`);
  report.problem(check, "everyone may read the bucket, without a signature", {
    advice: publicAdvice(trial.make(), config),
  });
}

/** Whether an upload URL can be made to copy another object: see the S3 notes in the documentation. */
export async function checkSmuggled({ report, config, ...trial }: Trial, final: string): Promise<void> {
  const check = "smuggled copy";
  const key = trial.stagingKey();
  const got = await trial.put(trial.putUrl(key), {
    headers: { "x-amz-copy-source": `/${config.s3Bucket}/${final}` },
  });
  const advice = separateKeysAdvice(trial.make(), config);
  if (((await trial.sizeOf(key)) ?? 0) > 0) {
    return report.problem(
      check,
      "whoever has an upload URL and knows another object's key can copy that object into an upload of theirs",
      { advice },
    );
  }
  report.ok(check, got.status < 300 ? "not made" : `refused (${describeAnswer(got)})`);
  if (config.s3UploadAccessKey === null && trial.make() === "MinIO") {
    report.note(check, "upload URLs are signed with the main key, and something before MinIO refuses the copy", {
      advice,
    });
  }
}

/** Whether pages of the configured origins may upload. */
export async function checkCors({ report, config, ...trial }: Trial): Promise<void> {
  const check = "CORS";
  if (config.corsOrigins.length === 0) return report.ok(check, "not asked for: STOWAGE_CORS_ORIGINS is empty");
  const refused: string[] = [];
  for (const origin of config.corsOrigins) {
    const asked = origin === "*" ? "https://app.example.com" : origin;
    const url = trial.putUrl(trial.stagingKey());
    const preflight = await sendRequest(url, {
      method: "OPTIONS",
      headers: {
        Origin: asked,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": `content-type,${CHECKSUM_HEADER}`,
      },
    });
    // Garage agrees to every preflight, and then sends an answer that the page may not read.
    const actual = await trial.put(url, { body: CONTENT, headers: { Origin: asked } });
    if (!allowsPut(preflight, asked) || !allows(actual, asked)) refused.push(origin);
  }
  if (refused.length === 0) return report.ok(check, `${config.corsOrigins.join(", ")} may upload`);
  report.problem(check, `pages of ${refused.join(", ")} cannot upload to the store`, {
    advice: corsAdvice(trial.make(), config),
  });
}
