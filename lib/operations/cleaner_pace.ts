/** Between two batches the cleaner steps aside for this long and sees how busy the event loop is without it. */
const GAP_MS = 5;
const BUSY_UTILIZATION = 0.7;
/** Nine tenths of a busy process belong to requests: a backlog costs nobody anything but space, a slow response does. */
const BUSY_PAUSE_FACTOR = 9;
/**
 * What the cleaner costs the event loop in all, times what its writes take of it: the rest is for calling the store, handing
 * on its results, and commits. Measured with nothing else going on: 3 on either store, more if a commit takes long.
 */
const COST_FACTOR = 4;
/** One write that was slow because the disk is must not make the pause as long. */
const BUSY_PAUSE_MS_MAX = 5_000;

export interface PaceOptions {
  /** How long the event loop has worked for the cleaner by now, as far as that is measured. */
  workedMs: () => number;
  pause: (ms: number) => Promise<void>;
  /** How much of the time the event loop is busy while `during` is awaited; 1 is always. */
  utilization?: (during: () => Promise<void>) => Promise<number>;
}

export type Pace = ReturnType<typeof createPace>;

/**
 * Keeps the cleaner from the event loop while requests need it. It gives back in proportion to what it has itself used of
 * the loop, and not to the time that it has waited for the store or for its turn to write: while both are slow it would
 * otherwise all but stand still.
 */
export function createPace({ workedMs, pause, utilization = utilizationOfLoop }: PaceOptions) {
  let isBusy = false;
  let paidMs = workedMs();

  /** To be called between two batches: sees whether requests keep the process busy, and if so leaves it to them. */
  async function lookAround(): Promise<void> {
    isBusy = (await utilization(() => pause(GAP_MS))) > BUSY_UTILIZATION;
    await giveBack();
  }

  /** To be called between two writes: gives back what was used since the last time, if the process was last seen busy. */
  async function giveBack(): Promise<void> {
    const usedMs = workedMs() - paidMs;
    paidMs += usedMs;
    if (isBusy && usedMs > 0) await pause(Math.min(BUSY_PAUSE_MS_MAX, usedMs * COST_FACTOR * BUSY_PAUSE_FACTOR));
  }

  return { lookAround, giveBack, isBusy: () => isBusy };
}

async function utilizationOfLoop(during: () => Promise<void>): Promise<number> {
  const before = performance.eventLoopUtilization();
  await during();
  return performance.eventLoopUtilization(before).utilization;
}
