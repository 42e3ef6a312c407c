import { setTimeout as delay } from "node:timers/promises";
import { createPace, type Pace } from "./cleaner_pace.ts";

/** Work in the background that comes in passes. */
export interface Work<Result> {
  /** One pass over everything that is due. Between its steps it asks `steps` whether to go on, and how fast. */
  runPass: (steps: Steps) => Promise<Result>;
  /** Called after a pass that succeeded, and the gap. Resolves with how long to sleep, in milliseconds. */
  planNext: () => Promise<number>;
  /** Whether `wake` may end the sleep. While it may not, the work keeps its own pace. */
  mayWake: () => boolean;
  /** The shortest time between two passes, in milliseconds. Work that arrives meanwhile is done together. */
  gapMs: number;
  /** How long to sleep after a pass that failed, in milliseconds. */
  retryMs: number;
  /** Called with the reason when a pass fails, unless the worker is being stopped. */
  onFailure: (error: unknown) => void;
  /** How long the event loop has been busy with this work in all, in milliseconds, as far as that is measured. */
  workedMs: () => number;
}

/** Keeps a long pass from getting in the way of requests, and of a stop. */
export interface Steps extends Pace {
  /** Whether to end early, after the step that is under way. */
  isStopping: () => boolean;
}

export interface Worker<Result> {
  /** Begins to run passes in the background, the first of them after `inMs` milliseconds. */
  start: (inMs?: number) => void;
  /** A hint that something is due. Losing it costs time, never correctness. */
  wake: () => void;
  /** Runs one whole pass, after the one that is under way. Rejects if it fails. */
  runOnce: () => Promise<Result>;
  /** Ends the loop. Resolves when the pass that is under way has ended. */
  stop: () => Promise<void>;
}

/** Creates a loop in the background that never runs two passes at a time. */
export function createWorker<Result>(work: Work<Result>): Worker<Result> {
  const stopping = new AbortController();
  const isStopping = (): boolean => stopping.signal.aborted;
  const steps: Steps = { ...createPace({ workedMs: work.workedMs, pause }), isStopping };
  let isStarted = false;
  let pass: Promise<Result> | null = null;
  /** A pass of the loop and the planning after it, while it is under way. */
  let turn: Promise<void> | null = null;
  /** A wake came while `planNext` was under way: it may have read what is due before that. */
  let isWokenMeanwhile = false;
  /** Runs while the loop sleeps. */
  let timer: NodeJS.Timeout | null = null;

  function start(inMs = 0): void {
    isStarted = true;
    if (inMs === 0) wake();
    else sleep(inMs);
  }

  function wake(): void {
    if (!isStarted || isStopping()) return;
    if (turn !== null) {
      isWokenMeanwhile = true;
      return;
    }
    if (timer !== null && !work.mayWake()) return;
    endSleep();
    turn = takeTurn().finally(() => {
      turn = null;
    });
  }

  async function takeTurn(): Promise<void> {
    let sleepMs = work.retryMs;
    try {
      await runPass();
      await pause(work.gapMs);
      // It sees whatever is durable by now, so earlier wakes have had their effect.
      isWokenMeanwhile = false;
      if (!isStopping()) sleepMs = await work.planNext();
      if (isWokenMeanwhile && work.mayWake()) sleepMs = 0;
    } catch (error) {
      if (!isStopping()) work.onFailure(error);
    }
    if (!isStopping()) sleep(sleepMs);
  }

  async function runOnce(): Promise<Result> {
    // That pass may have read already what is due. Any that begins meanwhile is as good as our own.
    if (pass !== null) await pass.catch(() => {});
    return await runPass();
  }

  function runPass(): Promise<Result> {
    pass ??= work.runPass(steps).finally(() => {
      pass = null;
    });
    return pass;
  }

  function sleep(ms: number): void {
    timer = setTimeout(() => {
      timer = null;
      wake();
    }, ms).unref();
  }

  function endSleep(): void {
    if (timer !== null) clearTimeout(timer);
    timer = null;
  }

  /** Ends early if the worker is stopped. */
  async function pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: stopping.signal }).catch(() => {});
  }

  async function stop(): Promise<void> {
    stopping.abort();
    endSleep();
    await Promise.all([turn, pass?.catch(() => {})]);
  }

  return { start, wake, runOnce, stop };
}
