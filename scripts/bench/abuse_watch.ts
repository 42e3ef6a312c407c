import { statSync } from "node:fs";
import { type Child, cpuMs, openFiles, residentMb } from "./children.ts";
import { median } from "./report.ts";

const LOOK_MS = 1_000;
/** Memory that grew beyond both of these, times and MB, is not flat. */
const GROWTH_MAX = 1.5;
const GROWTH_MB_MAX = 100;

/** What the service held at one moment. */
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

/** Resident memory early in the abuse, when caches and code are warm, and at its end, in MB. */
export interface Growth {
  earlyMb: number;
  lateMb: number;
  /** Whether that is far more than what is left lying about. */
  grew: boolean;
}

export function growth(samples: readonly Sample[]): Growth {
  const fifth = Math.max(1, Math.floor(samples.length / 5));
  const ofPart = (from: number, to?: number): number =>
    median(samples.slice(from, to).map((sample) => sample.residentMb));
  const earlyMb = ofPart(fifth, 2 * fifth);
  const lateMb = ofPart(-fifth);
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
