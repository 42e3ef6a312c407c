import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import Database from "better-sqlite3";
import { Client } from "minio";
import { DATABASE_FILE } from "../lib/db/db.ts";
import type { Json } from "./_app.ts";
import { type InitOutput, initProgram, type ServingProgram, serveProgram } from "./_process.ts";
import { rawBucket } from "./_raw_bucket.ts";
import { installationOf } from "./_raw_store.ts";
import { s3Env } from "./_s3_app.ts";
import { type S3Server, useS3Server } from "./_s3_servers.ts";
import { until } from "./_until.ts";

export type PlaceMake = "disk" | "minio" | "versitygw";

/** An installation and the place of its objects, as an operator handles them: with the program and by hand. */
export interface Site {
  make: PlaceMake;
  dataDir: string;
  made: InitOutput;
  /** The settings that name its store. */
  env: Record<string, string>;
  server: S3Server | null;
  /** The keys of all that lies in the store, the marker included. */
  keys: () => Promise<string[]>;
  marker: () => Promise<Json>;
  setMarker: (marker: Json | null) => Promise<void>;
  /** Takes the store away with all that is in it. Resolves with what brings it back. */
  vanish: () => Promise<() => Promise<void>>;
  /** Makes an empty one in its place. */
  makeEmpty: () => Promise<void>;
  /** Asks the database. */
  sql: <T>(work: (db: Database.Database) => T) => T;
  start: (env?: Record<string, string>) => Promise<ServingProgram>;
}

/** A fresh installation. Null, and the test skipped, where the server is not installed. */
export async function openPlace(t: TestContext, make: PlaceMake): Promise<Site | null> {
  const server = make === "disk" ? null : await useS3Server(t, make);
  if (make !== "disk" && server === null) return null;
  const { dataDir, made } = await initProgram(t);
  const bucket = server?.newBucketName() ?? "";
  const env = server === null ? {} : s3Env(server, bucket);

  function sql<T>(work: (db: Database.Database) => T): T {
    const db = new Database(join(dataDir, DATABASE_FILE), { timeout: 5_000 });
    try {
      return work(db);
    } finally {
      db.close();
    }
  }

  return {
    ...{ make, dataDir, made, env, server, sql },
    ...(server === null ? diskPlace(dataDir) : s3Place(server, bucket, sql(installationOf))),
    start: (settings = env) => serveProgram(t, dataDir, { env: settings }),
  };
}

type RawPlace = Pick<Site, "keys" | "marker" | "setMarker" | "vanish" | "makeEmpty">;

function diskPlace(dataDir: string): RawPlace {
  const folder = join(dataDir, "objects");
  const path = join(folder, "ledger-marker");
  return {
    keys: async () =>
      existsSync(folder)
        ? readdirSync(folder, { recursive: true, withFileTypes: true })
            .filter((entry) => entry.isFile())
            .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
        : [],
    marker: async () => JSON.parse(readFileSync(path, "utf8")),
    async setMarker(marker) {
      if (marker === null) rmSync(path);
      else writeFileSync(path, JSON.stringify(marker));
    },
    async vanish() {
      renameSync(folder, `${folder}.away`);
      return async () => {
        rmSync(folder, { recursive: true, force: true });
        renameSync(`${folder}.away`, folder);
      };
    },
    makeEmpty: async () => mkdirSync(folder),
  };
}

function s3Place(server: S3Server, bucket: string, installationId: string): RawPlace {
  const raw = rawBucket(server, bucket);
  const key = `final/${installationId}/ledger-marker`;
  return {
    keys: () => keysIn(server, bucket),
    marker: async () => JSON.parse((await raw.read(key)).toString()),
    setMarker: async (marker) => (marker === null ? raw.remove(key) : raw.put(key, JSON.stringify(marker))),
    vanish: () => raw.vanish(),
    makeEmpty: () => raw.make(),
  };
}

export function clientOf({ endpoint, region, accessKey, secretKey }: S3Server): Client {
  const { hostname, port } = new URL(endpoint);
  return new Client({ endPoint: hostname, port: Number(port), useSSL: false, region, accessKey, secretKey });
}

