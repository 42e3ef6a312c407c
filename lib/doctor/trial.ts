import type { Config } from "../config/config.ts";
import type { Removals } from "../core/removals.ts";
import { newId, newObjectKey } from "../ids.ts";
import { StoreError } from "../store/objects.ts";
import { makeOf, type ServerMake } from "../store/s3/make.ts";
import type { S3Store } from "../store/s3/objects_s3.ts";
import type { Report } from "./report.ts";
import { describeNoAnswer, type Got, type Sent, sendRequest } from "./request.ts";
import { adviceOn } from "./store.ts";

/** How long the URLs live that doctor makes and uses at once. */
const URL_LIFE_MS = 5 * 60_000;
/** The final keys stand in the outbox for so long: whatever becomes of this process, the server removes them. */
const LEASE_MS = 10 * 60_000;

/** What is uploaded and fetched again. */
export const CONTENT_TYPE = "text/plain";
export const CONTENT = "doctor of stowage";
export const SECRET = "what only its owner may read";

export interface TrialOptions {
  config: Config;
  store: S3Store;
  installationId: string;
  removals: Pick<Removals, "lease" | "takeBackLease">;
  write: <T>(body: () => T) => Promise<T>;
  now: () => number;
}

export type Trial = ReturnType<typeof createTrial>;

/**
 * What the checks of an S3 store share: objects of their own, under an upload's id that no upload has. If this process is
 * killed, the server removes them: what lies in staging at its hourly look, what lies in final by its entry in the outbox.
 */
export function createTrial(report: Report, options: TrialOptions) {
  const { config, store, installationId, removals, write, now } = options;
  const ownId = newId();
  const stagingKeys: string[] = [];
  const finalKeys: string[] = [];
  let make: ServerMake = "another";

  function stagingKey(): string {
    const key = newObjectKey("staging", installationId, ownId);
    stagingKeys.push(key);
    return key;
  }

  /** Entered before anything lies under it. (A download key may read nothing but final objects.) */
  async function finalKey(): Promise<string> {
    const key = newObjectKey("final", installationId, ownId);
    const entry = { uploadId: ownId, sizeBytes: SECRET.length, nowMs: now(), leaseMs: LEASE_MS };
    await write(() => removals.lease(key, entry));
    finalKeys.push(key);
    return key;
  }

  function putUrl(
    key: string,
    { sizeBytes = null, lifeMs = URL_LIFE_MS, checksumSha256 = null }: PutUrlWish = {},
  ): string {
    const expiresAtMs = now() + lifeMs;
    return store.presignPut(key, { contentType: CONTENT_TYPE, sizeBytes, checksumSha256, expiresAtMs });
  }

  function getUrl(key: string, filename: string): string {
    return store.presignGet(key, { contentType: CONTENT_TYPE, filename, expiresAtMs: now() + URL_LIFE_MS });
  }

  async function put(url: string, sent: Omit<Sent, "method">): Promise<Got> {
    const headers = { "Content-Type": CONTENT_TYPE, ...sent.headers };
    const got = await sendRequest(url, { method: "PUT", ...sent, headers });
    // By the first answer that tells: what refuses a request may be a proxy.
    if (make === "another") make = makeOf([got.headers.server].flat()[0], config.s3Region);
    return got;
  }

  async function sizeOf(key: string): Promise<number | null> {
    return (await store.stat(key))?.sizeBytes ?? null;
  }

  /** What lies under a key, which must be short. */
  async function textOf(key: string): Promise<string> {
    const chunks: Buffer[] = [];
    for await (const chunk of await store.read(key)) chunks.push(chunk);
    return Buffer.concat(chunks).toString();
  }

  /** Runs one check; what it could not find out is a finding too. Resolves with whether it found nothing wrong. */
  async function attempt(check: string, work: () => Promise<void>): Promise<boolean> {
    const before = report.findings.length;
    try {
      await work();
    } catch (error) {
      const isOfStore = error instanceof StoreError;
      report.problem(check, isOfStore ? error.message : describeNoAnswer(error), {
        advice: isOfStore ? adviceOn(error) : "see that clients can reach the public endpoint",
      });
    }
    return report.findings.slice(before).every(({ result }) => result === "ok" || result === "note");
  }

  /** Removes the objects, and takes final keys out of the outbox only once nothing lies under them. */
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
    report.note("clean-up", `objects of this check may be left, with the id ${ownId} in their keys`, {
      advice: "nothing: the server removes them within a day and two hours",
    });
  }

  return {
    ...{ report, config, store, stagingKey, finalKey, putUrl, getUrl, put, sizeOf, textOf, attempt, cleanUp },
    make: () => make,
  };
}

interface PutUrlWish {
  sizeBytes?: number | null;
  lifeMs?: number;
  checksumSha256?: string | null;
}
