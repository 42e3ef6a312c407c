import { readFileSync, statSync } from "node:fs";
import { sha256Hex } from "../ids.ts";

/** Drawn anew at each boot of a Linux machine, so that a clone of its disk has another one. */
const BOOT_ID_PATH = "/proc/sys/kernel/random/boot_id";

/**
 * Names a data directory among all there are, its copies included, until this machine is booted anew. Null on a system that
 * does not tell one boot from another.
 */
export function directoryIdOf(dataDir: string): string | null {
  try {
    const bootId = readFileSync(BOOT_ID_PATH, "utf8").trim();
    const { dev, ino } = statSync(dataDir, { bigint: true });
    return sha256Hex(`${bootId} ${dev} ${ino}`);
  } catch {
    return null;
  }
}
