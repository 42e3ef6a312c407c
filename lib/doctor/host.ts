import { statSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { isThere } from "../db/access.ts";
import { OBJECTS_FOLDER, SIGNING_KEY_FILE } from "../db/data_dir.ts";
import { DATABASE_FILE } from "../db/db.ts";
import { freeBytesOf } from "../db/free_space.ts";
import type { Report } from "./report.ts";

/** With less than this a database in daily use soon fails to commit. */
const DATABASE_FREE_BYTES_MIN = 256 * 1024 * 1024;
/** Permission bits of everyone but the owner. */
const OTHERS_BITS = 0o077;

/** Settings that are valid, and yet seldom meant. */
export function checkSettings(report: Report, config: Config): void {
  const check = "settings";
  const before = report.findings.length;
  const plain = [
    ["STOWAGE_PUBLIC_URL", config.publicUrl],
    ["STOWAGE_S3_PUBLIC_ENDPOINT", config.store === "s3" ? (config.s3PublicEndpoint ?? config.s3Endpoint) : null],
  ] as const;
  for (const [name, url] of plain) {
    if (url === null || !url.startsWith("http:") || isLoopback(url)) continue;
    report.note(check, `${name} is ${url}: keys and files travel in the clear`, {
      advice: "put TLS in front, and let the setting begin with https:// (README, operation)",
    });
  }
  const publicUrl = config.publicUrl;
  const s3Url = plain[1][1];
  if (publicUrl !== null && !isLoopback(publicUrl) && s3Url !== null && isLoopback(s3Url)) {
    report.problem(check, `clients are sent to ${s3Url}, which only this machine can reach`, {
      advice: "set STOWAGE_S3_PUBLIC_ENDPOINT to the store's URL as clients see it",
    });
  }
  if (config.corsOrigins.includes("*")) {
    report.note(check, "STOWAGE_CORS_ORIGINS is *: pages of every origin may call the API with a key they have", {
      advice: "name your own origins, separated by commas, if only your pages are to call it",
    });
  }
  if (report.findings.length === before)
    report.ok(check, `STOWAGE_STORE is ${config.store}, data in "${config.dataDir}"`);
}

/** Who may read what lies in the data directory, and whether there is room left. */
export function checkFiles(report: Report, config: Config): void {
  const check = "files";
  const before = report.findings.length;
  const { dataDir } = config;
  const folderOwner = statSync(dataDir).uid;
  const names = ["", DATABASE_FILE, `${DATABASE_FILE}-wal`, `${DATABASE_FILE}-shm`, SIGNING_KEY_FILE, "serve.lock"];
  for (const path of [...names, OBJECTS_FOLDER].map((name) => join(dataDir, name))) {
    if (!isThere(path)) continue;
    const { mode, uid } = statSync(path);
    if ((mode & OTHERS_BITS) !== 0) {
      report.problem(check, `others may use "${path}" (mode ${(mode & 0o777).toString(8)})`, {
        advice: `chmod go= "${path}"`,
      });
    }
    if (uid !== folderOwner) {
      report.problem(check, `"${path}" belongs to user ${uid}, the data directory to user ${folderOwner}`, {
        advice: `chown ${folderOwner} "${path}", and run every command as the user that runs \`stowage serve\``,
      });
    }
  }
  if (config.store === "disk" && !isThere(join(dataDir, SIGNING_KEY_FILE))) {
    report.problem(check, `there is no "${join(dataDir, SIGNING_KEY_FILE)}"`, {
      advice:
        "put it back from a backup; else `stowage serve` makes a new one when it starts, and all URLs that are out are void",
    });
  }
  const freeBytes = freeBytesOf(dataDir);
  if (config.store === "disk" && freeBytes < config.minFreeBytes) {
    report.problem(
      check,
      `${freeBytes} bytes are free: below STOWAGE_MIN_FREE_BYTES (${config.minFreeBytes}) uploads are refused`,
      {
        advice: "make room on the disk of the data directory, or move it to a larger one",
      },
    );
  } else if (freeBytes < DATABASE_FREE_BYTES_MIN) {
    report.problem(check, `${freeBytes} bytes are free on the disk of the database`, {
      advice: `make room: with a full disk nothing can be booked. At least ${DATABASE_FREE_BYTES_MIN} bytes should be free`,
    });
  }
  if (report.findings.length === before) report.ok(check, "private to their owner, with room on the disk");
}

function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === "localhost" || hostname === "[::1]" || /^127(\.\d+){3}$/.test(hostname);
}
