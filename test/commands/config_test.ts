import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { describeConfig, listServiceLinks, listSettings, readConfig } from "../../lib/config/config.ts";
import { AppError } from "../../lib/errors.ts";
import { temporaryFolder } from "../help/app.ts";

/** The problems that these variables have, as they are listed. */
function problemsOf(env: Record<string, string>): string[] {
  try {
    readConfig(env);
  } catch (error) {
    assert.ok(error instanceof AppError);
    assert.equal(error.code, "validation_error");
    const [head, ...problems] = error.message.split("\n  ");
    assert.equal(head, "Cannot use these settings:");
    return problems;
  }
  return [];
}

const URL_RULE = "must be a full URL such as https://files.example.com, without user name, query and fragment";
const HOST_RULE = "must be an IP address or a host name, without a port";
const ORIGINS_RULE = 'must be origins such as https://app.example.com, separated by commas, or "*"';
const ISSUER_RULE = "must be the issuer's URL as its tokens have it, such as https://clerk.example.com";
const range = (min: number, max: number) => `must be a whole number from ${min} to ${max}`;
const sizes = (min: number, max: number) =>
  `must be a number of bytes, or a size such as 500MB or 10GiB, from ${min} to ${max}`;
const durations = (min: number, max: number) =>
  `must be a number of seconds, or a time such as 90s, 15m, 24h or 7d, from ${min} to ${max}`;
const RATE_RULE = "must be a whole number per minute, or a rate such as 10/s, from 0 to 1000000";
const SPEED_RULE = `must be a number of bytes, or a size such as 500MB or 10GiB, per 10 seconds, or a rate such as 1KiB/s, from 0 to ${Number.MAX_SAFE_INTEGER}`;

/** For each variable what it may be, and values that it may not have. */
const BUCKET_RULE =
  "must be a bucket's name: 3 to 63 lower-case letters, digits, hyphens or single dots, and no IP address";
