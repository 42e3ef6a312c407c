import { newObjectKey } from "../../books/object_keys.ts";
import type { Removals } from "../../books/removals.ts";
import type { Config } from "../../config/config.ts";
import { newId } from "../../ids.ts";
import { StoreError } from "../../store/objects.ts";
import { makeOf, type ServerMake } from "../../store/s3/make.ts";
import type { S3Store } from "../../store/s3/objects_s3.ts";
import type { Report } from "../report.ts";
import { s3Advice } from "./advice.ts";
import { createTrial, type Trial } from "./trial.ts";

/** The final keys stand in the outbox for so long: whatever becomes of this process, the server removes them. */
const LEASE_MS = 10 * 60_000;

/** The content of an object that only its owner may read. */
export const SECRET = "what only its owner may read";

export interface S3TrialOptions {
  config: Config;
  store: S3Store;
  installationId: string;
  removals: Pick<Removals, "lease" | "takeBackLeases">;
  now: () => number;
}

export interface S3Trial extends Trial {
  store: S3Store;
  /** A final key, entered before anything lies under it. A key for downloads may read nothing but final objects. */
  finalKey: () => Promise<string>;
  /** The make of the server, as far as its responses have told. */
  make: () => ServerMake;
  /** Removes the objects, and takes final keys out of the outbox only once nothing lies under them. */
  cleanUp: () => Promise<void>;
}

/**
 * A trial of an S3 store, with objects of its own under an upload id that no upload has. If this process is killed, the server
 * removes them: those in staging with its hourly scan, those in final by their entries in the outbox.
 */
export function createS3Trial(report: Report, options: S3TrialOptions): S3Trial {
  const { config, store, installationId, removals, now } = options;
  const ownId = newId();
  const stagingKeys: string[] = [];
  const finalKeys: string[] = [];
  let make: ServerMake = "another";

  const trial = createTrial(report, {
    ...{ config, objects: store, advice: s3Advice(config, () => make), now },
    stagingKey() {
      const key = newObjectKey("staging", installationId, ownId);
      stagingKeys.push(key);
      return key;
    },
    onPut({ headers }) {
      // By the first response that tells: a request may have been refused by a proxy.
      if (make === "another") make = makeOf([headers.server].flat()[0], config.s3Region);
    },
  });

  return {
    ...trial,
    store,
    make: () => make,
    async finalKey() {
      const key = newObjectKey("final", installationId, ownId);
      const entry = { uploadId: ownId, sizeBytes: SECRET.length, nowMs: now(), leaseMs: LEASE_MS };
      await removals.lease(key, entry);
      finalKeys.push(key);
      return key;
    },
    async cleanUp() {
      const keys = [...stagingKeys, ...finalKeys];
      if (keys.length === 0) return;
      try {
        const failures = await store.remove(keys);
        await removals.takeBackLeases(finalKeys.filter((key) => !failures.has(key)));
        if (failures.size === 0) return;
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
      }
      report.note("clean-up", `objects of this check may be left, with the id ${ownId} in their keys`, {
        advice: "nothing: the server removes them within a day and two hours",
      });
    },
  };
}
