import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import Database from "better-sqlite3";
import { Agent, type Dispatcher, request } from "undici";
import { type App, type AppOptions, openApp } from "../lib/app.ts";
import { type Config, readConfig } from "../lib/config/config.ts";
import { openCore } from "../lib/core/core.ts";
import { makeDataDir } from "../lib/db/data_dir.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { createLog, type Log } from "../lib/log.ts";
import type { ObjectStore } from "../lib/store/objects.ts";
import { afterwards } from "./_db.ts";
import { type RawStore, rawDiskStore } from "./_raw_store.ts";
import { isFolderRace, testBucket } from "./_test_store.ts";

/** A wall clock and a monotonic one that a test moves. They go on by themselves, as real ones do. */
export interface TestClock {
  now: () => number;
  monotonicNow: () => number;
  /** Time goes by: both clocks move. */
  advance: (ms: number) => void;
  /** Someone sets the wall clock: only it moves. */
  setBy: (ms: number) => void;
}

export function testClock(): TestClock {
  let passedMs = 0;
  let setMs = 0;
  return {
    now: () => Math.floor(Date.now() + passedMs + setMs),
    monotonicNow: () => performance.now() + passedMs,
    advance: (ms) => {
      passedMs += ms;
    },
    setBy: (ms) => {
      setMs += ms;
    },
  };
}

// biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape
export type Json = any;

export interface Answer {
  status: number;
  headers: Dispatcher.ResponseData["headers"];
  /** The body as it came. */
  text: string;
  /** The parsed body; undefined where it is not JSON. */
  json: Json;
}

export interface Call {
  key?: string;
  body?: unknown;
  headers?: Record<string, string>;
}

export interface Owner {
  workspaceId: string;
  userId: string;
  apiKeyId: string;
  key: string;
}

export interface TestApp {
  app: App;
  dataDir: string;
  config: Config;
  clock: TestClock;
  /** The workspace that the app was made with, and its key. */
  owner: Owner;
  /** Makes another workspace with a key of its own. */
  addOwner: (quotaBytes?: number) => Promise<Owner>;
  /** Sends a request with the owner's key, or with another. The path may be a whole URL of a store. */
  call: (method: string, path: string, call?: Call) => Promise<Answer>;
  /** PUTs bytes to a signed URL. */
  put: (url: string, bytes: Buffer | string, headers?: Record<string, string>) => Promise<Answer>;
  createUpload: (options?: {
    filename?: string;
    category?: string;
    key?: string;
    size_bytes?: number;
  }) => Promise<{ id: string; uploadUrl: string }>;
  confirm: (id: string, owner?: Owner) => Promise<Answer>;
  /** Creates, PUTs and confirms; returns the upload as it was answered. */
  confirmedUpload: (
    bytes: Buffer | string,
    options?: { filename?: string; category?: string; owner?: Owner },
  ) => Promise<Json>;
  /** A second connection to the same file, as an administrator's. */
  sql: Database.Database;
  /** The store as it is, looked at by other means than ours. */
  raw: RawStore;
  close: () => Promise<void>;
}

export type TestAppOptions = Partial<Omit<AppOptions, "config" | "now" | "monotonicNow">> & {
  env?: Record<string, string>;
  quotaBytes?: number;
  clock?: TestClock;
  /** An existing data directory; by default a new one, removed after the test. */
  dataDir?: string;
  owner?: Owner;
};

export const silentLog: Log = createLog({ level: "silent", write: () => {} });

/** Settings for a data directory, with the smallest of everything that would otherwise stand in a test's way. */
export function testConfig(dataDir: string, env: Record<string, string> = {}): Config {
  return readConfig({ STOWAGE_DATA_DIR: dataDir, STOWAGE_PORT: "0", STOWAGE_MIN_FREE_BYTES: "0", ...env });
}

