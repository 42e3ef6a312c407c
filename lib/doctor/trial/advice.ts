import type { Config } from "../../config/config.ts";
import type { ServerMake } from "../../store/s3/make.ts";
import { codeOf, type Got } from "./request.ts";

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

/** Advice on the findings that every kind of store can have. */
export interface TrialAdvice {
  /** Added to the address through which uploads work: the make of the server if it is known. */
  make: () => string;
  noResponse: string;
  clock: string;
  unreachable: string;
  refusedPut: (got: Got) => string;
  /** An upload went to another store than the service's. */
  elsewhere: string;
  otherLength: string;
  expired: string;
  /** A request that must be refused is reported as done, and was not. */
  liar: string;
  refusedGet: (got: Got) => string;
  /** A download lacks the headers that were signed. */
  headers: string;
  cors: () => string;
}

const BODY_LIMIT_ADVICE = "a proxy limits the size of a body (nginx: client_max_body_size 0)";
const NTP_ADVICE = "set both clocks by NTP (`timedatectl set-ntp true`)";
const PASS_ON_ADVICE = "a proxy must pass query parameters, status, headers and body on unchanged";

export const DISK_ADVICE: TrialAdvice = {
  make: () => "",
  noResponse: "see that clients can reach STOWAGE_PUBLIC_URL",
  clock: NTP_ADVICE,
  unreachable: "set STOWAGE_PUBLIC_URL to what clients see, and see that it can be reached from here too",
  refusedPut({ status }) {
    if (status === 413) return BODY_LIMIT_ADVICE;
    if (status === 507) return "make room on the disk of the data directory, or lower STOWAGE_MIN_FREE_BYTES";
    return "STOWAGE_PUBLIC_URL must lead to this installation's server, with its path prefix if a proxy has one";
  },
  elsewhere: "STOWAGE_PUBLIC_URL leads to another installation's server",
  otherLength: PASS_ON_ADVICE,
  expired: "see that the server that clients reach is the one of this version",
  liar: "a proxy answers in the server's place, or changes what it passes on: it must do neither below /objects/",
  refusedGet: () => PASS_ON_ADVICE,
  headers: PASS_ON_ADVICE,
  cors: () =>
    "restart the server, so that it uses the settings that this command sees; let a proxy pass OPTIONS and the CORS headers on",
};

/** The advice for an S3 store, whose make becomes known during the trial. */
export function s3Advice(config: S3Config, make: () => ServerMake): TrialAdvice {
  const seeLogs = "see the log of the store, and of a proxy in front of it";
  return {
    make: () => (make() === "another" ? "" : ` (${make()})`),
    noResponse: "see that clients can reach the public endpoint",
    clock: `${NTP_ADVICE}: URLs live too long or not at all, ages are wrong`,
    unreachable:
      "set STOWAGE_S3_PUBLIC_ENDPOINT to the store's URL as clients see it, and see that it can be reached from here too",
    refusedPut({ status, body }) {
      if (codeOf(body) === "SignatureDoesNotMatch") {
        return "the secret of the key that signs upload URLs must be right, and a proxy must pass the Host header and the path on as they came (nginx: proxy_set_header Host $http_host)";
      }
      if (status === 403) return `the key that signs upload URLs needs s3:PutObject on ${config.s3Bucket}/staging/*`;
      return status === 413 ? BODY_LIMIT_ADVICE : seeLogs;
    },
    elsewhere: "STOWAGE_S3_PUBLIC_ENDPOINT leads to another server than STOWAGE_S3_ENDPOINT, or to another bucket",
    otherLength:
      "uploads are then bounded only at confirm, by STOWAGE_MAX_UPLOAD_BYTES: use another store, or a proxy that limits bodies",
    expired: "set the store's clock; if it is right, the store does not enforce X-Amz-Expires: use another",
    liar: "a proxy in front of the store answers in its place, or changes what it passes on: it must do neither",
    refusedGet: ({ status }) =>
      status === 403
        ? `the key that signs download URLs needs s3:GetObject on ${config.s3Bucket}/final/*; its secret must be right`
        : seeLogs,
    headers:
      "a browser could show a file as a page of the store's origin: give the store an origin of its own, or use another",
    cors: () => corsAdvice(make(), config),
  };
}
