import { statSync } from "node:fs";
import { type Child, cpuMs, openFiles, residentMb } from "./children.ts";
import { median } from "./report.ts";

const LOOK_MS = 1_000;
/** The series is printed in so many lines at most. */
const LINES_MAX = 20;
/** Memory may grow by this share, or by so many MB: whoever is less in both is flat. */
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
  /** Marks the beginning of a part of the run: samples are taken from here on. */
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

/** Memory early in the abuse, when caches and code are warm, and at its end, in MB. */
export function growth(samples: readonly Sample[]): { earlyMb: number; lateMb: number; grew: boolean } {
  const fifth = Math.max(1, Math.floor(samples.length / 5));
  const ofPart = (from: number, to?: number): number =>
    median(samples.slice(from, to).map((sample) => sample.residentMb));
  const earlyMb = ofPart(fifth, 2 * fifth);
  const lateMb = ofPart(-fifth);
  return { earlyMb, lateMb, grew: lateMb > earlyMb * GROWTH_MAX && lateMb > earlyMb + GROWTH_MB_MAX };
}

/** The series as lines of a table: each stands for some seconds, with the most that was held in them. */
export function seriesLines(samples: readonly Sample[]): string[][] {
  const step = Math.ceil(samples.length / LINES_MAX);
  const lines: string[][] = [];
  for (let start = 0; start < samples.length; start += step) {
    const part = samples.slice(start, start + step);
    const most = (figure: (sample: Sample) => number): string => Math.max(...part.map(figure)).toFixed(0);
    lines.push([
      `${((part[0]?.atMs ?? 0) / 1000).toFixed(0)} s`,
      ...[most((sample) => sample.residentMb), most((sample) => sample.openFiles), most((sample) => sample.databaseMb)],
    ]);
  }
  return lines;
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