export async function temporaryFolder(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "stowage-test-"));
  afterwards(t, () => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Makes a data directory with a workspace and a key, as `stowage init` does. */
export async function initDataDir(config: Config, quotaBytes: number): Promise<Owner> {
  await makeDataDir(config.dataDir);
  const core = openCore({ config, log: silentLog, now: Date.now, migrate: true, onFatal: () => {} });
  try {
    return await core.db.write(() => {
      const workspace = core.workspaces.insert({ name: "test", storageBytesQuota: quotaBytes });
      const { apiKeyId, apiKey: key } = core.keys.insert(workspace);
      return { ...workspace, apiKeyId, key };
    });
  } finally {
    await core.db.close();
  }
}

/** Starts a real service on a free port, with a real database and a real store in a fresh folder. */
export async function startTestApp(t: TestContext, options: TestAppOptions = {}): Promise<TestApp> {
  const { quotaBytes = 10_000_000, clock = testClock(), ...appOptions } = options;
  const dataDir = options.dataDir ?? join(await temporaryFolder(t), "data");
  // A test that names a store of its own gets that.
  const bucket = options.env?.STOWAGE_STORE === undefined ? await testBucket(t, dataDir) : null;
  const { wrapPresigning, ...time } = bucket?.inTime(clock) ?? { wrapPresigning: (objects: ObjectStore) => objects };
  const { wrapStore = (objects) => objects } = options;
  const config = testConfig(dataDir, { ...bucket?.env, ...options.env });
  const owner = options.owner ?? (await initDataDir(config, quotaBytes));
  const app = await openApp({
    log: silentLog,
    onFatal: (error) => {
      throw error;
    },
    ...time,
    ...appOptions,
    wrapStore: (objects) => wrapStore(wrapPresigning(objects)),
    config,
    now: clock.now,
    monotonicNow: clock.monotonicNow,
  });
  const agent = new Agent({ keepAliveTimeout: 1_000, connections: 128 });
  const sql = new Database(join(dataDir, DATABASE_FILE), { timeout: 5_000 });

  let closed = false;
  async function close(): Promise<void> {
    if (closed) return;
    closed = true;
    sql.close();
    await agent.close();
    await app.close();
  }
  // Before its folder goes: the hook that removes what is in use may fail, and no further hook is run then.
  afterwards(t, close);

  async function send(
    method: string,
    url: string,
    body: Buffer | string | null,
    headers: Record<string, string>,
  ): Promise<Answer> {
    // undici's list of methods is closed; a server must answer others too.
    const answer = await request(url, { method: method as Dispatcher.HttpMethod, body, headers, dispatcher: agent });
    const text = await answer.body.text();
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch {
      json = undefined;
    }
    return { status: answer.statusCode, headers: answer.headers, text, json };
  }

  function call(method: string, path: string, { key = owner.key, body, headers = {} }: Call = {}): Promise<Answer> {
    return send(
      method,
      path.startsWith("http") ? path : app.url + path,
      body === undefined ? null : typeof body === "string" ? body : JSON.stringify(body),
      {
        ...(key === "" ? {} : { Authorization: `Bearer ${key}` }),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
    );
  }

  async function createUpload(
    options: Parameters<TestApp["createUpload"]>[0] = {},
  ): Promise<{ id: string; uploadUrl: string }> {
    const { key, filename = "file.bin", category = "file", size_bytes } = options;
    const answer = await call("POST", "/api/v1/uploads", {
      body: { filename, category, size_bytes },
      ...(key === undefined ? {} : { key }),
    });
    if (answer.status !== 201) throw new Error(`Create answered ${answer.status}: ${answer.text}`);
    return { id: answer.json.data.upload.id, uploadUrl: answer.json.data.upload_url };
  }

  function confirm(id: string, { key, workspaceId }: Owner = owner): Promise<Answer> {
    return call("POST", `/api/v1/uploads/${id}`, { key, body: { context_type: "workspace", context_id: workspaceId } });
  }

  async function put(url: string, bytes: Buffer | string, headers: Record<string, string> = {}): Promise<Answer> {
    for (;;) {
      const answer = await send("PUT", url, bytes, headers);
      if (!isFolderRace(answer.status, answer.text)) return answer;
    }
  }

  return {
    app,
    dataDir,
    config,
    clock,
    owner,
    sql,
    raw: bucket?.raw ?? rawDiskStore(dataDir, sql),
    call,
    createUpload,
    confirm,
    close,
    put,
    async addOwner(quota = quotaBytes) {
      const { workspaces, keys } = app.core;
      const workspace = await workspaces.create({ name: "another", storageBytesQuota: quota });
      const { apiKeyId, apiKey: key } = await keys.create(workspace);
      return { ...workspace, apiKeyId, key };
    },
    async confirmedUpload(bytes, { owner: by = owner, ...options } = {}) {
      const { id, uploadUrl } = await createUpload({ ...options, key: by.key });
      const answer = await put(uploadUrl, bytes);
      if (answer.status !== 200) throw new Error(`PUT answered ${answer.status}: ${answer.text}`);
      const confirmed = await confirm(id, by);
      if (confirmed.status !== 200) throw new Error(`Confirm answered ${confirmed.status}: ${confirmed.text}`);
      return confirmed.json.data;
    },
  };
}
