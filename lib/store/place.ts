import type { Config } from "../config/config.ts";
import type { StorePlace } from "../core/store_record.ts";
import { OBJECTS_FOLDER } from "../db/data_dir.ts";

/** The place of the store that the settings name. */
export function placeOf({ store, dataDir, s3Endpoint, s3Bucket }: Config): StorePlace {
  if (store === "disk") return { kind: "disk", folder: `${dataDir}/${OBJECTS_FOLDER}` };
  // However it is written, with a slash at its end or without.
  return { kind: "s3", endpoint: new URL(s3Endpoint ?? "").origin, bucket: s3Bucket };
}

/** The place, for a sentence. */
export function describePlace(place: StorePlace): string {
  return place.kind === "disk" ? `the folder "${place.folder}"` : `the bucket "${place.bucket}" at ${place.endpoint}`;
}

export function isSamePlace(one: StorePlace, other: StorePlace): boolean {
  return describePlace(one) === describePlace(other);
}
