import { statSync } from "node:fs";
import { type Child, cpuMs, openFiles, residentMb } from "./children.ts";
import { median } from "./report.ts";

const LOOK_MS = 1_000;
/** Memory that grew beyond both of these, times and MB, is not flat. */
const GROWTH_MAX = 1.5;
const GROWTH_MB_MAX = 100;
const EARLY_SHARE = 0.4;
const LATE_SHARE = 0.2;

/** The service's memory and files at one moment. */
export interface Sample {
  atMs: number;
  residentMb: number;
  openFiles: number;
  databaseMb: number;
}

export interface Watch {
  samples: Sample[];
  stop: () => void;
}

/** Looks at a service once a second. */
export function watchService(service: Child, databaseFile: string): Watch {
  const samples: Sample[] = [];
  const startedMs = performance.now();
  const look = (): void => {
    if (service.ended() !== null) return;
    samples.push({
      atMs: performance.now() - startedMs,
      residentMb: residentMb(service.pid),
      openFiles: openFiles(service.pid),
      databaseMb: (sizeOf(databaseFile) + sizeOf(`${databaseFile}-wal`)) / 1e6,
    });
  };
  const timer = setInterval(look, LOOK_MS);
  return { samples, stop: () => clearInterval(timer) };
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

/** Resident memory, in MB. */
export interface Growth {
  /** The most in the first part of the abuse, in which everything has been tried: what was needed once stays for a while. */
  earlyMb: number;
  /** At the end of the abuse. */
  lateMb: number;
  /** True if that is far more than garbage not yet collected. */
  grew: boolean;
}

export function growth(samples: readonly Sample[]): Growth {
  const residentMb = samples.map((sample) => sample.residentMb);
  const earlyMb = Math.max(...residentMb.slice(0, Math.ceil(samples.length * EARLY_SHARE)));
  const lateMb = median(residentMb.slice(-Math.ceil(samples.length * LATE_SHARE)));
  return { earlyMb, lateMb, grew: lateMb > earlyMb * GROWTH_MAX && lateMb > earlyMb + GROWTH_MB_MAX };
}

/** Processor time of some processes over a while, as a share of one core. */
export function measureCpu(pids: Record<string, number>): () => Record<string, number> {
  const now = (): number[] => Object.values(pids).map(cpuMs);
  const [before, startedMs] = [now(), performance.now()];
  return () => {
    const passedMs = performance.now() - startedMs;
    const after = now();
    return Object.fromEntries(
      Object.keys(pids).map((name, i) => [name, ((after[i] ?? 0) - (before[i] ?? 0)) / passedMs]),
    );
  };
}
