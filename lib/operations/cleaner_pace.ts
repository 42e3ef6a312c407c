/** Between two batches the cleaner steps aside for this long and measures how busy the event loop is without it. */
const GAP_MS = 5;
const BUSY_UTILIZATION = 0.7;
/** Requests get nine tenths of a busy process: a backlog costs only space, but a slow response costs somebody's time. */
const BUSY_PAUSE_FACTOR = 9;
/**
 * The cleaner's whole cost to the event loop as a multiple of its writes' cost: it also calls the store, passes results on and
 * commits. Measured on an idle process: 3 on either store, more if commits are slow.
 */
const COST_FACTOR = 4;
/** One write that a slow disk held up must not make the pause just as long. */
const BUSY_PAUSE_MS_MAX = 5_000;

export interface PaceOptions {
  /** How long the event loop has worked for the cleaner so far, as far as that is measured. */
  workedMs: () => number;
  pause: (ms: number) => Promise<void>;
  /** The share of time for which the event loop is busy while `during` is awaited, from 0 to 1. */
  utilization?: (during: () => Promise<void>) => Promise<number>;
}

export type Pace = ReturnType<typeof createPace>;

/**
 * Keeps the cleaner off the event loop while requests need it. Its pauses are in proportion to the time that it has itself used
 * of the loop. Time spent waiting for the store or for a turn to write does not count: with both of them slow, the cleaner
 * would otherwise all but stand still.
 */
export function createPace({ workedMs, pause, utilization = utilizationOfLoop }: PaceOptions) {
  let isBusy = false;
  let paidMs = workedMs();

  /** To be called between two batches: measures whether requests keep the process busy, and if so steps aside. */
  async function checkLoad(): Promise<void> {
    isBusy = (await utilization(() => pause(GAP_MS))) > BUSY_UTILIZATION;
    await giveBack();
  }

  /** To be called between two writes: if the process was busy at the last check, pauses for the time used since. */
  async function giveBack(): Promise<void> {
    const usedMs = workedMs() - paidMs;
    paidMs += usedMs;
    if (isBusy && usedMs > 0) await pause(Math.min(BUSY_PAUSE_MS_MAX, usedMs * COST_FACTOR * BUSY_PAUSE_FACTOR));
  }

  return { checkLoad, giveBack, isBusy: () => isBusy };
}

async function utilizationOfLoop(during: () => Promise<void>): Promise<number> {
  const before = performance.eventLoopUtilization();
  await during();
  return performance.eventLoopUtilization(before).utilization;
}
