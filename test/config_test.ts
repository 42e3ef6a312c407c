import assert from "node:assert/strict";
import { test } from "node:test";
import { describeConfig, listSettings, readConfig } from "../lib/config/config.ts";
import { AppError } from "../lib/errors.ts";

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
  CLERK_ISSUER: [ISSUER_RULE, ["clerk.example.com", "ftp://x", "https://x?a=b", "https://me@x"]],
  CLERK_JWKS_URL: [URL_RULE, ["clerk.example.com/jwks", "file:///etc/jwks.json"]],
  WORKSPACES_PER_OWNER_MAX: [range(0, 1_000_000), ["-1", "1000001"]],
  UPLOAD_URL_TTL_SECONDS: [range(1, 604_800), ["0", "604801", "15m"]],
  DOWNLOAD_URL_TTL_SECONDS: [range(1, 604_800), ["0", "604801"]],
  MAX_UPLOAD_BYTES: [range(1, 5 * 1024 ** 4), ["0", "1GiB", "5497558138881"]],
  DEFAULT_QUOTA_BYTES: [range(0, Number.MAX_SAFE_INTEGER), ["-1", "9007199254740992", "99999999999999999999"]],
  PENDING_TTL_SECONDS: [range(60, 31_536_000), ["59", "31536001"]],
  UPLOAD_BYTES_PER_10S_MIN: [range(0, Number.MAX_SAFE_INTEGER), ["-1", "1k"]],
  CONNECTIONS_PER_ADDRESS_MAX: [range(1, 8_192), ["0", "8193"]],
  TRUSTED_PROXIES: [
    "must be IP addresses or networks such as 10.0.0.0/8, separated by commas",
    ["proxy", "10.0.0.0/33", "10.0.0/8", "::1/129", "10.0.0.1/8/8", "10.0.0.1/"],
  ],
  WORKFLOWS_PER_WORKSPACE_MAX: [range(1, 10_000), ["0", "10001"]],
  IDEMPOTENCY_KEYS_MAX: [range(1, 100_000_000), ["0", "100000001"]],
  PENDING_UPLOADS_MAX: [range(1, 100_000_000), ["0", "100000001"]],
  STAGED_BYTES_MAX: [range(1, Number.MAX_SAFE_INTEGER), ["0", "-1", "9007199254740992"]],
  RATE_LIMIT_PER_MIN: [range(0, 1_000_000), ["-1", "1000001", "60/min"]],
  MIN_FREE_BYTES: [range(0, Number.MAX_SAFE_INTEGER), ["-1", "1 GiB"]],
  CORS_ORIGINS: [
    ORIGINS_RULE,
    ["app.example.com", "https://app.example.com/", "https://a.example.com;https://b.example.com"],
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
