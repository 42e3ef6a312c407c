import type * as z from "zod";
import { hostInUrl } from "../addresses.ts";
import { AppError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { SETTINGS, type Setting } from "./settings.ts";

const PREFIX = "STOWAGE_";
/** The most that S3 accepts in one PUT, and copies in one CopyObject. */
const S3_COPY_BYTES_MAX = 5 * 1024 ** 3;

type Settings = typeof SETTINGS;
type Optional<S extends Setting> = S["default"] extends null ? z.output<S["schema"]> | null : z.output<S["schema"]>;

/** The checked settings of a process. Times are in milliseconds, sizes in bytes. */
export type Config = Readonly<{ [Key in keyof Settings]: Optional<Settings[Key]> }>;

/**
 * Reads and checks the settings. Throws one `validation_error` that lists every problem: the variable, its value and the
 * accepted values. An unknown variable with our prefix is a problem too.
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

/** Settings of sessions that have no effect without an issuer: surely a mistake. */
function clerkProblems({ clerkIssuer, clerkJwksUrl, clerkAuthorizedParties }: Record<string, unknown>): string[] {
  if (clerkIssuer !== null) return [];
  const name = (key: keyof Settings): string => PREFIX + SETTINGS[key].name;
  const unused: (keyof Settings)[] = [
    ...(typeof clerkJwksUrl === "string" ? (["clerkJwksUrl"] as const) : []),
    ...(Array.isArray(clerkAuthorizedParties) && clerkAuthorizedParties.length > 0
      ? (["clerkAuthorizedParties"] as const)
      : []),
  ];
  return unused.map(
    (key) => `${name("clerkIssuer")} must be set when ${name(key)} is: without it no session is accepted`,
  );
}

/** Settings that the S3 store lacks, and keys without their other half. */
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

/** Tells whether an address is a wildcard, in any spelling. */
function isWildcard(host: unknown): boolean {
  if (typeof host !== "string") return false;
  const url = `http://${hostInUrl(host)}`;
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
    Object.entries<Setting>(SETTINGS).map(([key, { name, secret, inSeconds }]) => {
      const value = values[key];
      const shown = secret === true && value !== null ? "(set)" : inSeconds === true ? Number(value) / 1_000 : value;
      return [PREFIX + name, shown];
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
