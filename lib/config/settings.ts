import { isIPv6 } from "node:net";
import { resolve } from "node:path";
import * as z from "zod";
import { parseNetwork, withoutBrackets } from "../addresses.ts";
import { RATE_LIMIT_PER_MIN_MAX } from "../books/keys.ts";
import { DURATION_SYNTAX, parseBytesPer10s, parseRatePerMin, parseSeconds, parseSize, SIZE_SYNTAX } from "../units.ts";

const GIB = 1024 ** 3;

/** A whole number in a range, as the environment spells it. */
function integer(min: number, max: number): z.ZodType<number, string> {
  return z
    .string()
    .regex(/^\d{1,16}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`);
}

/** A quantity that `parse` reads, in a range; `rule` says what it may be. */
function quantity(parse: (text: string) => number | null, min: number, max: number, rule: string) {
  return z
    .string()
    .transform((text) => parse(text) ?? Number.NaN)
    .refine((value) => value >= min && value <= max, `must be ${rule}, from ${min} to ${max}`);
}

/** A size in bytes. */
function bytes(min: number, max: number): z.ZodType<number, string> {
  return quantity(parseSize, min, max, SIZE_SYNTAX);
}

/** A time of whole seconds, parsed to milliseconds. */
function seconds(min: number, max: number): z.ZodType<number, string> {
  return quantity(parseSeconds, min, max, DURATION_SYNTAX).transform((value) => value * 1_000);
}

/** Drops a slash at the end, so that paths can be appended. */
const httpUrl = z
  .string()
  .refine(
    (text) => /^https?:\/\/[^/\s][^\s?#@]*$/i.test(text) && URL.canParse(text),
    "must be a full URL such as https://files.example.com, without user name, query and fragment",
  )
  .transform((text) => new URL(text).href.replace(/\/+$/, ""));

/** An IPv6 address may have brackets, as in URLs. */
const host = z
  .string()
  .transform(withoutBrackets)
  .refine(
    (text) => isIPv6(text) || /^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$/.test(text),
    "must be an IP address or a host name, without a port",
  );

/** Whether a browser can send this as an origin, character by character: apps and extensions have schemes of their own. */
function isOrigin(text: string): boolean {
  if (/^https?:/i.test(text)) return URL.canParse(text) && new URL(text).origin === text && !text.includes("*");
  return /^(?!file:)[a-z][a-z0-9+.-]*:\/\/[A-Za-z0-9._-]+(:\d{1,5})?$/.test(text);
}

const origins = z
  .string()
  .transform((text) =>
    text
      .split(",")
      .map((origin) => origin.trim())
      .filter((origin) => origin !== ""),
  )
  .refine(
    (list) => list.every((origin) => origin === "*" || isOrigin(origin)),
    'must be origins such as https://app.example.com, separated by commas, or "*"',
  );

/** Kept as it is: a token's issuer is compared character by character. */
const issuerUrl = z
  .string()
  .refine(
    (text) => /^https?:\/\/[^/\s][^\s?#@]*$/i.test(text) && URL.canParse(text),
    "must be the issuer's URL as its tokens have it, such as https://clerk.example.com",
  );

const parties = z.string().transform((text) =>
  text
    .split(",")
    .map((party) => party.trim())
    .filter((party) => party !== ""),
);

const networks = z
  .string()
  .transform((text) =>
    text
      .split(",")
      .map((network) => network.trim())
      .filter((network) => network !== ""),
  )
  .refine(
    (list) => list.every((network) => parseNetwork(network) !== null),
    "must be IP addresses or networks such as 10.0.0.0/8, separated by commas",
  );

const text = z.string();
/** Names that every S3 server accepts. Some servers, and the client library, refuse others. */
const bucketName = z
  .string()
  .refine(
    (name) => /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(name) && !name.includes("..") && !/\d\.\d+\.\d+\.\d/.test(name),
    "must be a bucket's name: 3 to 63 lower-case letters, digits, hyphens or single dots, and no IP address",
  );

export interface Setting {
  /** Without the prefix. */
  name: string;
  schema: z.ZodType<unknown, string>;
  /** As the environment would spell it; null: optional. */
  default: string | null;
  describe: string;
  secret?: boolean;
  /** The variable is in seconds, the parsed value in milliseconds. */
  inSeconds?: true;
}

const flag = z.enum(["true", "false"], "must be true or false").transform((value) => value === "true");

/** Every setting, in the order of the documentation. The README's table is checked against this list. */
export const SETTINGS = {
  host: {
    name: "HOST",
    schema: host,
    default: "127.0.0.1",
    describe: "Address to listen on. With a wildcard (`0.0.0.0`, `::`) `STOWAGE_PUBLIC_URL` must be set.",
  },
  port: {
    name: "PORT",
    schema: integer(0, 65_535),
    default: "8000",
    describe: "Port to listen on; 0 takes a free one.",
  },
  publicUrl: {
    name: "PUBLIC_URL",
    schema: httpUrl,
    default: null,
    describe: "The URL that clients use, with a path prefix if there is one. Default: from host and port.",
  },
  metricsPort: {
    name: "METRICS_PORT",
    schema: integer(0, 65_535),
    default: null,
    describe:
      "Separate port, on the same host, for `/metrics`; 0 takes a free one. Default: `/metrics` is on the main port, open to everyone who can reach it.",
  },
  dataDir: {
    name: "DATA_DIR",
    schema: z
      .string()
      .min(1, "must be a folder")
      .transform((path) => resolve(path)),
    default: "./data",
    describe: "Folder of the database, the lock and the embedded store.",
  },
  store: {
    name: "STORE",
    schema: z.enum(["disk", "s3"], 'must be "disk" or "s3"'),
    default: "disk",
    describe: "Where objects are stored: `disk` is the embedded store, in the data directory; `s3` is an S3 server.",
  },
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
      "URL at which clients reach the S3 server. Signed URLs contain it, and a proxy in front of it must keep the `Host` header. Default: `STOWAGE_S3_ENDPOINT`.",
  },
  s3Region: {
    name: "S3_REGION",
    schema: text,
    default: "us-east-1",
    describe: "Region that requests are signed for; the default suits most self-hosted servers.",
  },
  s3Bucket: {
    name: "S3_BUCKET",
    schema: bucketName,
    default: "stowage",
    describe:
      "The bucket, created at the first start. Once something is stored, a missing bucket is not created again.",
  },
  s3VirtualHost: {
    name: "S3_VIRTUAL_HOST",
    schema: flag,
    default: "false",
    describe: "Whether the bucket is in the host name (`true`) or in the path (`false`).",
  },
  s3AccessKey: { name: "S3_ACCESS_KEY", schema: text, default: null, describe: "Access key of the S3 server." },
  s3SecretKey: { name: "S3_SECRET_KEY", schema: text, default: null, describe: "Its secret.", secret: true },
  s3UploadAccessKey: {
    name: "S3_UPLOAD_ACCESS_KEY",
    schema: text,
    default: null,
    describe:
      "Access key that signs upload URLs; allow it `s3:PutObject` below `staging/` and nothing else. Default: the main key.",
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
      "Access key that signs download URLs; allow it `s3:GetObject` below `final/` and nothing else. Default: the main key.",
  },
  s3DownloadSecretKey: {
    name: "S3_DOWNLOAD_SECRET_KEY",
    schema: text,
    default: null,
    describe: "Its secret.",
    secret: true,
  },
  clerkIssuer: {
    name: "CLERK_ISSUER",
    schema: issuerUrl,
    default: null,
    describe: "Issuer of session tokens, exactly as in their `iss` claim. Without it only API keys are accepted.",
  },
  clerkJwksUrl: {
    name: "CLERK_JWKS_URL",
    schema: httpUrl,
    default: null,
    describe: "Where the issuer publishes its keys. Default: `/.well-known/jwks.json` under the issuer.",
  },
  clerkAuthorizedParties: {
    name: "CLERK_AUTHORIZED_PARTIES",
    schema: parties,
    default: "",
    describe:
      "Accepted values of a token's `azp` claim, separated by commas: the origins of your applications. Default: it is not checked.",
  },
  uploadUrlTtlMs: {
    name: "UPLOAD_URL_TTL_SECONDS",
    schema: seconds(1, 604_800),
    inSeconds: true,
    default: "900",
    describe: "How long an upload URL is valid.",
  },
  downloadUrlTtlMs: {
    name: "DOWNLOAD_URL_TTL_SECONDS",
    schema: seconds(1, 604_800),
    inSeconds: true,
    default: "900",
    describe: "How long a download URL is valid.",
  },
  maxUploadBytes: {
    name: "MAX_UPLOAD_BYTES",
    schema: bytes(1, 5 * 1024 * GIB),
    default: String(GIB),
    describe: "Largest file accepted. At most 5 GiB on an S3 server.",
  },
  defaultQuotaBytes: {
    name: "DEFAULT_QUOTA_BYTES",
    schema: bytes(0, Number.MAX_SAFE_INTEGER),
    default: String(10 * GIB),
    describe: "Quota of a workspace that is created without one.",
  },
  workspacesPerOwnerMax: {
    name: "WORKSPACES_PER_OWNER_MAX",
    schema: integer(0, 1_000_000),
    default: "100",
    describe: "Workspaces that one person may own; 0: workspaces are created only with the command line.",
  },
  workflowsPerWorkspaceMax: {
    name: "WORKFLOWS_PER_WORKSPACE_MAX",
    schema: integer(1, 10_000),
    default: "1000",
    describe:
      "Workflows per workspace. They count towards no quota, and each takes up to `STOWAGE_JSON_BYTES_MAX` in the database.",
  },
  jsonBytesMax: {
    name: "JSON_BYTES_MAX",
    schema: bytes(64 * 1024, 1024 ** 2),
    default: String(64 * 1024),
    describe: "Largest JSON body accepted, and so the largest definition of a workflow.",
  },
  pendingTtlMs: {
    name: "PENDING_TTL_SECONDS",
    schema: seconds(60, 31_536_000),
    inSeconds: true,
    default: "86400",
    describe: "How long an unconfirmed upload is kept.",
  },
  pendingUploadsMax: {
    name: "PENDING_UPLOADS_MAX",
    schema: integer(1, 100_000_000),
    default: "10000",
    describe:
      "Unconfirmed uploads that a workspace, or a person without one, may have at once. Their bytes are not charged yet, so their number is limited.",
  },
  stagedBytesMax: {
    name: "STAGED_BYTES_MAX",
    schema: bytes(1, Number.MAX_SAFE_INTEGER),
    default: null,
    describe:
      "Bytes that the unconfirmed uploads of a workspace, or of a person without one, may take at once. Default: what is left of the workspace's quota (for a person, `STOWAGE_DEFAULT_QUOTA_BYTES`) plus 64 MiB.",
  },
  idempotencyKeysMax: {
    name: "IDEMPOTENCY_KEYS_MAX",
    schema: integer(1, 100_000_000),
    default: "100000",
    describe:
      "Distinct `Idempotency-Key`s remembered per API key, and per person with sessions, within 24 hours. Beyond that, a create with a new one gets 429.",
  },
  rateLimitPerMin: {
    name: "RATE_LIMIT_PER_MIN",
    schema: quantity(parseRatePerMin, 0, RATE_LIMIT_PER_MIN_MAX, "a whole number per minute, or a rate such as 10/s"),
    default: "0",
    describe:
      "Requests per minute for each API key without a limit of its own, and for each person with sessions; 0: unlimited.",
  },
  minFreeBytes: {
    name: "MIN_FREE_BYTES",
    schema: bytes(0, Number.MAX_SAFE_INTEGER),
    default: String(GIB),
    describe:
      "With less than this free on the disk of the data directory, new uploads, workflows, workspaces, members and users get 507, and the embedded store accepts no file that would leave less. Deletes still work, and so do confirms, but for the rare one that must copy a small object (507).",
  },
  uploadBytesPer10sMin: {
    name: "UPLOAD_BYTES_PER_10S_MIN",
    schema: quantity(
      parseBytesPer10s,
      0,
      Number.MAX_SAFE_INTEGER,
      `${SIZE_SYNTAX}, per 10 seconds, or a rate such as 1KiB/s`,
    ),
    default: "10240",
    describe:
      "Slowest upload that the embedded store accepts, in bytes per 10 seconds; pauses of up to 30 seconds are allowed. 0: any speed.",
  },
  connectionsPerAddressMax: {
    name: "CONNECTIONS_PER_ADDRESS_MAX",
    schema: integer(1, 8_192),
    default: "1024",
    describe: "Connections that one client address may have open at once. An IPv6 /64 network counts as one address.",
  },
  trustedProxies: {
    name: "TRUSTED_PROXIES",
    schema: networks,
    default: "",
    describe:
      "Addresses or networks of your reverse proxies, separated by commas. They may open any number of connections, and the log has the client's address that they report in `X-Forwarded-For` or `Forwarded`. Default: none.",
  },
  computesChecksums: {
    name: "COMPUTE_CHECKSUMS",
    schema: flag,
    default: "false",
    describe:
      "Whether the embedded store computes the SHA-256 of every file, for `checksum_sha256`. Otherwise an upload shows the one that was stated or sent with the PUT.",
  },
  corsOrigins: {
    name: "CORS_ORIGINS",
    schema: origins,
    default: "",
    describe:
      "Origins whose pages may call the API from a browser, such as `https://app.example.com` or `capacitor://localhost`, separated by commas; or `*`. Default: none. Signed URLs of the embedded store work from any page.",
  },
  logLevel: {
    name: "LOG_LEVEL",
    schema: z.enum(["debug", "info", "warn", "error", "silent"], "must be debug, info, warn, error or silent"),
    default: "info",
    describe: "Least severe events to log.",
  },
} as const satisfies Record<string, Setting>;
