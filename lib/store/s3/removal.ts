import type { Log } from "../../log.ts";
import type { StoreError } from "../objects.ts";
import type { S3Client } from "./client.ts";
import { responseOf, toStoreError } from "./errors.ts";

/** S3 takes at most this many keys in one multi-object delete. */
const BATCH_KEYS_MAX = 1_000;
/** Multi-object deletes in flight. Measured on MinIO: 4 are 1.7 times as fast as one; more only wait in the server. */
const BATCHES_AT_ONCE_MAX = 4;
/** Single deletes in flight, if a server knows no others. Half of the connections stay free for requests. */
const SINGLES_AT_ONCE_MAX = 8;

/** Responses of servers, or of proxies in front of them, that know no multi-object delete. */
const UNSUPPORTED_STATUSES = new Set([405, 501]);
const UNSUPPORTED_CODES = new Set(["MethodNotAllowed", "NotImplemented"]);

/** Refusals that every other key would get as well. */
const CODES_ABOUT_ALL = new Set([
  "AuthorizationHeaderMalformed",
  "ExpiredToken",
  "InvalidAccessKeyId",
  "InvalidToken",
  "RequestTimeTooSkewed",
  "SignatureDoesNotMatch",
]);

type Failures = Map<string, string>;

/**
 * Makes the store's `remove`. It rejects only if the store as a whole failed and nothing at all was removed. After the first
 * response, failures are in its result, key by key, so that the removals that worked can be settled.
 */
export function createRemove({ client, log }: { client: S3Client; log: Log }) {
  let knowsMany = true;

  return async function remove(objectKeys: readonly string[]): Promise<Failures> {
    const keys = [...new Set(objectKeys)];
    if (keys.length === 1 || !knowsMany) return await removeSingly(keys);
    const batches: string[][] = [];
    for (let i = 0; i < keys.length; i += BATCH_KEYS_MAX) batches.push(keys.slice(i, i + BATCH_KEYS_MAX));
    return await inLanes(batches, BATCHES_AT_ONCE_MAX, removeBatch);
  };

  async function removeBatch(keys: readonly string[]): Promise<Failures> {
    if (!knowsMany) return await removeSingly(keys);
    try {
      return await client.removeMany(keys);
    } catch (error) {
      const response = responseOf(error);
      if (response === null || !(UNSUPPORTED_STATUSES.has(response.status) || UNSUPPORTED_CODES.has(response.code)))
        throw error;
      if (knowsMany)
        log.warn("multi_delete_unsupported", { response: response.message, hint: "removing objects one by one" });
      knowsMany = false;
      return await removeSingly(keys);
    }
  }

  async function removeSingly(keys: readonly string[]): Promise<Failures> {
    return await inLanes(
      keys.map((key) => [key]),
      SINGLES_AT_ONCE_MAX,
      removeOne,
    );
  }

  async function removeOne([key = ""]: readonly string[]): Promise<Failures> {
    try {
      await client.remove(key);
    } catch (error) {
      const { failure, message } = toStoreError("remove the object", error);
      // A refusal may be about this object alone: a locked one must not hold up the others. If it is about our key or our
      // clock it concerns all of them, and the store as a whole counts as down, so that no attempt is used up.
      const code = responseOf(error)?.code ?? "";
      const isOfThisObject = failure === "changed" || (failure === "denied" && !CODES_ABOUT_ALL.has(code));
      if (isOfThisObject) return new Map([[key, message]]);
      if (failure !== "absent") throw error;
    }
    return new Map();
  }
}

/**
 * Works on batches of keys, `lanesMax` at once. If one fails as a whole, no further one is begun: each would only wait for its
 * time-out.
 */
async function inLanes(
  batches: readonly (readonly string[])[],
  lanesMax: number,
  work: (keys: readonly string[]) => Promise<Failures>,
): Promise<Failures> {
  const failures: Failures = new Map();
  const waiting = batches.values();
  let stoppedBy: StoreError | null = null;
  let hasResponse = false;

  async function lane(): Promise<void> {
    for (const keys of waiting) {
      try {
        if (stoppedBy === null) {
          for (const [key, reason] of await work(keys)) failures.set(key, reason);
          hasResponse = true;
          continue;
        }
      } catch (error) {
        stoppedBy = toStoreError("remove objects", error);
      }
      for (const key of keys) failures.set(key, stoppedBy.message);
    }
  }

  await Promise.all(Array.from({ length: Math.min(lanesMax, batches.length) }, lane));
  if (stoppedBy !== null && !hasResponse) throw stoppedBy;
  return failures;
}
