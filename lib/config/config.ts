import { isIPv6 } from "node:net";
import { resolve } from "node:path";
import * as z from "zod";
import { nearest } from "../commands/nearest.ts";
import { RATE_LIMIT_PER_MIN_MAX } from "../core/keys.ts";
import { AppError } from "../errors.ts";
import { parseNetwork } from "../http/trusted_addresses.ts";
import { s3Settings } from "./s3_settings.ts";

const PREFIX = "STOWAGE_";
const GIB = 1024 ** 3;
/** The most that S3 takes in one PUT, and copies in one CopyObject. */
const S3_COPY_BYTES_MAX = 5 * GIB;

/** A whole number in a range, as it stands in the environment. */
function integer(min: number, max: number): z.ZodType<number, string> {
  return z
    .string()
    .regex(/^\d{1,16}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`);
}

/** Without a slash at its end, so that paths can be put after it. */
const httpUrl = z
  .string()
  .refine(
    (text) => /^https?:\/\/[^/\s][^\s?#@]*$/i.test(text) && URL.canParse(text),
    "must be a full URL such as https://files.example.com, without user name, query and fragment",
  )
  .transform((text) => new URL(text).href.replace(/\/+$/, ""));

/** An IPv6 address may stand in brackets, as it does in URLs. */
const host = z
  .string()
  .transform((text) => (/^\[.*\]$/.test(text) ? text.slice(1, -1) : text))
  .refine(
    (text) => isIPv6(text) || /^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$/.test(text),
    "must be an IP address or a host name, without a port",
  );

const origins = z
  .string()
  .transform((text) =>
    text
      .split(",")
      .map((origin) => origin.trim())
      .filter((origin) => origin !== ""),
  )
  .refine(
    (list) => list.every((origin) => origin === "*" || (URL.canParse(origin) && new URL(origin).origin === origin)),
    'must be origins such as https://app.example.com, separated by commas, or "*"',
  );

/** As it stands: a token's issuer is compared character by character. */
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

export interface Setting {
  /** Without the prefix. */
  name: string;
  schema: z.ZodType<unknown, string>;
  /** As it would stand in the environment; null: optional. */
  default: string | null;
  describe: string;
  secret?: boolean;
}

/** Every setting, in the order of the documentation. The README's table is checked against this list. */
const SETTINGS = {
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
    describe: "What clients see, with a path prefix if there is one. Default: from host and port.",
  },
  metricsPort: {
    name: "METRICS_PORT",
    schema: integer(0, 65_535),
    default: null,
    describe:
      "Port, of the same host, that alone serves `/metrics`; 0 takes a free one. Default: `/metrics` is on the main port, for everyone who reaches that.",
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
    describe: "Where objects are kept: `disk` is the embedded store, in the data directory; `s3` is an S3 server.",
  },
  ...s3Settings(httpUrl),
  clerkIssuer: {
    name: "CLERK_ISSUER",
    schema: issuerUrl,
    default: null,
    describe: "Issuer of session tokens, exactly as they name it (`iss`). Without it only API keys are accepted.",
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
      "What the `azp` of a token may be, separated by commas: the origins of your applications. Default: it is not looked at.",
  },
  uploadUrlTtlSeconds: {
    name: "UPLOAD_URL_TTL_SECONDS",
    schema: integer(1, 604_800),
    default: "900",
    describe: "How long an upload URL is good for.",
  },
  downloadUrlTtlSeconds: {
    name: "DOWNLOAD_URL_TTL_SECONDS",
    schema: integer(1, 604_800),
    default: "900",
    describe: "How long a download URL is good for.",
  },
  maxUploadBytes: {
    name: "MAX_UPLOAD_BYTES",
    schema: integer(1, 5 * 1024 * GIB),
    default: String(GIB),
    describe: "The largest file that is taken; at most 5 GiB on an S3 server.",
  },
  defaultQuotaBytes: {
    name: "DEFAULT_QUOTA_BYTES",
    schema: integer(0, Number.MAX_SAFE_INTEGER),
    default: String(10 * GIB),
    describe: "Quota of a workspace that is made without one.",
  },
  workspacesPerOwnerMax: {
    name: "WORKSPACES_PER_OWNER_MAX",
    schema: integer(0, 1_000_000),
    default: "100",
    describe: "Workspaces that one person may own by sessions; 0: only the command line makes workspaces.",
  },
  workflowsPerWorkspaceMax: {
    name: "WORKFLOWS_PER_WORKSPACE_MAX",
    schema: integer(1, 10_000),
    default: "1000",
    describe: "Workflows that a workspace may have. No quota counts them, and each takes up to 64 KiB of the database.",
  },
  pendingTtlSeconds: {
    name: "PENDING_TTL_SECONDS",
    schema: integer(60, 31_536_000),
    default: "86400",
    describe: "An upload that was never confirmed is removed after this long.",
  },
  pendingUploadsMax: {
    name: "PENDING_UPLOADS_MAX",
    schema: integer(1, 100_000_000),
    default: "10000",
    describe:
      "Unconfirmed uploads that a workspace, or a person without one, may have at once: their bytes are not charged yet, so they are bounded.",
  },
  stagedBytesMax: {
    name: "STAGED_BYTES_MAX",
    schema: integer(1, Number.MAX_SAFE_INTEGER),
    default: null,
    describe:
      "Bytes that the unconfirmed uploads of a workspace, or of a person without one, may have at once. Default: what is left of the workspace's quota (for a person, `STOWAGE_DEFAULT_QUOTA_BYTES`) and 64 MiB more.",
  },
  idempotencyKeysMax: {
    name: "IDEMPOTENCY_KEYS_MAX",
    schema: integer(1, 100_000_000),
    default: "100000",
    describe:
      "Different `Idempotency-Key`s that are remembered of each API key, and of each person by sessions, within 24 hours. Above it a create with a new one is refused with 429.",
  },
  rateLimitPerMin: {
    name: "RATE_LIMIT_PER_MIN",
    schema: integer(0, RATE_LIMIT_PER_MIN_MAX),
    default: "0",
    describe:
      "Requests that each API key without a limit of its own, and each person by sessions, may make in a minute; 0: any number.",
  },
  minFreeBytes: {
    name: "MIN_FREE_BYTES",
    schema: integer(0, Number.MAX_SAFE_INTEGER),
    default: String(GIB),
    describe:
      "With less than this free on the disk of the data directory, new uploads, workflows, workspaces, members and users are refused with 507, and the embedded store takes no file that would leave less. Deletes and confirms go on.",
  },
  uploadBytesPer10sMin: {
    name: "UPLOAD_BYTES_PER_10S_MIN",
    schema: integer(0, Number.MAX_SAFE_INTEGER),
    default: "10240",
    describe:
      "Slowest upload that the embedded store accepts, in bytes per 10 seconds; a pause of up to 30 seconds is forgiven. 0: any speed.",
  },
  connectionsPerAddressMax: {
    name: "CONNECTIONS_PER_ADDRESS_MAX",
    schema: integer(1, 8_192),
    default: "1024",
    describe: "Connections that one client address may have open at once (an IPv6 /64 network counts as one address).",
  },
  trustedProxies: {
    name: "TRUSTED_PROXIES",
    schema: networks,
    default: "",
    describe:
      "Addresses or networks of your reverse proxies, separated by commas: they may open any number of connections. Default: none.",
  },
  corsOrigins: {
    name: "CORS_ORIGINS",
    schema: origins,
    default: "",
    describe: "Origins whose pages may call the API from a browser, separated by commas, or `*`. Default: none.",
  },
  logLevel: {
    name: "LOG_LEVEL",
    schema: z.enum(["debug", "info", "warn", "error", "silent"], "must be debug, info, warn, error or silent"),
    default: "info",
    describe: "The least severe events that are logged.",
  },
} as const satisfies Record<string, Setting>;

type Settings = typeof SETTINGS;
type Optional<S extends Setting> = S["default"] extends null ? z.output<S["schema"]> | null : z.output<S["schema"]>;

/** The checked settings of a process. */
export type Config = Readonly<{ [Key in keyof Settings]: Optional<Settings[Key]> }>;

/**
 * Reads and checks the settings. Throws one `validation_error` that lists every problem: the variable, what it was and what
 * it may be. A variable with our prefix that is not a setting is a problem too.
 */
export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const problems: string[] = [];
  const config: Record<string, unknown> = {};
  for (const [key, setting] of Object.entries<Setting>(SETTINGS)) {
    // An empty value counts as absent: that is how compose files and shells leave a variable out.
    const text = env[PREFIX + setting.name] || setting.default;
    if (text === null) {
      config[key] = null;
      continue;
    }
    const parsed = setting.schema.safeParse(text);
    if (parsed.success) config[key] = parsed.data;
    else {
      const was = setting.secret === true ? "its value" : JSON.stringify(text);
      problems.push(`${PREFIX}${setting.name} ${parsed.error.issues[0]?.message ?? "is invalid"}, not ${was}`);
    }
  }
  problems.push(...unknownVariables(env));
  if (config.publicUrl === null && isWildcard(config.host)) {
    problems.push(
      `${PREFIX}PUBLIC_URL must be set when ${PREFIX}HOST is the wildcard "${config.host}": clients cannot follow an upload URL to a wildcard`,
    );
  }
  if (config.metricsPort !== null && config.metricsPort !== 0 && config.metricsPort === config.port) {
    problems.push(`${PREFIX}METRICS_PORT must be another port than ${PREFIX}PORT (${config.port})`);
  }
  problems.push(...s3Problems(config), ...clerkProblems(config));
  if (problems.length > 0) {
    throw new AppError("validation_error", `Cannot use these settings:\n  ${problems.join("\n  ")}`);
  }
  // Each key of SETTINGS was parsed by its own schema above.
  return Object.freeze(config) as Config;
}

/** Settings of sessions that would do nothing, which nobody means. */
function clerkProblems({ clerkIssuer, clerkJwksUrl, clerkAuthorizedParties }: Record<string, unknown>): string[] {
  if (clerkIssuer !== null) return [];
  const name = (key: keyof Settings): string => PREFIX + SETTINGS[key].name;
  const idle: (keyof Settings)[] = [
    ...(typeof clerkJwksUrl === "string" ? (["clerkJwksUrl"] as const) : []),
    ...(Array.isArray(clerkAuthorizedParties) && clerkAuthorizedParties.length > 0
      ? (["clerkAuthorizedParties"] as const)
      : []),
  ];
  return idle.map(
    (key) => `${name("clerkIssuer")} must be set when ${name(key)} is: without it no session is accepted`,
  );
}

/** What the S3 store lacks, and keys without their other half. */
function s3Problems(config: Record<string, unknown>): string[] {
  if (config.store !== "s3") return [];
  const isSet = (key: keyof Settings): boolean => config[key] !== null;
  const name = (key: keyof Settings): string => PREFIX + SETTINGS[key].name;
  const problems = (["s3Endpoint", "s3AccessKey", "s3SecretKey"] as const)
    .filter((key) => !isSet(key))
    .map((key) => `${name(key)} must be set when ${name("store")} is "s3"`);
  if (Number(config.maxUploadBytes) > S3_COPY_BYTES_MAX) {
    problems.push(
      `${name("maxUploadBytes")} must be at most ${S3_COPY_BYTES_MAX} (5 GiB) when ${name("store")} is "s3": a confirm copies the file, and S3 copies no more in one call`,
    );
  }
  for (const [access, secret] of [
    ["s3UploadAccessKey", "s3UploadSecretKey"],
    ["s3DownloadAccessKey", "s3DownloadSecretKey"],
  ] as const) {
    if (isSet(access) !== isSet(secret)) problems.push(`${name(access)} and ${name(secret)} must be set together`);
  }
  return problems;
}

/** Whether an address stands for all of this machine's, in whatever way it is written. */
function isWildcard(host: unknown): boolean {
  if (typeof host !== "string") return false;
  const url = `http://${isIPv6(host) ? `[${host}]` : host}`;
  return URL.canParse(url) && ["0.0.0.0", "[::]", "[::ffff:0:0]"].includes(new URL(url).hostname);
}

function unknownVariables(env: NodeJS.ProcessEnv): string[] {
  const known = Object.values<Setting>(SETTINGS).map(({ name }) => PREFIX + name);
  return Object.keys(env)
    .filter((name) => name.startsWith(PREFIX) && !known.includes(name) && !name.startsWith(`${PREFIX}TEST_`))
    .map((name) => `${name} is not a setting; did you mean ${nearest(name.toUpperCase(), known)}?`);
}

/** The effective settings by variable name, secrets masked; `stowage config` prints them. */
export function describeConfig(config: Config): Record<string, unknown> {
  const values: Record<string, unknown> = config;
  return Object.fromEntries(
    Object.entries<Setting>(SETTINGS).map(([key, { name, secret }]) => {
      const value = values[key];
      return [PREFIX + name, secret === true && value !== null ? "(set)" : value];
    }),
  );
}

/** Name, default and meaning of each setting, for the documentation. */
export function listSettings(): { name: string; default: string | null; describe: string }[] {
  return Object.values<Setting>(SETTINGS).map(({ name, default: value, describe }) => ({
    name: PREFIX + name,
    default: value,
    describe,
  }));
}
