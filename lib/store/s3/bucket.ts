import { placePrefix } from "../../books/object_keys.ts";
import type { Log } from "../../log.ts";
import { type ObjectStore, StoreError } from "../objects.ts";
import type { S3Client } from "./client.ts";
import { responseOf, toStoreError } from "./errors.ts";

export interface S3BucketOptions {
  client: Pick<S3Client, "listPage" | "makeBucket" | "versioning">;
  endpoint: URL;
  region: string;
  bucket: string;
  log: Log;
}

export interface S3Bucket extends Pick<ObjectStore, "probe" | "prepare"> {
  /** Whether removed objects leave versions behind; null if the store does not say. */
  keepsVersions: () => Promise<boolean | null>;
}

/** The bucket itself: whether it can be used, and how it is created. */
export function createS3Bucket({ client, endpoint, region, bucket, log }: S3BucketOptions): S3Bucket {
  /** A listing, because its response has a reason if it fails: HEAD says the same for a wrong secret and a wrong clock. */
  async function probe(): Promise<void> {
    await client.listPage(placePrefix("staging"), null, 1);
  }

  async function prepare({ makes }: { makes: boolean }): Promise<void> {
    try {
      await probe();
    } catch (error) {
      if (!makes || toStoreError("use the bucket", error).failure !== "bucket_missing") throw error;
      await makeBucket();
    }
    if (await keepsVersions()) {
      log.warn("bucket_keeps_versions", {
        bucket,
        hint: "removed objects stay as old versions and take up room: use a bucket without versioning, or a lifecycle rule that expires old versions",
      });
    }
  }

  async function makeBucket(): Promise<void> {
    try {
      await client.makeBucket();
      log.info("bucket_created", { bucket });
    } catch (error) {
      // Another process may have created it meanwhile. All that matters is whether it can be used.
      if (await isUsable()) return;
      const failed = toStoreError("create the bucket", error);
      const response = responseOf(failed);
      if (response === null || response.status >= 500) throw failed;
      const failure = failed.failure === "denied" ? "denied" : "bucket_missing";
      const command = `aws s3 mb s3://${bucket} --region ${region} --endpoint-url ${endpoint.origin}`;
      throw new StoreError(failure, `${failed.message}. Create it yourself: ${command}`, failed);
    }
  }

  function isUsable(): Promise<boolean> {
    return probe().then(
      () => true,
      () => false,
    );
  }

  async function keepsVersions(): Promise<boolean | null> {
    // Some servers do not know this request, and some keys may not make it.
    return await client.versioning().then(
      (status) => status !== "",
      () => null,
    );
  }

  return { probe, prepare, keepsVersions };
}
