import { readFileSync, statSync } from "node:fs";
import type * as z from "zod";
import { hostInUrl } from "../addresses.ts";
import { AppError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { SETTINGS, type Setting } from "./settings.ts";

const PREFIX = "STOWAGE_";
/** After a secret's variable: the path of a file that holds it. */
const FILE_SUFFIX = "_FILE";
const SECRET_FILE_BYTES_MAX = 4_096;
const SERVICE_LINK_NAME = /_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/;
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
    const text = readText(env, setting, problems) ?? setting.default;
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

/** Reads a setting from the environment, or from the file that it names for a secret; null if it is not set. */
function readText(env: NodeJS.ProcessEnv, { name, secret }: Setting, problems: string[]): string | null {
  const variable = PREFIX + name;
  const text = isServiceLink(variable, env[variable]) ? null : env[variable] || null;
  const path = secret === true ? env[variable + FILE_SUFFIX] || null : null;
  if (path === null) return text;
  if (text !== null) {
    problems.push(`${variable} and ${variable}${FILE_SUFFIX} must not both be set`);
    return text;
  }
  try {
    return readSecret(path);
  } catch (error) {
    problems.push(`${variable}${FILE_SUFFIX}: ${error instanceof Error ? error.message : String(error)}`);
    return null;
  }
}

/** The first line of a file. Throws an `Error` that says what is wrong with it. */
function readSecret(path: string): string {
  const { size } = statSync(path);
  if (size > SECRET_FILE_BYTES_MAX) {
    throw new Error(`"${path}" has ${size} bytes: a secret has at most ${SECRET_FILE_BYTES_MAX}`);
  }
  const secret = readFileSync(path, "utf8").replace(/\r?\n$/, "");
  if (secret === "") throw new Error(`"${path}" is empty`);
  if (/[\r\n]/.test(secret)) throw new Error(`"${path}" must have one line, the secret`);
  return secret;
}

/**
 * Tells whether Kubernetes made a variable for a Service with a name like ours, which it does in every pod beside it. The
 * shapes are in its documentation, under "Accessing the Service: environment variables".
 */
function isServiceLink(name: string, value: string | undefined): boolean {
  if (!name.startsWith(PREFIX)) return false;
  if (SERVICE_LINK_NAME.test(name)) return true;
  return /_PORT$/.test(name) && /^(tcp|udp|sctp):\/\//.test(value ?? "");
}

/** The variables with our prefix that are ignored because Kubernetes made them, for a warning. */
export function listServiceLinks(env: NodeJS.ProcessEnv): string[] {
  return Object.keys(env).filter((name) => isServiceLink(name, env[name]));
}

function unknownVariables(env: NodeJS.ProcessEnv): string[] {
  const settings = Object.values<Setting>(SETTINGS);
  const known = settings.flatMap(({ name, secret }) =>
    secret === true ? [PREFIX + name, PREFIX + name + FILE_SUFFIX] : [PREFIX + name],
  );
  return Object.keys(env)
    .filter((name) => name.startsWith(PREFIX) && !known.includes(name) && !name.startsWith(`${PREFIX}TEST_`))
    .filter((name) => !isServiceLink(name, env[name]))
    .map((name) => {
      const near = nearest(name.toUpperCase(), known);
      return `${name} is not a setting${near === undefined ? ": `stowage config` lists them" : `; did you mean ${near}?`}`;
    });
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
