import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { AppError } from "../lib/errors.ts";
import { newId } from "../lib/ids.ts";
import { afterwards, commitsInLog, holdLock, openTestDb, startChild, type TestDb, temporaryFolder } from "./_db.ts";
import { skipLoudly } from "./_loud_skip.ts";

const MIB = 1024 * 1024;

/** The statement that most tests write with: one user, told apart by name. */
function userInsert({ db }: TestDb): (name: string) => string {
  const insert = db.prepare<[string, string]>("INSERT INTO users (id, name, created_at_ms) VALUES (?, ?, 1)");
  return (name) => {
    insert.run(newId(), name);
    return name;
  };
}

function isUnavailable(error: unknown): boolean {
  return error instanceof AppError && error.code === "storage_unavailable" && error.retryAfterSeconds === 1;
}

/** What each promise came to: its value, `503`, or the message of its error. */
async function outcomes(promises: Promise<unknown>[]): Promise<unknown[]> {
  const settled = await Promise.allSettled(promises);
  return settled.map((result) => {
    if (result.status === "fulfilled") return result.value;
    if (isUnavailable(result.reason)) return "503";
    return result.reason instanceof Error ? result.reason.message : String(result.reason);
  });
}

test("the connection is set up so that a commit survives power loss and foreign keys hold", async (t) => {
  const app = openTestDb(t);
  const pragma = (name: string) => app.db.prepare(`PRAGMA ${name}`).pluck().get();
  assert.equal(pragma("journal_mode"), "wal");
  assert.equal(pragma("synchronous"), 2);
  assert.equal(pragma("foreign_keys"), 1);
  assert.equal(pragma("fullfsync"), 1);
  assert.equal(pragma("checkpoint_fullfsync"), 1);
  assert.equal(pragma("wal_autocheckpoint"), 0);
  for (const file of [DATABASE_FILE, `${DATABASE_FILE}-wal`]) {
    assert.equal(statSync(join(app.dataDir, file)).mode & 0o777, 0o600, file);
  }
  const orphan = app.db.prepare("INSERT INTO memberships VALUES ('w', 'u', 'admin', 1)");
  assert.deepEqual(await outcomes([app.db.write(() => orphan.run())]), ["FOREIGN KEY constraint failed"]);
});

test("writes of one turn share one COMMIT, writes of the next turn get their own", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const before = commitsInLog(app.dataDir);
  const names = Array.from({ length: 100 }, (_, i) => String(i));
  const results = names.map((name, i) =>
    i % 2 === 0 ? app.db.write(() => addUser(name)) : app.db.writeStatement(() => addUser(name)),
  );
  assert.deepEqual(app.names(), [], "nothing runs in the turn that asked for it");
  assert.deepEqual(await Promise.all(results), names);
  assert.equal(commitsInLog(app.dataDir) - before, 1);
  for (const name of ["a", "b", "c"]) await app.db.write(() => addUser(name));
  assert.equal(commitsInLog(app.dataDir) - before, 4);
});

test("a group is bounded, and nothing of a longer queue is forgotten or done twice", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const before = commitsInLog(app.dataDir);
  await Promise.all(Array.from({ length: 2_500 }, (_, i) => app.db.writeStatement(() => addUser(String(i)))));
  assert.equal(new Set(app.names()).size, 2_500);
  assert.equal(app.names().length, 2_500);
  assert.equal(commitsInLog(app.dataDir) - before, 3);
});

test("a body that fails is undone alone, and its own error is delivered", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const refusal = new AppError("not_found", "There is no such thing");
  const before = commitsInLog(app.dataDir);
  const first = app.db.write(() => addUser("first"));
  const second = app.db.write(() => {
    addUser("second");
    throw refusal;
  });
  const third = app.db.write(() => addUser("third"));
  await assert.rejects(second, (error) => error === refusal);
  assert.deepEqual(await Promise.all([first, third]), ["first", "third"]);
  assert.deepEqual(app.names(), ["first", "third"]);
  assert.equal(commitsInLog(app.dataDir) - before, 1);
});

test("a statement that breaks a constraint fails alone, with or without a savepoint", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const tooShort = app.db.prepare("INSERT INTO users (id, name, created_at_ms) VALUES ('short', 'x', 1)");
  const found = await outcomes([
    app.db.writeStatement(() => addUser("a")),
    app.db.writeStatement(() => tooShort.run()),
    app.db.write(() => tooShort.run()),
    app.db.writeStatement(() => {
      throw new AppError("not_found", "thrown before anything was written");
    }),
    app.db.write(() => addUser("b")),
  ]);
  const broken = "CHECK constraint failed: length(id) = 36";
  assert.deepEqual(found, ["a", broken, broken, "thrown before anything was written", "b"]);
  assert.deepEqual(app.names(), ["a", "b"]);
});

