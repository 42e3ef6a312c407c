import type { Audit } from "../../books/audit.ts";
import { newObjectKey } from "../../books/object_keys.ts";
import type { Config } from "../../config/config.ts";
import { newId } from "../../ids.ts";
import type { ObjectStore } from "../../store/objects.ts";
import type { Report } from "../report.ts";
import { DISK_ADVICE } from "./advice.ts";
import { CONTENT, createTrial } from "./trial.ts";
import { checkClock, checkCors, checkDownload, checkExpired, checkForged, checkLength, checkUpload } from "./urls.ts";

/** How long the upload lives: whatever becomes of this process, it then expires. */
const LIFE_MS = 10 * 60_000;

export interface DiskCheckOptions {
  config: Config;
  objects: ObjectStore;
  audit: Pick<Audit, "createTrial" | "removeTrial">;
  installationId: string;
  now: () => number;
}

/**
 * Takes a pending upload of its own through the running server by real URLs, as clients see it, and tries what must not
 * work. The upload is deleted at the end, and its object removed by the server.
 */
export async function checkDiskStorage(report: Report, options: DiskCheckOptions): Promise<void> {
  const { config, objects, audit, installationId, now } = options;
  const uploadId = newId();
  const key = newObjectKey("staging", installationId, uploadId);
  const isMade = await audit.createTrial({ uploadId, objectKey: key, expiresAtMs: now() + LIFE_MS, nowMs: now() });
  if (!isMade) return report.note("upload", "there is no user yet that an upload could be made for");

  let skewMs: number | null = null;
  const trial = createTrial(report, {
    ...{ config, objects, advice: DISK_ADVICE, now },
    // The one key that a row names: the server takes no other.
    stagingKey: () => key,
    onPut({ headers }) {
      const dateMs = Date.parse(headers.date ?? "");
      skewMs ??= Number.isNaN(dateMs) ? null : dateMs - now();
    },
  });
  const { attempt } = trial;
  try {
    if (!(await attempt("upload", () => checkUpload(trial, key)))) return;
    await attempt("clock", () => checkClock(trial, skewMs));
    await attempt("download", () => checkDownload(trial, { key, content: CONTENT }));
    await attempt("signed length", () => checkLength(trial));
    await attempt("expired URL", () => checkExpired(trial));
    await attempt("forged URL", () => checkForged(trial));
    await attempt("CORS", () => checkCors(trial));
  } finally {
    await audit.removeTrial(uploadId);
  }
}
