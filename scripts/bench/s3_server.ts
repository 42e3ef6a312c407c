import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync } from "node:fs";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "minio";
import { createLog } from "../../lib/log.ts";
import { createS3Store, type S3Store } from "../../lib/store/s3/objects_s3.ts";
import { statusOf } from "../../test/_s3_servers.ts";

const START_MS_MAX = 30_000;
const BUCKET = "stowage-bench";
const REGION = "us-east-1";
/** Objects that are put at once, outside of what is measured. */
const PUTS_AT_ONCE = 32;

/** MinIO on loopback with a bucket, as the service, a bare client and the preparation of a run see it. */
export interface BenchS3 {
  pid: number;
  bucket: string;
  /** The settings with which a service uses it. */
  env: Record<string, string>;
  /** The client library with nothing around it. */
  bare: Client;
  store: S3Store;
  /** Makes objects of a few bytes. */
  putAll: (objectKeys: readonly string[]) => Promise<void>;
  stop: () => Promise<void>;
}

/** Starts MinIO in a folder of its own. */
export async function startMinio(binary: string, folder: string): Promise<BenchS3> {
  const port = await freePort();
  const accessKey = "stowage-bench";
  const secretKey = randomBytes(16).toString("hex");
  const address = ["--address", `127.0.0.1:${port}`, "--console-address", `127.0.0.1:${await freePort()}`];
  const child = spawn(binary, ["server", "--quiet", ...address, mkdtempSync(join(folder, "minio-"))], {
    env: { ...process.env, MINIO_ROOT_USER: accessKey, MINIO_ROOT_PASSWORD: secretKey, MINIO_BROWSER: "off" },
    stdio: "ignore",
  });
  const endpoint = `http://127.0.0.1:${port}`;
  await untilReady(child, endpoint);
  const store = createS3Store({
    ...{ endpoint, publicEndpoint: endpoint, region: REGION, bucket: BUCKET, accessKey, secretKey },
    log: createLog({ level: "silent", write: () => {} }),
    now: Date.now,
    socketsMax: PUTS_AT_ONCE,
  });
  await store.prepare({ makes: true });

  async function putAll(objectKeys: readonly string[]): Promise<void> {
    const waiting = objectKeys.values();
    async function putSome(): Promise<void> {
      for (const key of waiting) await store.put(key, "bench", "application/octet-stream");
    }
    await Promise.all(Array.from({ length: PUTS_AT_ONCE }, putSome));
  }

  return {
    ...{ pid: child.pid ?? 0, bucket: BUCKET, store, putAll },
    env: s3Env(endpoint, { accessKey, secretKey }),
    bare: new Client({ endPoint: "127.0.0.1", port, useSSL: false, region: REGION, accessKey, secretKey }),
    async stop() {
      await store.close();
      const ended = new Promise((resolve) => child.once("exit", resolve));
      if (child.kill("SIGTERM")) await ended;
    },
  };
}

/** A store that takes every connection and never says a word. */
export async function startHangingStore(): Promise<{ env: Record<string, string>; stop: () => Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => {}).resume());
    socket.once("close", () => sockets.delete(socket));
  });
  const port = await listen(server);
  return {
    env: s3Env(`http://127.0.0.1:${port}`, { accessKey: "none", secretKey: "none" }),
    async stop() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function s3Env(endpoint: string, key: { accessKey: string; secretKey: string }): Record<string, string> {
  return {
    STOWAGE_STORE: "s3",
    STOWAGE_S3_ENDPOINT: endpoint,
    STOWAGE_S3_REGION: REGION,
    STOWAGE_S3_BUCKET: BUCKET,
    STOWAGE_S3_ACCESS_KEY: key.accessKey,
    STOWAGE_S3_SECRET_KEY: key.secretKey,
  };
}

async function untilReady(child: ChildProcess, endpoint: string): Promise<void> {
  const deadlineMs = performance.now() + START_MS_MAX;
  // It calls itself ready while it still answers everything with 503, so it is asked without a signature as well.
  while ((await statusOf(`${endpoint}/minio/health/ready`)) !== 200 || (await statusOf(endpoint)) >= 500) {
    if (child.exitCode !== null || performance.now() > deadlineMs) {
      child.kill("SIGKILL");
      throw new Error("MinIO did not start");
    }
    await delay(50);
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listen(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  // A server that listens on TCP has an address with a port.
  return (server.address() as AddressInfo).port;
}
