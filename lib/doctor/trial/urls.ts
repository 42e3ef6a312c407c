import { CHECKSUM_HEADER } from "../../store/checksum.ts";
import { CLOCK_SKEW_MS_MAX, describeSkew } from "../objects.ts";
import { allows, allowsPut, describeNoResponse, describeResponse, type Got, sendRequest } from "./request.ts";
import { CONTENT, CONTENT_TYPE, type Trial } from "./trial.ts";

/** Longer ago than clocks may differ. */
const EXPIRED_AGO_MS = 2 * CLOCK_SKEW_MS_MAX;
const FILENAME = "stowage doctor é.txt";

/** Checks the store's clock against this machine's. `skewMs` is null if the store does not tell its time. */
export async function checkClock({ report, advice }: Trial, skewMs: number | null): Promise<void> {
  const check = "clock";
  if (skewMs === null) return report.note(check, "the store does not say what time it has");
  if (Math.abs(skewMs) > CLOCK_SKEW_MS_MAX) {
    return report.problem(check, describeSkew(skewMs), { advice: advice.clock });
  }
  report.ok(check, `as this machine's, to ${Math.ceil(Math.abs(skewMs) / 1_000)} s`);
}

/** Checks that a client can upload with a signed URL, and that the service then finds the object. */
export async function checkUpload({ report, advice, ...trial }: Trial, key: string): Promise<void> {
  const check = "upload";
  const url = trial.putUrl(key);
  const { origin } = new URL(url);
  let got: Got;
  try {
    got = await trial.put(url, { body: CONTENT });
  } catch (error) {
    return report.problem(check, `clients cannot reach ${origin}: ${describeNoResponse(error)}`, {
      advice: advice.unreachable,
    });
  }
  if (got.status !== 200) {
    return report.problem(check, `a PUT to a signed URL got ${describeResponse(got)}`, {
      advice: advice.refusedPut(got),
    });
  }
  if ((await trial.sizeOf(key)) !== CONTENT.length) {
    return report.problem(check, `${origin} took an upload that is not in the store`, { advice: advice.elsewhere });
  }
  report.ok(check, `through ${origin}${advice.make()}`);
}

/** Checks that a URL that is signed for one length takes that length and no other. */
export async function checkLength({ report, advice, ...trial }: Trial): Promise<void> {
  const check = "signed length";
  const key = trial.stagingKey();
  const url = (): string => trial.putUrl(key, { sizeBytes: CONTENT.length });
  const exact = await trial.put(url(), { body: CONTENT });
  if (exact.status !== 200) {
    return report.problem(check, `a PUT of exactly the signed length got ${describeResponse(exact)}`, {
      advice:
        "a proxy must pass Content-Length on, and not send the body on in chunks (nginx: proxy_request_buffering on)",
    });
  }
  const longer = `${CONTENT} and more`;
  const statuses: number[] = [];
  for (const chunked of [false, true]) statuses.push((await trial.put(url(), { body: longer, chunked })).status);
  if ((await trial.sizeOf(key)) !== CONTENT.length) {
    return report.problem(check, "the store takes another length than was signed", { advice: advice.otherLength });
  }
  if (statuses.some((status) => status < 400)) {
    return report.problem(check, "a PUT of another length than was signed is reported as done", {
      advice: advice.liar,
    });
  }
  report.ok(check, "another length is refused");
}

/** Checks that a URL stops working when its time is over. */
export async function checkExpired(trial: Trial): Promise<void> {
  const key = trial.stagingKey();
  await checkRefused(trial, key, {
    check: "expired URL",
    url: trial.putUrl(key, { lifeMs: -EXPIRED_AGO_MS }),
    accepted: "the store takes an upload with a URL that has expired",
    advice: trial.advice.expired,
  });
}

/** Checks that a URL whose signature is wrong does not work. */
export async function checkForged(trial: Trial): Promise<void> {
  const key = trial.stagingKey();
  await checkRefused(trial, key, {
    check: "forged URL",
    url: trial.putUrl(key).replace(/.$/, (last) => (last === "a" || last === "A" ? "b" : "a")),
    accepted: "the store takes an upload with a URL whose signature is wrong",
    advice: "anyone can write to the store: use another, or see what a proxy in front of it lets through",
  });
}

/** Checks that a PUT to a URL is refused, and has changed nothing. */
async function checkRefused(
  { report, advice, ...trial }: Trial,
  key: string,
  refused: { check: string; url: string; accepted: string; advice: string },
): Promise<void> {
  const other = CONTENT.toUpperCase();
  const before = await trial.sizeOf(key);
  const got = await trial.put(refused.url, { body: `${other}!` });
  if ((await trial.sizeOf(key)) !== before) {
    return report.problem(refused.check, refused.accepted, { advice: refused.advice });
  }
  if (got.status < 400) {
    return report.problem(refused.check, `a PUT that must be refused got ${describeResponse(got)}`, {
      advice: advice.liar,
    });
  }
  report.ok(refused.check, `refused (${describeResponse(got)})`);
}

/** Checks that a client can download an object with a signed URL, whole and in part, and is told to save it as a file. */
export async function checkDownload(
  { report, advice, ...trial }: Trial,
  { key, content }: { key: string; content: string },
): Promise<void> {
  const check = "download";
  const url = trial.getUrl(key, FILENAME);
  const whole = await sendRequest(url, { method: "GET" });
  if (whole.status !== 200 || whole.body !== content) {
    const otherwise = whole.status === 200 ? " with other bytes" : "";
    return report.problem(check, `a GET of a signed URL got ${describeResponse(whole)}${otherwise}`, {
      advice: advice.refusedGet(whole),
    });
  }
  const part = await sendRequest(url, { method: "GET", headers: { Range: "bytes=5-8" } });
  const hasRange = part.status === 206 && part.body === content.slice(5, 9);
  if (!hasRange) {
    report.problem(check, `a GET of a range got ${describeResponse(part)}`, {
      advice: "downloads cannot be resumed, and media not be sought: see whether a proxy drops the Range header",
    });
  }
  const disposition = whole.headers["content-disposition"] ?? "";
  const hasType = whole.headers["content-type"]?.startsWith(CONTENT_TYPE) === true;
  if (!/^attachment\b/i.test(disposition) || !hasType) {
    return report.problem(check, "the store does not send the signed Content-Disposition and Content-Type", {
      advice: advice.headers,
    });
  }
  if (hasRange) report.ok(check, "whole and in part, as an attachment");
}

/** Checks that pages of the configured origins may upload. */
export async function checkCors({ report, config, advice, ...trial }: Trial): Promise<void> {
  const check = "CORS";
  if (config.corsOrigins.length === 0) return report.ok(check, "not asked for: STOWAGE_CORS_ORIGINS is empty");
  const refused: string[] = [];
  for (const configured of config.corsOrigins) {
    const origin = configured === "*" ? "https://app.example.com" : configured;
    const url = trial.putUrl(trial.stagingKey());
    const preflight = await sendRequest(url, {
      method: "OPTIONS",
      headers: {
        Origin: origin,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": `content-type,${CHECKSUM_HEADER}`,
      },
    });
    // Garage agrees to every preflight, and then sends a response that the page may not read.
    const actual = await trial.put(url, { body: CONTENT, headers: { Origin: origin } });
    if (!allowsPut(preflight, origin) || !allows(actual, origin)) refused.push(configured);
  }
  if (refused.length === 0) return report.ok(check, `${config.corsOrigins.join(", ")} may upload`);
  report.problem(check, `pages of ${refused.join(", ")} cannot upload to the store`, { advice: advice.cors() });
}
