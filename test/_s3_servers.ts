import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { accessSync, constants, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, Socket } from "node:net";
import { homedir, tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import type { TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { Agent, type Dispatcher, fetch } from "undici";
import type { Log } from "../lib/log.ts";
import { createS3Store, type S3Store, type S3StoreOptions } from "../lib/store/s3/objects_s3.ts";

/** Servers of three makes: what one of them gets wrong another gets right. */
export const S3_MAKES = ["minio", "versitygw", "garage"] as const;
export type S3Make = (typeof S3_MAKES)[number];

export interface S3Server {
  make: S3Make;
  endpoint: string;
  region: string;
  accessKey: string;
  secretKey: string;
  /** A name that no other test has. */
  newBucketName: () => string;
}

/** Garage takes long to build, so a machine without it still runs the suite, even with CI=true. */
const NEEDED_IN_CI: readonly S3Make[] = ["minio", "versitygw"];
const START_MS_MAX = 30_000;
const START_ATTEMPTS_MAX = 3;

const running = new Map<S3Make, Promise<S3Server>>();

/**
 * A real server of this make, one for the whole process, on a free port and with a folder of its own; both go with the
 * process, also when it is killed. Null where the binary is missing: then the test is skipped with a line on how to get
 * it, or fails where `CI` is `true`.
 */
export async function useS3Server(t: TestContext, make: S3Make): Promise<S3Server | null> {
  const binary = findBinary(make);
  if (binary === null) {
    const hint = `${make} is not installed: run ./scripts/install_s3_servers`;
    assert.ok(!(process.env.CI === "true" && NEEDED_IN_CI.includes(make)), hint);
    t.skip(hint);
    return null;
  }
  let server = running.get(make);
  if (!server) {
    server = startAtFreePort(make, binary);
    running.set(make, server);
  }
  return await server;
}

/** A store on a fresh bucket of the server, reached through `url` if given. Closed when the test ends. */
export async function openS3Store(
  t: TestContext,
  server: S3Server,
  { url = server.endpoint, ...options }: Partial<S3StoreOptions> & { url?: string } = {},
): Promise<S3Store> {
  const store = createS3Store({
    ...server,
    endpoint: url,
    publicEndpoint: server.endpoint,
    bucket: server.newBucketName(),
    log: collectLog().log,
    now: Date.now,
    ...options,
  });
  t.after(() => store.close());
  await store.prepare({ makes: true });
  return store;
}

export interface LoggedEvent {
  level: string;
  msg: string;
  fields: Record<string, unknown>;
}

/** A log that keeps its events. */
export function collectLog(): { log: Log; events: LoggedEvent[] } {
  const events: LoggedEvent[] = [];
  const at =
    (level: string) =>
    (msg: string, fields: Record<string, unknown> = {}) => {
      events.push({ level, msg, fields });
    };
  return { log: { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), flush() {} }, events };
}

/** PUTs to a presigned URL, as a client does. */
export async function putTo(url: string, body: string | Buffer, headers: Record<string, string> = {}): Promise<number> {
  const answer = await fetch(url, { method: "PUT", body, headers });
  await answer.text();
  return answer.status;
}

/** The path of a server's binary: $STOWAGE_TEST_BIN_DIR, then the cache of `install_s3_servers`, then the PATH. */
export function findBinary(name: string): string | null {
  const folders = [
    process.env.STOWAGE_TEST_BIN_DIR,
    join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "stowage", "bin"),
    ...(process.env.PATH ?? "").split(delimiter),
  ];
  for (const folder of folders) {
    if (!folder) continue;
    try {
      accessSync(join(folder, name), constants.X_OK);
      return join(folder, name);
    } catch {
      // The next one.
    }
  }
  return null;
}

/** A server's certificate, and the authority that signed it. */
export interface Certificates {
  /** Holds `public.crt` and `private.key`, as MinIO wants them. */
  folder: string;
  ca: string;
}

/** A MinIO of the test's own that speaks TLS alone. Null, as `useS3Server`, where the binary is missing. */
export async function useTlsMinio(t: TestContext, certificates: Certificates): Promise<S3Server | null> {
  if ((await useS3Server(t, "minio")) === null) return null;
  return await startAtFreePort("minio", findBinary("minio") ?? "", certificates);
}

async function startAtFreePort(make: S3Make, binary: string, certificates?: Certificates): Promise<S3Server> {
  // Another process may take a port between our look and the server's start.
  for (let attempt = 1; ; attempt++) {
    try {
      return await start(make, binary, certificates);
    } catch (error) {
      if (attempt === START_ATTEMPTS_MAX) throw error;
    }
  }
}

