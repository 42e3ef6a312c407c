import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import Database from "better-sqlite3";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { holdLock } from "./_db.ts";
import { confirmUploads, fillDisk, isRoot, mountSmallDisk, NOBODY, openFolder } from "./_operator.ts";
import { type InitOutput, runProgram, type ServingProgram, serveProgram } from "./_process.ts";
import type { Case } from "./_troubleshooting.ts";
import { until } from "./_until.ts";

const MIB = 1024 * 1024;
const AS_NOBODY = ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];

interface Installation {
  dataDir: string;
  /** The database's file. */
  db: string;
  backup: string;
  owner: { key: string; workspaceId: string };
  serve: (env?: Record<string, string>) => Promise<ServingProgram>;
  stop: (server: ServingProgram, signal?: NodeJS.Signals) => Promise<void>;
  /** Fails unless `serve` refuses to start and says this. */
  refuses: (why: RegExp) => Promise<void>;
  /** Serves, and fails unless so many uploads are there; the server goes on. */
  servesUploads: (count: number) => Promise<ServingProgram>;
}

/** A data directory with a backup of 10 uploads. */
async function install(t: TestContext, folder = openFolder(t)): Promise<Installation> {
  const [dataDir, backup] = [join(folder, "data"), join(folder, "backup")];
  const init = await runProgram(t, ["init", "--json"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(init.exitCode, 0, init.stderr);
  const made: InitOutput = JSON.parse(init.stdout);
  const owner = { key: made.api_key, workspaceId: made.workspace_id };
  const its: Installation = {
    ...{ dataDir, db: join(dataDir, DATABASE_FILE), backup, owner },
    serve: (env = {}) => serveProgram(t, dataDir, { env }),
    async stop(server, signal = "SIGTERM") {
      server.child.kill(signal);
      await server.ended;
    },
    async refuses(why) {
      const { exitCode, stderr } = await runProgram(t, ["serve"], { STOWAGE_DATA_DIR: dataDir });
      assert.equal(exitCode, 1);
      assert.match(stderr, why);
    },
    async servesUploads(count) {
      const server = await its.serve();
      const list = await server.call("GET", "/api/v1/uploads?status=uploaded", owner);
      assert.equal(list.json.pagination.total, count);
      return server;
    },
  };
  const server = await its.serve();
  await confirmUploads(server, owner, 10);
  await its.stop(server);
  execFileSync("cp", ["-a", dataDir, backup]);
  return its;
}

/** Uploads that are there after `killedLater`. */
const LATER = 40;

/** Uploads and deletes later it is killed, with its newest changes in the log; the store's marker tells of what came since. */
async function killedLater(its: Installation): Promise<void> {
  const first = await its.serve();
  const ids = await confirmUploads(first, its.owner, 80);
  for (const id of ids.slice(-60)) await first.call("DELETE", `/api/v1/uploads/${id}`, its.owner);
  await its.stop(first);
  const marker = join(its.dataDir, "objects", "ledger-marker");
  const before = statSync(marker).mtimeMs;
  // The marker is written when a server starts, and then once a minute.
  const second = await its.serve();
  await confirmUploads(second, its.owner, 10);
  await until(() => statSync(marker).mtimeMs > before, "the marker is written");
  await its.stop(second, "SIGKILL");
  assert.ok(statSync(`${its.db}-wal`).size > 0);
}

/** The backup's database put back over the newer one, which is kept; its log stays. */
async function mixedUp(t: TestContext): Promise<Installation & { newer: string }> {
  const its = await install(t);
  await killedLater(its);
  const newer = join(dirname(its.dataDir), "newer.db");
  copyFileSync(its.db, newer);
  copyFileSync(join(its.backup, DATABASE_FILE), its.db);
  await its.refuses(/do not belong together/);
  return { ...its, newer };
}

const ready = async ({ call }: ServingProgram): Promise<Record<string, unknown>> => (await call("GET", "/ready")).json;

/** What this page's sections on the database and the data directory are played with. */
export const BOOKS_CASES: readonly Case[] = [
  {
    name: "doctor",
    async play(t, cure) {
      const its = await install(t);
      const { stdout } = await cure.run(its);
      assert.match(stdout, /\n0 problems\n$/);
    },
  },
  {
    name: "mixed-up-newer",
    async play(t, cure) {
      const its = await mixedUp(t);
      await cure.run({ ...its, env: { NEWER: its.newer } });
      assert.ok(existsSync(join(`${its.dataDir}.kept`, DATABASE_FILE)));
      await its.servesUploads(LATER);
    },
  },
  {
    name: "mixed-up-copy",
    async play(t, cure) {
      const its = await mixedUp(t);
      await cure.run(its);
      const server = await its.servesUploads(10);
      await until(
        async () => /^paused: /.test(String((await ready(server)).cleaner)),
        "the cleaner waits for a person",
      );
    },
  },
  {
    name: "damaged",
    async play(t, cure) {
      const its = await install(t);
      await killedLater(its);
      const sql = new Database(its.db);
      sql.pragma("wal_checkpoint(TRUNCATE)");
      sql.exec("UPDATE users SET name = 'once more'");
      const root = sql.prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'uploads_by_workspace'").pluck().get();
      const [file, wal] = [readFileSync(its.db), readFileSync(`${its.db}-wal`)];
      sql.close();
      file.fill(0x5a, (Number(root) - 1) * 4_096, Number(root) * 4_096);
      writeFileSync(its.db, file);
      writeFileSync(`${its.db}-wal`, wal);
      await its.refuses(/stowage\.db" is damaged/);
      const { stdout } = await cure.run(its);
      assert.match(stdout, /\n0 problems\n$/);
      await its.servesUploads(10);
    },
  },
  {
    name: "lost-file",
    async play(t, cure) {
      const its = await install(t);
      await killedLater(its);
      const newer = join(dirname(its.dataDir), "newer.db");
      renameSync(its.db, newer);
      await its.refuses(/is missing or empty, and its log/);
      const { stdout } = await cure.run({ ...its, env: { NEWER: newer } });
      assert.match(stdout, /\n0 problems\n$/);
      await its.servesUploads(LATER);
    },
  },
  {
    name: "older",
    async play(t, cure) {
      const its = await install(t);
      await killedLater(its);
      for (const suffix of ["-wal", "-shm"]) rmSync(its.db + suffix);
      copyFileSync(join(its.backup, DATABASE_FILE), its.db);
      const before = await its.servesUploads(10);
      await until(async () => /^paused: /.test(String((await ready(before)).cleaner)), "the cleaner waits");
      await its.stop(before);
      const { stdout } = await cure.run(its);
      assert.match(stdout, /If you go on with it:.*Not accepted.*\nAccepted: /s);
      const after = await its.servesUploads(10);
      assert.equal((await ready(after)).cleaner, undefined);
    },
  },
  {
    name: "ownership",
    async play(t, cure) {
      if (!isRoot(t)) return;
      const its = await install(t);
      chmodSync(dirname(its.dataDir), 0o755);
      await cure.run({ ...its, env: { SERVICE_USER: `${NOBODY}:${NOBODY}` } });
      const server = await serveProgram(t, its.dataDir, { under: AS_NOBODY });
      await confirmUploads(server, its.owner, 1);
    },
  },
  {
    name: "read-only",
    async play(t, cure) {
      if (!isRoot(t)) return;
      const disk = mountSmallDisk(t, 64 * MIB);
      const its = await install(t, disk);
      execFileSync("mount", ["-o", "remount,ro", disk]);
      await its.refuses(/the disk of ".*" is mounted read-only/);
      // Doctor finds fault with so small a disk, and with nothing else.
      const { stdout } = await cure.runInVain({ ...its, env: { MOUNT: disk } });
      assert.match(stdout, /^ok +BOOKS/m);
      await its.servesUploads(10);
    },
  },
  {
    name: "moved",
    async play(t, cure) {
      const its = await install(t);
      const server = await its.serve();
      renameSync(its.db, `${its.db}.moved`);
      const status = async (): Promise<number> => (await server.call("GET", "/ready")).status;
      await until(async () => (await status()) === 503, "it is not ready");
      await cure.run({ ...its, env: { MOVED: `${its.db}.moved` } });
      await until(async () => (await status()) === 200, "it is ready again");
      await confirmUploads(server, its.owner, 1);
    },
  },
  {
    name: "signing-key",
    async play(t, cure) {
      const its = await install(t);
      const first = await its.serve();
      const [id] = await confirmUploads(first, its.owner, 1);
      const { download_url: url } = (await first.call("GET", `/api/v1/uploads/${id}`, its.owner)).json.data;
      const { pathname, search } = new URL(url);
      await its.stop(first);
      rmSync(join(its.dataDir, "url_signing.key"));
      const second = await its.serve();
      assert.match(second.stderr(), /signing_key_made/);
      assert.equal((await second.call("GET", pathname + search)).status, 403);
      await its.stop(second);
      await cure.run(its);
      const third = await its.serve();
      assert.equal((await third.call("GET", pathname + search)).status, 200);
    },
  },
  {
    name: "log-held-up",
    async play(t, cure) {
      const its = await install(t);
      const server = await its.serve();
      await holdLock(t, its.dataDir, "read");
      const sql = new Database(its.db, { timeout: 5_000 });
      t.after(() => sql.close());
      const logBytes = (): number => statSync(`${its.db}-wal`).size;
      while (logBytes() <= 66 * MIB) sql.exec(`UPDATE users SET name = hex(randomblob(${MIB}))`);
      await confirmUploads(server, its.owner, 1);
      await cure.run(its);
      await until(() => logBytes() <= 64 * MIB, "the file gets shorter");
    },
  },
  {
    name: "full-disk",
    async play(t, cure) {
      if (!isRoot(t)) return;
      const disk = mountSmallDisk(t, 64 * MIB);
      const its = await install(t, disk);
      const filler = fillDisk(disk);
      const { stdout } = await cure.run(its);
      assert.match(stdout, / 100% /);
      const server = await its.serve();
      assert.match(server.stderr(), /reserve_released/);
      rmSync(filler);
      await confirmUploads(server, its.owner, 1);
    },
  },
  {
    name: "full-disk-delete",
    async play(t, cure) {
      if (!isRoot(t)) return;
      const disk = mountSmallDisk(t, 64 * MIB);
      const its = await install(t, disk);
      fillDisk(disk);
      const env = { STOWAGE_MIN_FREE_BYTES: String(16 * MIB) };
      const server = await its.serve(env);
      const { call } = server;
      const file = { filename: "a.bin", category: "file" };
      assert.equal((await call("POST", "/api/v1/uploads", { ...its.owner, body: file })).status, 507);
      const [{ id }] = (await call("GET", "/api/v1/uploads", its.owner)).json.data;
      const { stdout } = await cure.run({ ...its, env: { URL: server.url, ID: id, KEY: its.owner.key } });
      assert.doesNotMatch(stdout, /"error"/);
      assert.equal((await call("GET", "/api/v1/uploads", its.owner)).json.pagination.total, 9);
    },
  },
];