test("at the moment of delivery, of results and errors alike, the group is committed", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const seen: string[][] = [];
  const look = () => void seen.push(app.names());
  await Promise.all([
    app.db.write(() => addUser("a")).then(look),
    app.db
      .write(() => {
        throw new AppError("not_found", "gone");
      })
      .catch(look),
    app.db.writeStatement(() => addUser("b")).then(look),
  ]);
  assert.deepEqual(seen, [
    ["a", "b"],
    ["a", "b"],
    ["a", "b"],
  ]);
});

test("where COMMIT fails, nobody is told a result or an error of the lost group, and the next group works", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const defer = app.db.prepare("PRAGMA defer_foreign_keys = ON");
  const orphan = app.db.prepare("INSERT INTO memberships VALUES ('no workspace', 'no user', 'admin', 1)");
  const found = await outcomes([
    app.db.write(() => addUser("a")),
    // This 404 may have seen what the same group did: it must not leave, as the group never happened.
    app.db.write(() => {
      throw new AppError("not_found", "seen in a group that was lost");
    }),
    app.db.write(() => {
      defer.run();
      orphan.run();
    }),
    app.db.write(() => addUser("b")),
  ]);
  assert.deepEqual(found, ["503", "503", "503", "503"]);
  assert.deepEqual(app.names(), []);
  assert.ok(app.logged().includes("group_failed"));
  assert.equal(await app.db.write(() => addUser("c")), "c");
  assert.deepEqual(app.names(), ["c"]);
});

test("a body that rolls the transaction back takes its group with it, and no later body runs on its own", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  app.db
    .prepare(
      `CREATE TEMP TRIGGER no_b BEFORE INSERT ON main.users WHEN NEW.name = 'b'
       BEGIN SELECT RAISE(ROLLBACK, 'everything goes'); END`,
    )
    .run();
  for (const kind of ["write", "writeStatement"] as const) {
    let ranLater = false;
    const found = await outcomes([
      app.db[kind](() => addUser("a")),
      app.db[kind](() => addUser("b")),
      app.db[kind](() => {
        ranLater = true;
        return addUser("c");
      }),
    ]);
    assert.deepEqual(found, ["503", "503", "503"]);
    assert.equal(ranLater, false);
    assert.deepEqual(app.names(), []);
  }
  assert.equal(await app.db.write(() => addUser("d")), "d");
  assert.deepEqual(app.names(), ["d"]);
});

test("a body that hides the failure which ended the transaction still takes its group with it", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const rollback = app.db.prepare("ROLLBACK");
  for (const kind of ["write", "writeStatement"] as const) {
    let ranLater = false;
    const found = await outcomes([
      app.db[kind](() => addUser("a")),
      app.db[kind](() => rollback.run()),
      app.db[kind](() => {
        ranLater = true;
        return addUser("b");
      }),
    ]);
    assert.deepEqual(found, ["503", "503", "503"]);
    assert.equal(ranLater, false);
    assert.deepEqual(app.names(), []);
  }
});

test("a body that is asynchronous is refused and leaves nothing behind", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const refusal = "The body of a write must not be asynchronous";
  const found = await outcomes([
    app.db.write(() => addUser("a")),
    app.db.write(async () => addUser("b")),
    // biome-ignore lint/suspicious/noThenProperty: any object that can be awaited is meant
    app.db.write(() => ({ then: () => addUser("c") })),
    app.db.write(() => addUser("d")),
  ]);
  assert.deepEqual(found, ["a", refusal, refusal, "d"]);
  assert.deepEqual(app.names(), ["a", "d"]);
  // Without a savepoint it cannot be undone alone.
  const lost = await outcomes([
    app.db.writeStatement(() => addUser("e")),
    app.db.writeStatement(async () => addUser("f")),
    app.db.writeStatement(() => addUser("g")),
  ]);
  assert.deepEqual(lost, ["503", "503", "503"]);
  assert.deepEqual(app.names(), ["a", "d"]);
});

test("a statement that finds no room but leaves the transaction alive is answered 503 alone", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const pages = Number(app.db.prepare("PRAGMA page_count").pluck().get());
  app.db.prepare(`PRAGMA max_page_count = ${pages + 8}`).get();
  // Of many rows at once: SQLite then keeps a journal of the statement and undoes it alone.
  const addMany = app.db.prepare(
    `INSERT INTO users (id, name, created_at_ms)
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
     SELECT printf('%036d', i), printf('%.3000c', 'x'), 1 FROM n`,
  );
  const found = await outcomes([
    app.db.write(() => addUser("a")),
    app.db.write(() => addMany.run()),
    app.db.writeStatement(() => addMany.run()),
    app.db.write(() => addUser("b")),
  ]);
  assert.deepEqual(found, ["a", "503", "503", "b"]);
  assert.deepEqual(app.names(), ["a", "b"]);
});