async function start(make: S3Make, binary: string, certificates?: Certificates): Promise<S3Server> {
  const folder = mkdtempSync(join(tmpdir(), `stowage-${make}-`));
  const [port, port2, port3] = [await freePort(), await freePort(), await freePort()];
  const endpoint = `${certificates === undefined ? "http" : "https"}://127.0.0.1:${port}`;
  const plan = plans[make]({ folder, endpoint, port, port2, port3 });
  if (certificates !== undefined) plan.args.push("--certs-dir", certificates.folder);
  const logFile = join(folder, "log");

  // The shell waits on its standard input, which closes when this process ends in whatever way; then it takes the
  // server and the folder with it.
  const script =
    '"$@" >"$LOG" 2>&1 </dev/null & pid=$!; read -r _; kill -9 $pid; wait $pid 2>/dev/null; rm -rf "$FOLDER"';
  const guard = spawn("/bin/sh", ["-c", script, "sh", binary, ...plan.args], {
    stdio: ["pipe", "ignore", "ignore"],
    env: { ...process.env, ...plan.env, LOG: logFile, FOLDER: folder },
    // Ctrl-C goes to the whole group of the terminal: the guard must live long enough to clean up.
    detached: true,
  });
  guard.unref();
  if (guard.stdin instanceof Socket) guard.stdin.unref();

  const deadlineMs = performance.now() + START_MS_MAX;
  // MinIO calls itself ready while it still answers everything with 503, so it is asked without a signature as well.
  // Whether the certificate names the host is the test's concern.
  const tls = { ca: certificates?.ca, checkServerIdentity: () => undefined };
  const dispatcher = new Agent(certificates === undefined ? {} : { connect: tls });
  while ((await statusOf(plan.readyUrl, dispatcher)) !== 200 || (await statusOf(endpoint, dispatcher)) >= 500) {
    if (performance.now() > deadlineMs || guard.exitCode !== null || hasGivenUp(logFile)) {
      guard.stdin.destroy();
      throw new Error(`${make} did not start:\n${readFileSync(logFile, "utf8").slice(-2000)}`);
    }
    await delay(20);
  }
  await dispatcher.destroy();
  plan.afterStart?.(binary);
  return {
    make,
    endpoint,
    region: plan.region,
    accessKey: plan.accessKey,
    secretKey: plan.secretKey,
    newBucketName: () => `stowage-test-${randomBytes(6).toString("hex")}`,
  };
}

interface Plan {
  args: string[];
  env: Record<string, string>;
  readyUrl: string;
  region: string;
  accessKey: string;
  secretKey: string;
  afterStart?: (binary: string) => void;
}

interface Place {
  folder: string;
  endpoint: string;
  port: number;
  port2: number;
  port3: number;
}

const plans: Record<S3Make, (place: Place) => Plan> = {
  minio({ folder, endpoint, port, port2 }) {
    const accessKey = "stowage-test";
    const secretKey = randomBytes(16).toString("hex");
    return {
      args: [
        ...["server", "--quiet", "--address", `127.0.0.1:${port}`, "--console-address", `127.0.0.1:${port2}`],
        join(folder, "data"),
      ],
      env: { MINIO_ROOT_USER: accessKey, MINIO_ROOT_PASSWORD: secretKey, MINIO_BROWSER: "off" },
      readyUrl: `${endpoint}/minio/health/ready`,
      region: "us-east-1",
      accessKey,
      secretKey,
    };
  },

  versitygw({ folder, port }) {
    const accessKey = "stowage-test";
    const secretKey = randomBytes(16).toString("hex");
    const [root, versions] = [join(folder, "root"), join(folder, "versions")];
    mkdirSync(root);
    mkdirSync(versions);
    return {
      args: [
        ...["--port", `127.0.0.1:${port}`, "--keep-alive", "--quiet", "--health", "/health"],
        ...["posix", "--versioning-dir", versions, root],
      ],
      env: { ROOT_ACCESS_KEY_ID: accessKey, ROOT_SECRET_ACCESS_KEY: secretKey },
      readyUrl: `http://127.0.0.1:${port}/health`,
      region: "us-east-1",
      accessKey,
      secretKey,
    };
  },

  garage({ folder, port, port2, port3 }) {
    const accessKey = `GK${randomBytes(12).toString("hex")}`;
    const secretKey = randomBytes(32).toString("hex");
    const config = join(folder, "garage.toml");
    writeFileSync(
      config,
      `metadata_dir = "${folder}/meta"
data_dir = "${folder}/data"
db_engine = "lmdb"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:${port3}"
rpc_public_addr = "127.0.0.1:${port3}"
rpc_secret = "${randomBytes(32).toString("hex")}"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:${port}"
[admin]
api_bind_addr = "127.0.0.1:${port2}"
`,
    );
    return {
      args: ["-c", config, "server", "--single-node", "--default-access-key"],
      env: { GARAGE_DEFAULT_ACCESS_KEY: accessKey, GARAGE_DEFAULT_SECRET_KEY: secretKey, RUST_LOG: "warn" },
      readyUrl: `http://127.0.0.1:${port2}/health`,
      region: "garage",
      accessKey,
      secretKey,
      // Its keys may not make buckets unless told.
      afterStart: (binary) =>
        execFileSync(binary, ["-c", config, "key", "allow", "--create-bucket", accessKey], { stdio: "pipe" }),
    };
  },
};

/** The status of an answer, or 599 where there is none. */
export async function statusOf(url: string, dispatcher?: Dispatcher): Promise<number> {
  try {
    const answer = await fetch(url, dispatcher === undefined ? {} : { dispatcher });
    await answer.body?.cancel();
    return answer.status;
  } catch {
    return 599;
  }
}

function hasGivenUp(logFile: string): boolean {
  try {
    return /address already in use|bind: /i.test(readFileSync(logFile, "utf8"));
  } catch {
    return false;
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  assert.ok(address !== null && typeof address === "object");
  return address.port;
}
