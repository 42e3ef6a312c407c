import type { LoadGenerator } from "./load.ts";

/** Shared by all parts of the benchmark. */
export interface BenchContext {
  /** A folder on the disk that is measured; removed at the end. */
  folder: string;
  load: LoadGenerator;
  /** How often each thing is measured. */
  rounds: number;
  /** Scales the number of requests in one run: 1 for figures that count, less while developing. */
  scale: number;
}
