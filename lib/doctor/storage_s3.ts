import { versioningAdvice } from "./advice.ts";
import type { Report } from "./report.ts";
import { checkChecksum, checkCut } from "./s3_bodies.ts";
import {
  checkCors,
  checkDownload,
  checkExpired,
  checkLength,
  checkSmuggled,
  checkUnsigned,
  checkUpload,
} from "./s3_urls.ts";
import { CLOCK_SKEW_MS_MAX, describeSkew } from "./store.ts";
import { CONTENT, CONTENT_TYPE, createTrial, SECRET, type Trial, type TrialOptions } from "./trial.ts";

export interface S3CheckOptions extends TrialOptions {
  /** Whether a removal of many fell back to single ones. */
  lacksMultiDelete: () => boolean;
}

/**
 * Takes objects of its own through all that the service and its clients do with the store, through the public endpoint and
 * with real URLs, and tries what must not work. Its objects are removed at the end.
 */
export async function checkS3Storage(report: Report, options: S3CheckOptions): Promise<void> {
  const trial = createTrial(report, options);
  const { attempt } = trial;
  try {
    if (!(await attempt("store", () => checkReach(trial)))) return;
    await attempt("clock", () => checkClock(trial));
    const staged = trial.stagingKey();
    if (!(await attempt("upload", () => checkUpload(trial, staged)))) return;
    await attempt("signed length", () => checkLength(trial));
    await attempt("signed checksum", () => checkChecksum(trial));
    await attempt("cut upload", () => checkCut(trial));
    await attempt("expired URL", () => checkExpired(trial));
    const final = await trial.finalKey();
    if (await attempt("copy", () => checkCopy(trial, staged, final))) {
      await attempt("download", () => checkDownload(trial, final));
      await attempt("unsigned request", () => checkUnsigned(trial, final));
      await attempt("smuggled copy", () => checkSmuggled(trial, final));
    }
    await attempt("removal", () => checkRemoval(trial, staged, options.lacksMultiDelete));
    await attempt("versions", () => checkVersions(trial));
    await attempt("CORS", () => checkCors(trial));
  } finally {
    await trial.cleanUp();
  }
}

async function checkReach({ report, config, store }: Trial): Promise<void> {
  await store.probe();
  report.ok("store", `${config.s3Endpoint} answers, and the bucket "${config.s3Bucket}" is there`);
}

async function checkClock({ report, store }: Trial): Promise<void> {
  const skewMs = store.clockSkewMs();
  if (skewMs === null) return report.note("clock", "the store does not say what time it has");
  if (Math.abs(skewMs) <= CLOCK_SKEW_MS_MAX) {
    return report.ok("clock", `as this machine's, to ${Math.ceil(Math.abs(skewMs) / 1_000)} s`);
  }
  report.problem("clock", describeSkew(skewMs), {
    advice: "set both clocks by NTP (`timedatectl set-ntp true`): URLs live too long or not at all, ages are wrong",
  });
}

async function checkCopy({ report, store, ...trial }: Trial, staged: string, final: string): Promise<void> {
  const check = "copy";
  await store.put(staged, SECRET, CONTENT_TYPE);
  const source = await store.stat(staged);
  if (source === null) {
    return report.problem(check, "an object that was just stored is not there", {
      advice: "the store must show what was stored at once: use another",
    });
  }
  const copied = await store.promote(staged, final, { source, contentType: CONTENT_TYPE });
  if (copied.sizeBytes !== SECRET.length || (await trial.sizeOf(final)) !== SECRET.length) {
    return report.problem(check, "the copy is not whole", { advice: "use another store" });
  }
  const other = await trial.finalKey();
  const stale = { ...source, etag: '"00000000000000000000000000000000"' };
  // How it is refused does not matter; what counts is that nothing was made.
  await store.promote(staged, other, { source: stale, contentType: CONTENT_TYPE }).catch(() => {});
  if ((await trial.sizeOf(other)) !== null) {
    return report.problem(check, "the store copies an object that is no longer the one that was looked at", {
      advice:
        "it ignores x-amz-copy-source-if-match: a file that is overwritten while it is confirmed could be charged wrongly. Use another store",
    });
  }
  report.ok(check, "whole, and only of the object that was looked at");
}

async function checkRemoval(
  { report, config, store, ...trial }: Trial,
  staged: string,
  lacksMultiDelete: () => boolean,
): Promise<void> {
  const check = "removal";
  const many = [trial.stagingKey(), trial.stagingKey(), trial.stagingKey()];
  for (const key of many) await store.put(key, CONTENT, CONTENT_TYPE);
  for (const keys of [[staged], many]) {
    const [reason] = (await store.remove(keys)).values();
    const left = (await Promise.all(keys.map(trial.sizeOf))).filter((size) => size !== null);
    if (reason === undefined && left.length === 0) continue;
    return report.problem(check, reason ?? "objects whose removal succeeded are still there", {
      advice: `the main key needs s3:DeleteObject on ${config.s3Bucket}/*, and no lock or retention may hold objects`,
    });
  }
  if (lacksMultiDelete()) {
    return report.note(check, "the store removes objects one by one only: a large backlog takes longer");
  }
  report.ok(check, "single and in bulk");
}

async function checkVersions({ report, config, store, make }: Trial): Promise<void> {
  const check = "versions";
  const keeps = await store.keepsVersions();
  if (keeps === null) return report.note(check, "the store does not say whether it keeps old versions");
  if (!keeps) return report.ok(check, "the bucket keeps none");
  report.problem(check, "the bucket keeps removed objects as old versions, which take up room for good", {
    advice: versioningAdvice(make(), config),
  });
}
