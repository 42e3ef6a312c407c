import { create as contentDisposition } from "content-disposition";
import { invalidField } from "../../errors.ts";
import { type ObjectStore, typeWithoutScripts } from "../objects.ts";
import { createPresigner } from "./signing.ts";

/** The key pairs of a store. */
export interface S3Keys {
  accessKey: string;
  secretKey: string;
  /**
   * Keys that sign the URLs instead of the main pair. On some servers a presigned PUT can be made to copy any object that
   * its key may read, so the upload key should be allowed `s3:PutObject` below `staging/` and nothing else.
   */
  uploadAccessKey?: string | undefined;
  uploadSecretKey?: string | undefined;
  downloadAccessKey?: string | undefined;
  downloadSecretKey?: string | undefined;
}

interface UrlOptions extends S3Keys {
  publicEndpoint: URL;
  region: string;
  bucket: string;
  virtualHost: boolean;
  now: () => number;
}

/** The URLs that clients get. Throws `validation_error` if a key for one kind of URL lacks its other half. */
export function createS3Urls(options: UrlOptions): Pick<ObjectStore, "presignPut" | "presignGet"> {
  const { publicEndpoint, region, bucket, virtualHost, accessKey, secretKey, now } = options;
  const signer = { endpoint: publicEndpoint.href, region, bucket, virtualHost };
  const mainKey = { accessKey, secretKey };
  const uploadKey = keyPair("UPLOAD", options.uploadAccessKey, options.uploadSecretKey) ?? mainKey;
  const downloadKey = keyPair("DOWNLOAD", options.downloadAccessKey, options.downloadSecretKey) ?? mainKey;
  const presignUpload = createPresigner({ ...signer, ...uploadKey });
  const presignDownload = createPresigner({ ...signer, ...downloadKey });

  return {
    presignPut(objectKey, { sizeBytes, checksumSha256 = null, expiresAtMs, signedAtMs = Number.POSITIVE_INFINITY }) {
      // The content type is not signed: promote sets the one that counts, and a client that sends another would be refused.
      const limits = { expiresAtMs, contentLength: sizeBytes, checksumSha256 };
      // Never in the future: the server would refuse that.
      return presignUpload({ method: "PUT", objectKey, signedAtMs: Math.min(now(), signedAtMs), ...limits });
    },
    presignGet(objectKey, { contentType, filename, disposition = "attachment", expiresAtMs }) {
      const query = {
        "response-cache-control": "private, no-store",
        "response-content-disposition": contentDisposition(filename, { type: disposition }),
        "response-content-type": disposition === "inline" ? typeWithoutScripts(contentType) : contentType,
      };
      return presignDownload({ method: "GET", objectKey, signedAtMs: now(), expiresAtMs, query });
    },
  };
}

/** Null if neither half is set. */
function keyPair(
  use: string,
  accessKey: string | undefined,
  secretKey: string | undefined,
): { accessKey: string; secretKey: string } | null {
  if (accessKey !== undefined && secretKey !== undefined) return { accessKey, secretKey };
  if (accessKey === undefined && secretKey === undefined) return null;
  throw invalidField(`STOWAGE_S3_${use}_ACCESS_KEY`, `set STOWAGE_S3_${use}_SECRET_KEY along with it, or neither`);
}
