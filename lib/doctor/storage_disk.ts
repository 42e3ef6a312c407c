import type { Config } from "../config/config.ts";
import { newId, newObjectKey } from "../ids.ts";
import { CHECKSUM_HEADER } from "../store/checksum.ts";
import type { ObjectStore } from "../store/objects.ts";
import type { DoctorQueries } from "./queries.ts";
import type { Report } from "./report.ts";
import { allows, allowsPut, describeAnswer, describeNoAnswer, type Got, sendRequest } from "./request.ts";
import { CLOCK_SKEW_MS_MAX, describeSkew } from "./store.ts";

/** How long the URLs, and the upload that they are for, live: whatever becomes of this process, it then expires. */
const LIFE_MS = 10 * 60_000;
const CONTENT_TYPE = "text/plain";
const FILENAME = "stowage doctor é.txt";
const CONTENT = "doctor of stowage";

export interface DiskCheckOptions {
  config: Config;
  objects: ObjectStore;
  queries: DoctorQueries;
  installationId: string;
  /** What clients see of the server. */
  publicUrl: string;
  now: () => number;
}

/**
 * Takes a pending upload of its own through the running server by real URLs, as clients see it, and tries what must not
 * work. The upload is deleted at the end, and its object removed by the server.
 */
export async function checkDiskStorage(report: Report, options: DiskCheckOptions): Promise<void> {
  const { config, objects, queries, installationId, publicUrl, now } = options;
  const uploadId = newId();
  const objectKey = newObjectKey("staging", installationId, uploadId);
  const expiresAtMs = now() + LIFE_MS;
  const isMade = await queries.makeTrial({ uploadId, objectKey, expiresAtMs, nowMs: now() });
  if (!isMade) return report.note("upload", "there is no user yet that an upload could be made for");

  const putUrl = (sizeBytes: number | null = null, atMs = expiresAtMs): string =>
    objects.presignPut(objectKey, { contentType: CONTENT_TYPE, sizeBytes, expiresAtMs: atMs });
  const put = (url: string, body: string, headers: Record<string, string> = {}): Promise<Got> =>
    sendRequest(url, { method: "PUT", body, headers: { "Content-Type": CONTENT_TYPE, ...headers } });

  try {
    let got: Got;
    try {
      got = await put(putUrl(), CONTENT);
    } catch (error) {
      report.problem("upload", `clients cannot reach ${publicUrl}: ${describeNoAnswer(error)}`, {
        advice: "set STOWAGE_PUBLIC_URL to what clients see, and see that it can be reached from here too",
      });
      return;
    }
    checkClock(got);
    if (await checkPut(got)) {
      await checkGet();
      await checkRefused();
      await checkCors();
    }
  } finally {
    await queries.endTrial(uploadId);
  }

  function checkClock({ headers }: Got): void {
    const dateMs = Date.parse(headers.date ?? "");
    if (Number.isNaN(dateMs))
      return report.note("clock", "the server, or a proxy before it, does not say what time it has");
    const skewMs = dateMs - now();
    if (Math.abs(skewMs) <= CLOCK_SKEW_MS_MAX)
      return report.ok("clock", `as this machine's, to ${Math.ceil(Math.abs(skewMs) / 1_000)} s`);
    report.problem("clock", describeSkew(skewMs), { advice: "set both clocks by NTP (`timedatectl set-ntp true`)" });
  }

  async function checkPut(got: Got): Promise<boolean> {
    const check = "upload";
    if (got.status !== 200) {
      report.problem(check, `a PUT to a signed URL is answered ${describeAnswer(got)}`, {
        advice: putAdvice(got.status),
      });
      return false;
    }
    if ((await objects.stat(objectKey))?.sizeBytes !== CONTENT.length) {
      report.problem(check, `${publicUrl} took an upload that is not in the store`, {
        advice: "STOWAGE_PUBLIC_URL leads to another installation's server",
      });
      return false;
    }
    report.ok(check, `through ${publicUrl}`);
    return true;
  }

  async function checkGet(): Promise<void> {
    const check = "download";
    const url = objects.presignGet(objectKey, { contentType: CONTENT_TYPE, filename: FILENAME, expiresAtMs });
    const whole = await sendRequest(url, { method: "GET" });
    const part = await sendRequest(url, { method: "GET", headers: { Range: "bytes=4-6" } });
    const isAttachment = /^attachment\b/i.test(whole.headers["content-disposition"] ?? "");
    if (whole.status !== 200 || whole.body !== CONTENT || !isAttachment) {
      return report.problem(check, `a GET of a signed URL is answered ${describeAnswer(whole)}, not with the file`, {
        advice: "a proxy must pass query parameters, status, headers and body on unchanged",
      });
    }
    if (part.status !== 206 || part.body !== CONTENT.slice(4, 7)) {
      return report.problem(check, `a GET of a range is answered ${describeAnswer(part)}`, {
        advice: "downloads cannot be resumed: see whether a proxy drops the Range header",
      });
    }
    report.ok(check, "whole and in part, as an attachment");
  }

  async function checkRefused(): Promise<void> {
    const forged = putUrl().replace(/.$/, (last) => (last === "A" ? "B" : "A"));
    const trials = [
      ["signed length", await put(putUrl(CONTENT.length), `${CONTENT} and more`)],
      ["expired URL", await put(putUrl(null, now() - 2 * CLOCK_SKEW_MS_MAX), CONTENT)],
      ["forged URL", await put(forged, CONTENT)],
    ] as const;
    for (const [check, got] of trials) {
      if (got.status >= 400) report.ok(check, `refused (${describeAnswer(got)})`);
      else {
        report.problem(check, `a PUT that must be refused is answered ${describeAnswer(got)}`, {
          advice:
            "a proxy answers in the server's place, or changes what it passes on: it must do neither below /objects/",
        });
      }
    }
  }

  async function checkCors(): Promise<void> {
    const check = "CORS";
    if (config.corsOrigins.length === 0) return report.ok(check, "not asked for: STOWAGE_CORS_ORIGINS is empty");
    const refused: string[] = [];
    for (const origin of config.corsOrigins) {
      const asked = origin === "*" ? "https://app.example.com" : origin;
      const headers = {
        Origin: asked,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": `content-type,${CHECKSUM_HEADER}`,
      };
      const preflight = await sendRequest(putUrl(), { method: "OPTIONS", headers });
      const actual = await put(putUrl(), CONTENT, { Origin: asked });
      if (!allowsPut(preflight, asked) || !allows(actual, asked)) refused.push(origin);
    }
    if (refused.length === 0) return report.ok(check, `${config.corsOrigins.join(", ")} may upload`);
    report.problem(check, `pages of ${refused.join(", ")} cannot upload`, {
      advice:
        "restart the server, so that it uses the settings that this command sees; let a proxy pass OPTIONS and the CORS headers on",
    });
  }
}

function putAdvice(status: number | null): string {
  if (status === 413) return "a proxy limits the size of a body (nginx: client_max_body_size 0)";
  if (status === 507) return "make room on the disk of the data directory, or lower STOWAGE_MIN_FREE_BYTES";
  return "STOWAGE_PUBLIC_URL must lead to this installation's server, with its path prefix if a proxy has one";
}
