import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import Database from "better-sqlite3";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { afterwards } from "./_db.ts";
import { skipLoudly } from "./_loud_skip.ts";
import type { ServingProgram } from "./_process.ts";

/** The user "nobody" of most systems: someone who owns nothing. */
export const NOBODY = 65_534;

/** Makes, sends and confirms so many uploads, one after the other; returns their ids. */
export async function confirmUploads(
  { call }: Pick<ServingProgram, "call">,
  { key, workspaceId }: { key: string; workspaceId: string },
  count: number,
): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < count; i++) {
    const created = await call("POST", "/api/v1/uploads", { key, body: { filename: `${i}.bin`, category: "file" } });
    assert.equal(created.status, 201, created.text);
    const { upload, upload_url: url } = created.json.data;
    assert.equal((await call("PUT", url, { body: `file ${i}` })).status, 200);
    const context = { context_type: "workspace", context_id: workspaceId };
    const confirmed = await call("POST", `/api/v1/uploads/${upload.id}`, { key, body: context });
    assert.equal(confirmed.status, 200, confirmed.text);
    ids.push(upload.id);
  }
  return ids;
}

/** Copies the log into the file beside a server, as the server itself does when it is idle: the next write begins a new log. */
export function copyLog(db: string): void {
  const sql = new Database(db, { timeout: 5_000 });
  const [{ busy }] = sql.pragma("wal_checkpoint(RESTART)") as [{ busy: number }];
  sql.close();
  assert.equal(busy, 0);
}

/** What the database's file and its log hold, byte for byte. */
export function fingerprints(dataDir: string): Record<string, string> {
  const paths = ["", "-wal"].map((suffix) => DATABASE_FILE + suffix);
  return Object.fromEntries(
    paths.map((name) => {
      const path = join(dataDir, name);
      return [name, existsSync(path) ? createHash("sha256").update(readFileSync(path)).digest("hex") : "none"];
    }),
  );
}

/** Whether this process may act as another user and mount file systems; if not, the test is skipped, loudly. */
export function isRoot(t: TestContext): boolean {
  if (process.platform === "linux" && process.getuid?.() === 0) return true;
  skipLoudly(t, "acting as another user and mounting need Linux and root", "run the tests as root on Linux");
  return false;
}

/** A folder that every user may pass through: those of `mkdtemp` are closed to all others. Removed after the test. */
export function openFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "stowage-test-"));
  afterwards(t, () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A small file system of its own, unmounted and removed after the test. To be asked for by root alone. */
export function mountSmallDisk(t: TestContext, sizeBytes: number): string {
  const folder = openFolder(t);
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${sizeBytes}`, "tmpfs", folder]);
  // Also where something still holds a file open.
  afterwards(t, () => execFileSync("umount", ["--lazy", folder]));
  return folder;
}

/** Fills a disk to its last page; the file that does it is returned. */
export function fillDisk(folder: string): string {
  const path = join(folder, "filler");
  for (let chunkBytes = 1024 * 1024; chunkBytes >= 4_096; chunkBytes /= 2) {
    try {
      for (;;) writeFileSync(path, Buffer.alloc(chunkBytes), { flag: "a" });
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOSPC")) throw error;
    }
  }
  return path;
}
