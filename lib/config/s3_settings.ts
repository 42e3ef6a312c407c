import * as z from "zod";
import type { Setting } from "./config.ts";

const text = z.string();
/** What every S3 server takes; others are refused by some of them, and by the client library. */
const bucketName = z
  .string()
  .refine(
    (name) => /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(name) && !name.includes("..") && !/\d\.\d+\.\d+\.\d/.test(name),
    "must be a bucket's name: 3 to 63 lower-case letters, digits, hyphens or single dots, and no IP address",
  );

/** The settings of the S3 store, read where `STOWAGE_STORE` is `s3`. */
export function s3Settings(httpUrl: z.ZodType<string, string>) {
  return {
    s3Endpoint: {
      name: "S3_ENDPOINT",
      schema: httpUrl,
      default: null,
      describe: "URL at which this process reaches the S3 server, such as `http://minio:9000`.",
    },
    s3PublicEndpoint: {
      name: "S3_PUBLIC_ENDPOINT",
      schema: httpUrl,
      default: null,
      describe:
        "URL at which clients reach the S3 server. It goes into signed URLs, so a proxy in front of it must keep the `Host` header. Default: `STOWAGE_S3_ENDPOINT`.",
    },
    s3Region: {
      name: "S3_REGION",
      schema: text,
      default: "us-east-1",
      describe: "Region that requests are signed for. The default is what most self-hosted servers use.",
    },
    s3Bucket: {
      name: "S3_BUCKET",
      schema: bucketName,
      default: "stowage",
      describe:
        "Bucket, created at the first start. Once something is stored, a missing bucket is never created again.",
    },
    s3VirtualHost: {
      name: "S3_VIRTUAL_HOST",
      schema: z.enum(["true", "false"], "must be true or false").transform((value) => value === "true"),
      default: "false",
      describe: "`true` puts the bucket in the host name, `false` in the path.",
    },
    s3AccessKey: { name: "S3_ACCESS_KEY", schema: text, default: null, describe: "Access key of the S3 server." },
    s3SecretKey: { name: "S3_SECRET_KEY", schema: text, default: null, describe: "Its secret.", secret: true },
    s3UploadAccessKey: {
      name: "S3_UPLOAD_ACCESS_KEY",
      schema: text,
      default: null,
      describe:
        "Access key that signs upload URLs. It should be allowed `s3:PutObject` below `staging/` and nothing else. Default: the main key.",
    },
    s3UploadSecretKey: {
      name: "S3_UPLOAD_SECRET_KEY",
      schema: text,
      default: null,
      describe: "Its secret.",
      secret: true,
    },
    s3DownloadAccessKey: {
      name: "S3_DOWNLOAD_ACCESS_KEY",
      schema: text,
      default: null,
      describe:
        "Access key that signs download URLs. It should be allowed `s3:GetObject` below `final/` and nothing else. Default: the main key.",
    },
    s3DownloadSecretKey: {
      name: "S3_DOWNLOAD_SECRET_KEY",
      schema: text,
      default: null,
      describe: "Its secret.",
      secret: true,
    },
  } as const satisfies Record<string, Setting>;
}
