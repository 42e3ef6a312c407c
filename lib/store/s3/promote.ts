import { orAfter } from "../../deadline.ts";
import { type ObjectStat, type ObjectStore, type PromoteOptions, StoreError, type StoreFailure } from "../objects.ts";
import type { S3Client } from "./client.ts";
import { S3NoResponseError, toStoreError, UncertainStoreError } from "./errors.ts";

/** Measured: MinIO copies 1 GiB in 3 s, versitygw in 4.4 s. A tenth of that speed is still in time. */
const COPY_BYTES_PER_MS = 50_000;

export interface S3PromoteOptions {
  client: Pick<S3Client, "copy" | "head">;
  stat: ObjectStore["stat"];
  timeouts: { callMs: number; copyMs: number };
}

/** Copies staged objects to their final keys, with one call to the server if all goes well. */
export function createS3Promote(options: S3PromoteOptions): Pick<ObjectStore, "promote" | "promoteMsMax"> {
  const { client, stat, timeouts } = options;

  function copyMsMax(sizeBytes: number): number {
    return timeouts.copyMs + Math.ceil(sizeBytes / COPY_BYTES_PER_MS);
  }

  async function promote(stagingKey: string, finalKey: string, options: PromoteOptions): Promise<ObjectStat> {
    const { source, contentType } = options;
    let mayHaveHappened = false;
    const onRepeat = () => {
      mayHaveHappened = true;
    };
    try {
      const timeoutMs = copyMsMax(source.sizeBytes);
      const etag = await client.copy(stagingKey, finalKey, { source, contentType, timeoutMs, onRepeat });
      mayHaveHappened = true;
      if (etag !== "") return { sizeBytes: source.sizeBytes, etag };
      const copied = await client.head(finalKey);
      if (copied?.sizeBytes !== source.sizeBytes) throw new S3NoResponseError("the copy is not there, or not whole");
      return copied;
    } catch (error) {
      const failed = toStoreError("copy the object", error);
      mayHaveHappened ||= !failed.isRefusal;
      const failure = await failureOfCopy(stagingKey, source, failed);
      if (failure === failed.failure && !mayHaveHappened) throw failed;
      throw new (mayHaveHappened ? UncertainStoreError : StoreError)(failure, failed.message, failed);
    }
  }

  /** Why a copy failed. Servers send all sorts of responses while its source changes or goes. */
  async function failureOfCopy(stagingKey: string, source: ObjectStat, failed: StoreError): Promise<StoreFailure> {
    if (failed.failure === "denied" || failed.failure === "bucket_missing") return failed.failure;
    try {
      const staged = await orAfter(timeouts.callMs, stat(stagingKey), () => {
        throw new S3NoResponseError(`no response within ${timeouts.callMs} ms`);
      });
      if (staged === null) return "absent";
      return staged.etag === source.etag ? "unavailable" : "changed";
    } catch {
      return "unavailable";
    }
  }

  return {
    promote,
    // The copy, a HEAD of it if its response had no ETag, and a stat of the source if either failed.
    promoteMsMax: (sizeBytes) => copyMsMax(sizeBytes) + 2 * timeouts.callMs,
  };
}