const BAD_VALUES: Record<string, [rule: string, values: string[]]> = {
  HOST: [HOST_RULE, ["127.0.0.1:8000", "[::1]:8000", "http://localhost", "a b", "-x", "*", "::1::", "[]"]],
  PORT: [range(0, 65_535), ["65536", "-1", "80.5", "http", " 80", "0x50", "1e3", "٣"]],
  METRICS_PORT: [range(0, 65_535), ["65536", "-1"]],
  PUBLIC_URL: [
    URL_RULE,
    [
      "files.example.com",
      "//x",
      "ftp://x",
      "http://",
      "http:///x",
      "http://x?a=b",
      "http://x/#a",
      "http://me@x",
      "http://x /",
      "http://x:99999",
    ],
  ],
  STORE: ['must be "disk" or "s3"', ["Disk", "minio"]],
  S3_ENDPOINT: [URL_RULE, ["minio:9000", "s3://bucket"]],
  S3_PUBLIC_ENDPOINT: [URL_RULE, ["files.example.com", "https://key:secret@files.example.com"]],
  S3_BUCKET: [BUCKET_RULE, ["ab", "Stowage", "under_score", "ends-", "a/b", "a..b", "10.0.0.12"]],
  S3_VIRTUAL_HOST: ["must be true or false", ["yes", "1"]],
  COMPUTE_CHECKSUMS: ["must be true or false", ["TRUE", "sha256"]],
  CLERK_ISSUER: [ISSUER_RULE, ["clerk.example.com", "ftp://x", "https://x?a=b", "https://me@x"]],
  CLERK_JWKS_URL: [URL_RULE, ["clerk.example.com/jwks", "file:///etc/jwks.json"]],
  WORKSPACES_PER_OWNER_MAX: [range(0, 1_000_000), ["-1", "1000001"]],
  UPLOAD_URL_TTL_SECONDS: [durations(1, 604_800), ["0", "604801", "8d", "1.5s", "15 minutes", "-15m"]],
  DOWNLOAD_URL_TTL_SECONDS: [durations(1, 604_800), ["0", "604801"]],
  MAX_UPLOAD_BYTES: [sizes(1, 5 * 1024 ** 4), ["0", "6TiB", "1G", "0.1KiB", "1e9", "5497558138881"]],
  DEFAULT_QUOTA_BYTES: [sizes(0, Number.MAX_SAFE_INTEGER), ["-1", "9007199254740992", "99999999999999999999"]],
  PENDING_TTL_SECONDS: [durations(60, 31_536_000), ["59", "31536001", "366d"]],
  UPLOAD_BYTES_PER_10S_MIN: [SPEED_RULE, ["-1", "1k", "1KiB/m"]],
  CONNECTIONS_PER_ADDRESS_MAX: [range(1, 8_192), ["0", "8193"]],
  TRUSTED_PROXIES: [
    "must be IP addresses or networks such as 10.0.0.0/8, separated by commas",
    ["proxy", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.1/8/8", "10.0.0.1/"],
  ],
  JSON_BYTES_MAX: [sizes(65_536, 1_048_576), ["65535", "1048577"]],
  WORKFLOWS_PER_WORKSPACE_MAX: [range(1, 10_000), ["0", "10001"]],
  IDEMPOTENCY_KEYS_MAX: [range(1, 100_000_000), ["0", "100000001"]],
  PENDING_UPLOADS_MAX: [range(1, 100_000_000), ["0", "100000001"]],
  STAGED_BYTES_MAX: [sizes(1, Number.MAX_SAFE_INTEGER), ["0", "-1", "9007199254740992"]],
  RATE_LIMIT_PER_MIN: [RATE_RULE, ["-1", "1000001", "60/day", "61/h"]],
  MIN_FREE_BYTES: [sizes(0, Number.MAX_SAFE_INTEGER), ["-1", "1 gig"]],
  CORS_ORIGINS: [
    ORIGINS_RULE,
    [
      ...["app.example.com", "https://app.example.com/", "https://a.example.com;https://b.example.com"],
      ...[
        "https://App.example.com",
        "https://app.example.com:443",
        "http://app.example.com:80",
        "https://*.example.com",
      ],
      ...["null", "file://", "file:///", "capacitor://", "capacitor://localhost/", "Capacitor://localhost", "data:"],
    ],
  ],
  LOG_LEVEL: ["must be debug, info, warn, error or silent", ["INFO", "verbose"]],
};

for (const [name, [rule, values]] of Object.entries(BAD_VALUES)) {
  test(`STOWAGE_${name}: a bad value is named, with what it was and what it may be`, () => {
    for (const value of values) {
      assert.deepEqual(problemsOf({ [`STOWAGE_${name}`]: value }), [
        `STOWAGE_${name} ${rule}, not ${JSON.stringify(value)}`,
      ]);
    }
  });
}

test("every setting that can have a bad value is among those tested here", () => {
  const tested = Object.keys(BAD_VALUES).map((name) => `STOWAGE_${name}`);
  const anyText = ["STOWAGE_DATA_DIR", "STOWAGE_S3_REGION", "STOWAGE_CLERK_AUTHORIZED_PARTIES"];
  const untested = listSettings().filter(
    ({ name }) => !tested.includes(name) && !anyText.includes(name) && !/_KEY$/.test(name),
  );
  assert.deepEqual(
    untested.map(({ name }) => name),
    [],
  );
});

test("a variable that is no setting suggests the nearest name", () => {
  assert.deepEqual(problemsOf({ STOWAGE_PROT: "80", STOWAGE_LOGLEVEL: "info", STOWAGE_max_upload_bytes: "1" }), [
    "STOWAGE_PROT is not a setting; did you mean STOWAGE_PORT?",
    "STOWAGE_LOGLEVEL is not a setting; did you mean STOWAGE_LOG_LEVEL?",
    "STOWAGE_max_upload_bytes is not a setting; did you mean STOWAGE_MAX_UPLOAD_BYTES?",
  ]);
  assert.deepEqual(problemsOf({ PORT: "x", STOWAG_PORT: "x", STOWAGE_TEST_SEED: "1" }), []);
});

test("a suggestion is a name that is near, or none", () => {
  assert.deepEqual(problemsOf({ STOWAGE_TELEMETRY: "off" }), [
    "STOWAGE_TELEMETRY is not a setting: `stowage config` lists them",
  ]);
});

test("sizes, durations and rates take units, and a bare number is what it always was", () => {
  const config = readConfig({
    STOWAGE_MAX_UPLOAD_BYTES: "2GiB",
    STOWAGE_DEFAULT_QUOTA_BYTES: "1.5 TB",
    STOWAGE_UPLOAD_URL_TTL_SECONDS: "15m",
    STOWAGE_DOWNLOAD_URL_TTL_SECONDS: "90",
    STOWAGE_PENDING_TTL_SECONDS: "7d",
    STOWAGE_RATE_LIMIT_PER_MIN: "10/s",
    STOWAGE_UPLOAD_BYTES_PER_10S_MIN: "1KiB/s",
    STOWAGE_MIN_FREE_BYTES: "500mb",
  });
  assert.equal(config.maxUploadBytes, 2 * 1024 ** 3);
  assert.equal(config.defaultQuotaBytes, 1_500_000_000_000);
  assert.equal(config.uploadUrlTtlMs, 900_000);
  assert.equal(config.downloadUrlTtlMs, 90_000);
  assert.equal(config.pendingTtlMs, 7 * 86_400_000);
  assert.equal(config.rateLimitPerMin, 600);
  assert.equal(config.uploadBytesPer10sMin, 10_240);
  assert.equal(config.minFreeBytes, 500_000_000);
  const shown = describeConfig(config);
  assert.equal(shown.STOWAGE_MAX_UPLOAD_BYTES, 2 * 1024 ** 3, "what is printed can be set again");
  assert.equal(shown.STOWAGE_PENDING_TTL_SECONDS, 604_800);
});

test("what Kubernetes injects for a Service named stowage is ignored, and listed for a warning", () => {
  const links = {
    STOWAGE_SERVICE_HOST: "10.43.0.7",
    STOWAGE_SERVICE_PORT: "8000",
    STOWAGE_SERVICE_PORT_HTTP: "8000",
    STOWAGE_PORT: "tcp://10.43.0.7:8000",
    STOWAGE_PORT_8000_TCP: "tcp://10.43.0.7:8000",
    STOWAGE_PORT_8000_TCP_PROTO: "tcp",
    STOWAGE_PORT_8000_TCP_PORT: "8000",
    STOWAGE_PORT_8000_TCP_ADDR: "10.43.0.7",
    // A Service named stowage-metrics.
    STOWAGE_METRICS_PORT: "tcp://10.43.0.8:9000",
    STOWAGE_METRICS_SERVICE_HOST: "10.43.0.8",
    STOWAGE_METRICS_PORT_9000_TCP: "tcp://10.43.0.8:9000",
  };
  const config = readConfig(links);
  assert.equal(config.port, 8000);
  assert.equal(config.metricsPort, null);
  assert.deepEqual(listServiceLinks({ ...links, OTHER_PORT: "tcp://10.0.0.1:1" }), Object.keys(links));
  assert.deepEqual(listServiceLinks({ STOWAGE_PORT: "8001", STOWAGE_METRICS_PORT: "9000" }), []);
  assert.equal(readConfig({ STOWAGE_PORT: "8001", STOWAGE_SERVICE_HOST: "10.43.0.7" }).port, 8001);
});

test("every secret may come from a file, whose content is never printed", async (t) => {
  const folder = await temporaryFolder(t);
  const path = join(folder, "secret");
  const secrets = listSettings().filter(({ name }) => /_SECRET_KEY$/.test(name));
  assert.equal(secrets.length, 3);
  for (const { name } of secrets) {
    writeFileSync(path, "hush\n");
    assert.equal(describeConfig(readConfig({ [`${name}_FILE`]: path }))[name], "(set)", name);
    assert.deepEqual(problemsOf({ [name]: "x", [`${name}_FILE`]: path }), [
      `${name} and ${name}_FILE must not both be set`,
    ]);
    writeFileSync(path, "two\nlines\n");
    assert.deepEqual(problemsOf({ [`${name}_FILE`]: path }), [
      `${name}_FILE: "${path}" must have one line, the secret`,
    ]);
    writeFileSync(path, "\n");
    assert.deepEqual(problemsOf({ [`${name}_FILE`]: path }), [`${name}_FILE: "${path}" is empty`]);
    writeFileSync(path, "x".repeat(4_097));
    assert.match(problemsOf({ [`${name}_FILE`]: path }).join(), /has 4097 bytes: a secret has at most 4096/);
    assert.match(problemsOf({ [`${name}_FILE`]: `${path}.gone` }).join(), /_FILE: ENOENT/);
    assert.match(problemsOf({ [`${name}_FILE`]: folder }).join(), /_FILE: /);
  }
  writeFileSync(path, "hush");
  assert.equal(readConfig({ STOWAGE_S3_SECRET_KEY_FILE: path }).s3SecretKey, "hush");
  assert.deepEqual(problemsOf({ STOWAGE_PORT_FILE: path }).length, 1, "what is no secret is not read from a file");
});

test("the S3 store needs an endpoint and a key, and a key of its own for URLs needs its secret", () => {
  const s3 = {
    STOWAGE_STORE: "s3",
    STOWAGE_S3_ENDPOINT: "http://127.0.0.1:9000",
    STOWAGE_S3_ACCESS_KEY: "a",
    STOWAGE_S3_SECRET_KEY: "b",
  };
  assert.deepEqual(problemsOf(s3), []);
  assert.deepEqual(problemsOf({ STOWAGE_STORE: "s3" }), [
    'STOWAGE_S3_ENDPOINT must be set when STOWAGE_STORE is "s3"',
    'STOWAGE_S3_ACCESS_KEY must be set when STOWAGE_STORE is "s3"',
    'STOWAGE_S3_SECRET_KEY must be set when STOWAGE_STORE is "s3"',
  ]);
  assert.deepEqual(problemsOf({ ...s3, STOWAGE_S3_UPLOAD_ACCESS_KEY: "c" }), [
    "STOWAGE_S3_UPLOAD_ACCESS_KEY and STOWAGE_S3_UPLOAD_SECRET_KEY must be set together",
  ]);
  assert.deepEqual(problemsOf({ ...s3, STOWAGE_S3_DOWNLOAD_SECRET_KEY: "c" }), [
    "STOWAGE_S3_DOWNLOAD_ACCESS_KEY and STOWAGE_S3_DOWNLOAD_SECRET_KEY must be set together",
  ]);
});

test("no file may be larger than an S3 server copies in one call; the embedded store has no such limit", () => {
  const s3 = {
    STOWAGE_STORE: "s3",
    STOWAGE_S3_ENDPOINT: "http://127.0.0.1:9000",
    STOWAGE_S3_ACCESS_KEY: "a",
    STOWAGE_S3_SECRET_KEY: "b",
  };
  const most = 5 * 1024 ** 3;
  assert.deepEqual(problemsOf({ ...s3, STOWAGE_MAX_UPLOAD_BYTES: String(most) }), []);
  assert.deepEqual(problemsOf({ ...s3, STOWAGE_MAX_UPLOAD_BYTES: String(most + 1) }), [
    'STOWAGE_MAX_UPLOAD_BYTES must be at most 5368709120 (5 GiB) when STOWAGE_STORE is "s3": a confirm copies the file, and S3 copies no more in one call',
  ]);
  assert.deepEqual(problemsOf({ STOWAGE_MAX_UPLOAD_BYTES: String(most + 1) }), []);
});

test("settings of sessions do nothing without an issuer, which is kept as it is typed", () => {
  assert.deepEqual(problemsOf({ STOWAGE_CLERK_JWKS_URL: "https://x/jwks", STOWAGE_CLERK_AUTHORIZED_PARTIES: "a" }), [
    "STOWAGE_CLERK_ISSUER must be set when STOWAGE_CLERK_JWKS_URL is: without it no session is accepted",
    "STOWAGE_CLERK_ISSUER must be set when STOWAGE_CLERK_AUTHORIZED_PARTIES is: without it no session is accepted",
  ]);
  const { clerkIssuer, clerkJwksUrl, clerkAuthorizedParties } = readConfig({
    STOWAGE_CLERK_ISSUER: "https://Clerk.example.com/",
    STOWAGE_CLERK_AUTHORIZED_PARTIES: " https://a.example.com,, b ",
  });
  assert.deepEqual([clerkIssuer, clerkJwksUrl], ["https://Clerk.example.com/", null]);
  assert.deepEqual(clerkAuthorizedParties, ["https://a.example.com", "b"]);
});

test("secrets of the S3 store are not printed", () => {
  const env = {
    STOWAGE_S3_SECRET_KEY: "hush",
    STOWAGE_S3_UPLOAD_SECRET_KEY: "hush2",
    STOWAGE_S3_DOWNLOAD_SECRET_KEY: "hush3",
  };
  assert.doesNotMatch(JSON.stringify(describeConfig(readConfig(env))), /hush/);
});

test("all problems are reported together", () => {
  assert.equal(
    problemsOf({ STOWAGE_PORT: "x", STOWAGE_HOST: "0.0.0.0", STOWAGE_LOG_LEVEL: "x", STOWAGE_PROT: "x" }).length,
    4,
  );
});

test("a wildcard host, however it is written, needs a public URL", () => {
  for (const host of ["0.0.0.0", "::", "[::]", "0", "0.0", "0x0", "0:0:0:0:0:0:0:0", "::0", "::ffff:0.0.0.0"]) {
    assert.match(problemsOf({ STOWAGE_HOST: host }).join(), /^STOWAGE_PUBLIC_URL must be set .*wildcard/, host);
    assert.deepEqual(problemsOf({ STOWAGE_HOST: host, STOWAGE_PUBLIC_URL: "https://files.example.com" }), []);
  }
  for (const host of ["127.0.0.1", "::1", "localhost", "10.0.0.1", "files.example.com", "0.example.com"]) {
    assert.deepEqual(problemsOf({ STOWAGE_HOST: host }), [], host);
  }
});

test("a host's brackets and a public URL's last slashes are taken off; its prefix stays", () => {
  const config = readConfig({ STOWAGE_HOST: "[::1]", STOWAGE_PUBLIC_URL: "HTTPS://Files.Example.com:443/stowage//" });
  assert.equal(config.host, "::1");
  assert.equal(config.publicUrl, "https://files.example.com/stowage");
  assert.equal(readConfig({ STOWAGE_PUBLIC_URL: "http://localhost:8000/" }).publicUrl, "http://localhost:8000");
});

test("an empty variable counts as absent", () => {
  const empty = Object.fromEntries(listSettings().map(({ name }) => [name, ""]));
  assert.deepEqual(readConfig(empty), readConfig({}));
  assert.equal(readConfig({}).publicUrl, null);
  assert.deepEqual(readConfig({}).corsOrigins, []);
});

test("the printed settings, taken back in, give the same settings", () => {
  const config = readConfig({ STOWAGE_CORS_ORIGINS: " https://a.example.com , *,", STOWAGE_PORT: "0" });
  assert.deepEqual(config.corsOrigins, ["https://a.example.com", "*"]);
  const printed = Object.entries(describeConfig(config)).map(([name, value]) => [
    name,
    value === null ? "" : String(value),
  ]);
  assert.deepEqual(readConfig(Object.fromEntries(printed)), config);
});
