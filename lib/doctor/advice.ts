import type { Config } from "../config/config.ts";
import type { ServerMake } from "../store/s3/make.ts";

type S3Config = Pick<Config, "s3Bucket" | "s3Endpoint" | "s3Region" | "corsOrigins">;

/** A key pair that can do nothing but upload, and one that can do nothing but download: how they are made. */
export function separateKeysAdvice(make: ServerMake, { s3Bucket }: S3Config): string {
  const policy = (action: string, place: string): string =>
    `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["${action}"],"Resource":["arn:aws:s3:::${s3Bucket}/${place}/*"]}]}`;
  const settings = "then set STOWAGE_S3_UPLOAD_ACCESS_KEY and STOWAGE_S3_UPLOAD_SECRET_KEY, and the same for DOWNLOAD";
  if (make === "MinIO") {
    return [
      "sign URLs with keys that may do nothing else. ALIAS is what `mc alias set` made:",
      `echo '${policy("s3:PutObject", "staging")}' > upload.json`,
      `echo '${policy("s3:GetObject", "final")}' > download.json`,
      "mc admin policy create ALIAS stowage-upload upload.json",
      "mc admin policy create ALIAS stowage-download download.json",
      "mc admin user add ALIAS stowage-upload UPLOAD_SECRET",
      "mc admin user add ALIAS stowage-download DOWNLOAD_SECRET",
      "mc admin policy attach ALIAS stowage-upload --user stowage-upload",
      "mc admin policy attach ALIAS stowage-download --user stowage-download",
      settings,
    ].join("\n");
  }
  return [
    "sign URLs with keys that may do nothing else. The policy of the upload key:",
    policy("s3:PutObject", "staging"),
    "and of the download key:",
    policy("s3:GetObject", "final"),
    settings,
    "and let the proxy in front of the store refuse requests that have the header x-amz-copy-source",
  ].join("\n");
}

/** How the store is told which pages may use it. */
export function corsAdvice(make: ServerMake, { s3Bucket, s3Endpoint, s3Region, corsOrigins }: S3Config): string {
  if (make === "MinIO") {
    return `start MinIO with MINIO_API_CORS_ALLOW_ORIGIN=${corsOrigins.join(",")}; it is for all buckets`;
  }
  const rules = JSON.stringify({
    CORSRules: [
      {
        AllowedOrigins: corsOrigins,
        AllowedMethods: ["GET", "HEAD", "PUT"],
        AllowedHeaders: ["*"],
        ExposeHeaders: ["ETag", "Content-Range", "Content-Disposition"],
      },
    ],
  });
  const command = `aws s3api put-bucket-cors --bucket ${s3Bucket} --region ${s3Region} --endpoint-url ${s3Endpoint} --cors-configuration '${rules}'`;
  if (make === "versitygw") return `start versitygw with --cors-allow-origin, or:\n${command}`;
  return command;
}

/** How a bucket stops keeping what was removed. */
export function versioningAdvice(make: ServerMake, { s3Bucket, s3Endpoint, s3Region }: S3Config): string {
  if (make === "MinIO") {
    return [
      "use a bucket without versioning. Where versions must stay, let old ones expire (ALIAS is what `mc alias set` made):",
      `mc version suspend ALIAS/${s3Bucket}`,
      `mc ilm rule add --noncurrent-expire-days 1 --expire-delete-marker ALIAS/${s3Bucket}`,
    ].join("\n");
  }
  const target = `--bucket ${s3Bucket} --region ${s3Region} --endpoint-url ${s3Endpoint}`;
  const rules =
    '{"Rules":[{"ID":"stowage","Status":"Enabled","Filter":{},"NoncurrentVersionExpiration":{"NoncurrentDays":1}}]}';
  return [
    "use a bucket without versioning. Where versions must stay, let old ones expire:",
    `aws s3api put-bucket-versioning ${target} --versioning-configuration Status=Suspended`,
    `aws s3api put-bucket-lifecycle-configuration ${target} --lifecycle-configuration '${rules}'`,
  ].join("\n");
}

/** How a bucket stops being open to everyone. */
export function publicAdvice(make: ServerMake, { s3Bucket, s3Endpoint, s3Region }: S3Config): string {
  if (make === "MinIO") return `mc anonymous set none ALIAS/${s3Bucket}`;
  return `aws s3api delete-bucket-policy --bucket ${s3Bucket} --region ${s3Region} --endpoint-url ${s3Endpoint}`;
}
