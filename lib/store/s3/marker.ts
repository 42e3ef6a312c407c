import { type ObjectStore, StoreError } from "../objects.ts";
import type { S3Client } from "./client.ts";
import { responseOf, toStoreError } from "./errors.ts";
import { watchedBody } from "./reading.ts";
import { readText } from "./transport.ts";

/** Far more than the marker has; a longer one is not ours. */
const MARKER_BYTES_MAX = 64 * 1024;
const MARKER_TYPE = "application/json";

/** The marker object of a bucket. */
export function createS3Marker(
  client: Pick<S3Client, "get" | "put" | "putIf">,
  { readIdleMs }: { readIdleMs: number },
): Pick<ObjectStore, "readMarker" | "writeMarker"> {
  /** Whether the server knows conditional writes: yes, until it says that it does not. */
  let knowsConditions = true;

  return {
    async readMarker(markerKey) {
      try {
        const response = await client.get(markerKey, { isBulk: false });
        const text = await readText(watchedBody(response, readIdleMs), MARKER_BYTES_MAX);
        return { text, etag: response.headers.etag ?? "" };
      } catch (error) {
        const failed = toStoreError("read the ledger's marker", error);
        if (failed.failure === "absent") return null;
        throw failed;
      }
    },

    async writeMarker(markerKey, text, { replaces }) {
      const body = Buffer.from(text);
      if (knowsConditions) {
        try {
          await client.putIf(markerKey, body, { contentType: MARKER_TYPE, replaces });
          return;
        } catch (error) {
          const failed = toStoreError("write the ledger's marker", error);
          // A marker that is gone is not the one that was read either.
          if (failed.failure === "absent") throw new StoreError("changed", failed.message, failed);
          if (responseOf(failed)?.status !== 501) throw failed;
          // From now on the marker that was read just before is all that there is to go by.
          knowsConditions = false;
        }
      }
      await client.put(markerKey, body, MARKER_TYPE);
    },
  };
}