/** A data directory on a file system of its own of this size; null (and a loud skip) where that cannot be had. */
function smallDisk(t: TestContext, sizeBytes: number): string | null {
  const folder = join(temporaryFolder(t), "disk");
  mkdirSync(folder);
  const { status, error } = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${sizeBytes}`, "tmpfs", folder]);
  if (status !== 0 || error !== undefined) {
    skipLoudly(t, "A small disk cannot be mounted here", "run the tests as root on Linux, where tmpfs can be mounted");
    return null;
  }
  afterwards(t, () => spawnSync("umount", [folder]));
  return folder;
}

/** Fills a disk to its last page; the file that does it is returned. */
function fillDisk(folder: string): string {
  const path = join(folder, "filler");
  for (let chunkBytes = MIB; chunkBytes >= 4_096; chunkBytes /= 2) {
    try {
      for (;;) writeFileSync(path, Buffer.alloc(chunkBytes), { flag: "a" });
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
    }
  }
  return path;
}

test("a COMMIT that finds the disk full loses the whole group, and the next works once there is room", async (t) => {
  const dataDir = smallDisk(t, 4 * MIB);
  if (dataDir === null) return;
  const app = openTestDb(t, { dataDir });
  const addUser = userInsert(app);
  await app.db.write(() => addUser("a"));
  const filler = fillDisk(dataDir);
  const found = await outcomes([
    app.db.write(() => addUser("b")),
    app.db.writeStatement(() => addUser("c".repeat(100_000))),
    app.db.write(() => {
      throw new AppError("not_found", "seen in a group that was lost");
    }),
    app.db.write(() => addUser("d")),
  ]);
  assert.deepEqual(found, ["503", "503", "503", "503"]);
  assert.deepEqual(app.names(), ["a"]);
  rmSync(filler);
  assert.equal(await app.db.write(() => addUser("e")), "e");
  assert.deepEqual(app.names(), ["a", "e"]);
});

test("a body that fills the disk loses the whole group, and no later body runs", async (t) => {
  const dataDir = smallDisk(t, 8 * MIB);
  if (dataDir === null) return;
  const app = openTestDb(t, { dataDir });
  const addUser = userInsert(app);
  for (const kind of ["write", "writeStatement"] as const) {
    let ranLater = false;
    const found = await outcomes([
      app.db[kind](() => addUser("a")),
      // More than SQLite's cache holds: it must write pages to the log before the COMMIT, and finds no room.
      app.db[kind](() => {
        for (let i = 0; i < 40; i++) addUser("b".repeat(MIB));
      }),
      app.db[kind](() => {
        ranLater = true;
        return addUser("c");
      }),
    ]);
    assert.deepEqual(found, ["503", "503", "503"]);
    assert.equal(ranLater, false);
    assert.deepEqual(app.names(), []);
    assert.equal(await app.db[kind](() => addUser(`after ${kind}`)), `after ${kind}`);
    app.second.exec("DELETE FROM users");
  }
});

test("after an I/O error the group is answered, onFatal is called and nothing of the group is durable", async (t) => {
  // The kernel refuses to let the log grow beyond 1 MiB (EFBIG, which SQLite reports as SQLITE_IOERR_WRITE).
  const dataDir = temporaryFolder(t);
  const child = startChild(t, "./_db_child.ts", ["until_fatal", dataDir], "ulimit -f 2048 && exec");
  const { code, stdout, stderr } = await child.ended;
  assert.equal(code, 7, stdout + stderr);
  const said = JSON.parse(stdout.trim().split("\n").at(-1) ?? "{}");
  assert.equal(said.fatal, "SQLITE_IOERR_WRITE");
  assert.deepEqual(said.answers, ["storage_unavailable", "storage_unavailable", "storage_unavailable"]);
  assert.match(stderr, /"msg":"group_failed"/);
  const app = openTestDb(t, { dataDir });
  assert.ok(app.names().length > 0);
  assert.equal(app.names().length % 3, 0, "each group is there whole or not at all");
  assert.equal(app.db.prepare("PRAGMA integrity_check").pluck().get(), "ok");
});

for (const end of ["release", "kill"] as const) {
  test(`while another process holds the write lock the event loop turns, and after its ${end} the writes are done`, async (t) => {
    const app = openTestDb(t);
    const addUser = userInsert(app);
    const lock = await holdLock(t, app.dataDir);
    let settled = 0;
    const writes = ["a", "b"].map((name) => app.db.write(() => addUser(name)).finally(() => settled++));
    // The holder only lets go when this process tells it to: were the loop blocked, it never would.
    for (let turn = 0; turn < 50; turn++) await delay(1);
    assert.equal(settled, 0);
    assert.equal(app.db.prepare("SELECT count(*) FROM users").pluck().get(), 0, "reads go on");
    lock[end]();
    assert.deepEqual(await Promise.all(writes), ["a", "b"]);
    assert.deepEqual(app.names(), ["a", "b"]);
  });
}

test("a lock held too long refuses those writes that waited too long, and no others", async (t) => {
  let nowMs = 0;
  const app = openTestDb(t, { monotonicMs: () => nowMs });
  const addUser = userInsert(app);
  app.second.exec("BEGIN IMMEDIATE");
  const old = app.db.write(() => addUser("old"));
  await delay(50);
  nowMs = 4_000;
  const young = app.db.write(() => addUser("young"));
  await delay(50);
  nowMs = 5_001;
  await assert.rejects(old, isUnavailable);
  assert.ok(app.logged().includes("database_busy"));
  app.second.exec("COMMIT");
  assert.equal(await young, "young");
  assert.deepEqual(app.names(), ["young"]);
});

test("writes that wait are bounded: one too many is refused at once, the others are done", async (t) => {
  const app = openTestDb(t, { monotonicMs: () => 0 });
  const probe = app.db.prepare("UPDATE installation SET probed_at_ms = probed_at_ms + 1");
  app.second.exec("BEGIN IMMEDIATE");
  const waiting = Array.from({ length: 10_000 }, () => app.db.writeStatement(() => probe.run()));
  await nextTurn();
  await assert.rejects(
    app.db.writeStatement(() => probe.run()),
    isUnavailable,
  );
  app.second.exec("COMMIT");
  await Promise.all(waiting);
  assert.equal(app.second.prepare("SELECT probed_at_ms FROM installation").pluck().get(), 10_000);
});

test("two processes write at once and both find all their writes done", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  const child = startChild(t, "./_db_child.ts", ["write", app.dataDir]);
  await child.says("open");
  let own = 0;
  const childEnded = child.ended.then(({ code }) => code);
  for (let over = false; !over; own++) {
    await app.db.write(() => addUser("own"));
    over = await Promise.race([childEnded.then(() => true), nextTurn(false)]);
  }
  assert.equal(await childEnded, 0);
  const count = app.second.prepare<[string], number>("SELECT count(*) FROM users WHERE name = ?").pluck();
  assert.equal(count.get("child"), 100);
  assert.equal(count.get("own"), own);
});

test("close() finishes what is queued, refuses what comes later and leaves one file", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  app.second.close();
  const queued = Array.from({ length: 1_500 }, (_, i) => app.db.write(() => addUser(String(i))));
  const closed = app.db.close();
  await assert.rejects(
    app.db.write(() => addUser("late")),
    isUnavailable,
  );
  await closed;
  assert.equal((await Promise.all(queued)).length, 1_500);
  assert.equal(existsSync(join(app.dataDir, `${DATABASE_FILE}-wal`)), false);
  await app.db.close();
  assert.equal(openTestDb(t, { dataDir: app.dataDir }).names().length, 1_500);
});

test("close() waits for a lock that another process holds", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  app.second.exec("BEGIN IMMEDIATE");
  const queued = app.db.write(() => addUser("a"));
  const closed = app.db.close();
  await delay(60);
  app.second.exec("COMMIT");
  await closed;
  assert.equal(await queued, "a");
  assert.deepEqual(app.names(), ["a"]);
});

test("under load the log stays under 64 MiB", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  for (let i = 0; i < 16; i++) await app.db.write(() => addUser(String(i)));
  const rewrite = app.db.prepare<[string]>("UPDATE users SET name = ?");
  let largestBytes = 0;
  // 120 MiB in all, one MiB a group.
  for (let i = 0; i < 120; i++) {
    // Another letter each time: SQLite does not write a page again whose content stays the same.
    await app.db.writeStatement(() => rewrite.run(String.fromCharCode(97 + (i % 26)).repeat(MIB / 16)));
    largestBytes = Math.max(largestBytes, statSync(join(app.dataDir, `${DATABASE_FILE}-wal`)).size);
  }
  assert.ok(largestBytes > 8 * MIB, `${largestBytes}`);
  assert.ok(largestBytes < 64 * MIB, `${largestBytes}`);
});

test("once idle, the log is copied into the database", async (t) => {
  const app = openTestDb(t);
  const addUser = userInsert(app);
  await app.db.write(() => addUser("x".repeat(2 * MIB)));
  const logState = () => app.second.pragma("wal_checkpoint(NOOP)") as [{ log: number; checkpointed: number }];
  assert.ok(logState()[0].log > 256);
  const deadlineMs = performance.now() + 20_000;
  // The next log begins with a mark of its own.
  while (logState()[0].log > 256) {
    assert.ok(performance.now() < deadlineMs, "the log was never copied");
    await delay(20);
  }
});