/** Every key of a bucket; none where it does not exist. */
export async function keysIn(server: S3Server, bucket: string): Promise<string[]> {
  const client = clientOf(server);
  const keys: string[] = [];
  if (!(await client.bucketExists(bucket))) return keys;
  for await (const { name } of client.listObjectsV2(bucket, "", true)) keys.push(name);
  return keys;
}

/** Copies the objects that `isWanted` names into another store, as a person who moves them by hand does. */
export async function copyObjects(from: Site, toBucket: string, isWanted: (key: string) => boolean): Promise<void> {
  const { server, env } = from;
  assert.ok(server !== null);
  const client = clientOf(server);
  const source = env.STOWAGE_S3_BUCKET ?? "";
  if (!(await client.bucketExists(toBucket))) await client.makeBucket(toBucket, server.region);
  for (const key of (await keysIn(server, source)).filter(isWanted)) {
    const chunks: Buffer[] = [];
    for await (const chunk of await client.getObject(source, key)) chunks.push(chunk);
    await client.putObject(toBucket, key, Buffer.concat(chunks));
  }
}

/** A second data directory with the same database, as a person makes one who copies the folder. */
export function copyDataDir(site: Site, name: string): string {
  const copy = join(site.dataDir, "..", name);
  // Whole, although it may be served: into a file of its own.
  mkdirSync(copy);
  site.sql((db) => db.exec(`VACUUM INTO '${join(copy, DATABASE_FILE)}'`));
  cpSync(join(site.dataDir, "url_signing.key"), join(copy, "url_signing.key"));
  if (site.make === "disk") cpSync(join(site.dataDir, "objects"), join(copy, "objects"), { recursive: true });
  return copy;
}

/** What clients do. */
export function clientFor(program: ServingProgram, { api_key: key, workspace_id }: InitOutput) {
  const create = () => program.call("POST", "/api/v1/uploads", { key, body: { filename: "a.bin", category: "file" } });
  const confirm = (id: string) =>
    program.call("POST", `/api/v1/uploads/${id}`, {
      key,
      body: { context_type: "workspace", context_id: workspace_id },
    });

  async function staged(bytes: string): Promise<{ id: string; putUrl: string }> {
    const created = await create();
    assert.equal(created.status, 201, created.text);
    const { upload, upload_url: putUrl } = created.json.data;
    assert.equal((await program.call("PUT", putUrl, { body: bytes })).status, 200);
    return { id: upload.id, putUrl };
  }

  async function uploaded(bytes: string): Promise<Json> {
    const { id } = await staged(bytes);
    const confirmed = await confirm(id);
    assert.equal(confirmed.status, 200, confirmed.text);
    return confirmed.json.data;
  }

  return {
    ...{ create, confirm, staged, uploaded },
    show: (id: string) => program.call("GET", `/api/v1/uploads/${id}`, { key }),
    list: () => program.call("GET", "/api/v1/uploads", { key }),
    usage: () => program.call("GET", "/api/v1/usage/summary", { key }),
    remove: (id: string) => program.call("DELETE", `/api/v1/uploads/${id}`, { key }),
    ready: () => program.call("GET", "/ready"),
  };
}

export async function stop(program: ServingProgram): Promise<void> {
  program.child.kill("SIGTERM");
  assert.equal((await program.ended).exitCode, 0);
}

/** Waits until nothing is left to be removed now. */
export async function drained(site: Site): Promise<void> {
  const due = () =>
    site.sql((db) =>
      db.prepare("SELECT count(*) FROM object_removals WHERE due_at_ms <= unixepoch() * 1000").pluck().get(),
    );
  await until(() => due() === 0, "the outbox is empty");
}

export function entriesOf(site: Site): { object_key: string; attempts: number }[] {
  return site.sql((db) =>
    db.prepare<[], { object_key: string; attempts: number }>("SELECT object_key, attempts FROM object_removals").all(),
  );
}

export function keyOf(site: Site, id: string): string {
  return String(site.sql((db) => db.prepare("SELECT object_key FROM uploads WHERE id = ?").pluck().get(id)));
}
