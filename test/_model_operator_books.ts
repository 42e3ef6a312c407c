import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { refuseUnsound } from "../lib/db/soundness.ts";
import { silentLog } from "./_app.ts";
import { checkBooks } from "./_books.ts";
import type { FaultyApp } from "./_faulty_app.ts";
import type { Model, ModelUpload } from "./_model.ts";
import { expectStatus } from "./_model_world.ts";
import { fillDisk } from "./_operator.ts";
import type { Random } from "./_random.ts";
import { until } from "./_until.ts";

/** Longer than the marker of the ledger is kept as it is. */
const MARKER_MS = 61_000;
/** Deletes that are tried on a full disk. */
const DELETES_MAX = 3;
/** An idle service copies a log of a megabyte. */
const LOG_BYTES = 2 * 1024 * 1024;
const FILE = { filename: "a.bin", category: "file" };

export interface OperatorOptions {
  /** The service as it runs now: each start makes another. */
  its: () => FaultyApp;
  /** Stops the service, does something to its files, and starts it again. */
  whileStopped: (work: () => void) => Promise<void>;
  model: Model;
  random: Random;
  /** The file system of the data directory, where it is one that may be filled; else null. */
  disk: string | null;
}

export type BooksOperator = ReturnType<typeof createBooksOperator>;

/** What operators do to a data directory, by mistake or because they must, each with what must hold then. */
export function createBooksOperator({ its, whileStopped, model, random, disk }: OperatorOptions) {
  const dataDir = its().dataDir;
  const db = join(dataDir, DATABASE_FILE);
  const kept = mkdtempSync(join(tmpdir(), "stowage-operator-"));
  const [older, newest] = [join(kept, "older.db"), join(kept, "newest.db")];
  let olderSeq = 0;

  const ledgerSeq = (): number => its().app.core.ledger.last()?.seq ?? 0;
  const objectKeys = async (): Promise<string[]> =>
    (await its().raw.objects()).map(({ objectKey }) => objectKey).sort();

  /** A copy of the file, made as the README says. */
  async function copyAside(): Promise<void> {
    olderSeq = ledgerSeq();
    await whileStopped(() => copyFileSync(db, older));
  }

  /**
   * The older copy is put back and served, until somebody puts the newest file back. Meanwhile nothing is removed;
   * afterwards everything is as before.
   */
  async function restoreOlderCopy(): Promise<void> {
    if (!existsSync(older) || olderSeq >= ledgerSeq()) return copyAside();
    its().clock.advance(MARKER_MS);
    model.expire(its().clock.now());
    await its().app.cleaner.runOnce();
    const before = await objectKeys();
    await whileStopped(() => {
      copyFileSync(db, newest);
      copyFileSync(older, db);
    });
    checkBooks(its().sql);
    assert.equal((await its().app.cleaner.runOnce()).removed, 0, "an older database removes nothing");
    assert.deepEqual(await objectKeys(), before, "and no object goes");
    assert.match((await its().call("GET", "/ready")).json.cleaner, /^paused: /);
    await whileStopped(() => copyFileSync(newest, db));
    await copyAside();
  }

  /** A copy of the older file beside the newer log, as after a kill: it is refused, however little the log holds. */
  async function mixUp(): Promise<void> {
    if (!existsSync(older)) return copyAside();
    await writeUntilCopied();
    const mixed = join(kept, "mixed.db");
    copyFileSync(older, mixed);
    copyFileSync(`${db}-wal`, `${mixed}-wal`);
    assert.throws(() => refuseUnsound(mixed, silentLog), /do not belong together/);
    for (const suffix of ["", "-wal", "-shm"]) rmSync(mixed + suffix, { force: true });
  }

  /** Writes more than is left in the log while nothing else is written, so that the service copies it and begins another. */
  async function writeUntilCopied(): Promise<void> {
    const { app, sql } = its();
    const rename = app.core.db.prepare<[string]>("UPDATE users SET name = ?");
    const started = sql.prepare<[], string>("SELECT log_start_json FROM installation").pluck();
    const before = started.get();
    await app.core.db.writeStatement(() => rename.run("x".repeat(LOG_BYTES)));
    await until(() => started.get() !== before, "another log is begun");
    await app.core.db.writeStatement(() => rename.run("user"));
  }

  /** The disk is filled to its end, also over a restart: reads and deletes go on, and nothing is lost or half done. */
  async function fullDisk(): Promise<void> {
    if (disk === null) return;
    const filler = fillDisk(disk);
    const { key } = (random.pick(model.workspaces) ?? assert.fail()).owner;
    const made: string[] = [];
    for (let i = 0; i < 3; i++) {
      const answer = await its().call("POST", "/api/v1/uploads", { key, body: FILE });
      expectStatus("create", answer, [201, 429, 503, 507]);
      if (answer.status === 201) made.push(answer.json.data.upload.id);
    }
    await deleteSome();
    await whileStopped(() => {
      // Unless the reserve was given already: what is left of it is what the deletes live on.
      if (existsSync(join(dataDir, "stowage.reserve"))) fillDisk(disk);
    });
    const upload = random.pick(model.all());
    if (upload !== undefined) {
      const { key } = upload.workspace.owner;
      expectStatus("read", await its().call("GET", `/api/v1/uploads/${upload.id}`, { key }), [200]);
    }
    await deleteSome();
    rmSync(filler);
    for (const id of made) expectStatus("delete", await its().call("DELETE", `/api/v1/uploads/${id}`, { key }), [200]);
    // With room again the reserve is kept again.
    await whileStopped(() => {});
  }

  /** A 503 is "unknown": asked again it is done, or was done. */
  async function deleteSome(): Promise<void> {
    for (let i = 0; i < DELETES_MAX; i++) {
      const upload = random.pick(model.all());
      if (upload === undefined) return;
      let answer = await sendDelete(upload);
      if (answer.status === 503) answer = await sendDelete(upload);
      expectStatus("delete", answer, [200, 404]);
      model.remove(upload);
    }
  }

  const sendDelete = ({ id, workspace: { owner } }: ModelUpload) =>
    its().call("DELETE", `/api/v1/uploads/${id}`, { key: owner.key });

  return { restoreOlderCopy, mixUp, fullDisk, close: () => rmSync(kept, { recursive: true, force: true }) };
}
