import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../log.ts";

/** Exit code of a process that a second signal ended before it had finished. */
const EXIT_CUT_SHORT = 130;
/** How long the last lines wait for a reader: one that stands still would keep the process from ending. */
const LAST_LINES_MS = 2_000;

/**
 * Runs what `open` opens until SIGTERM or SIGINT, then closes it and resolves: requests in flight are finished, queued
 * writes are flushed. A second signal ends the process at once. So does `onFatal`, and an exception that nobody caught, with
 * exit code 1: the state is then unknown and only starting anew tells.
 */
export async function runUntilSignal(
  log: Log,
  open: (onFatal: (error: unknown) => void) => Promise<{ close: () => Promise<void> }>,
): Promise<void> {
  let signalled = 0;
  let stop: () => void = () => {};
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  const onSignal = (signal: NodeJS.Signals): void => {
    if (++signalled > 1) {
      log.warn("cut_short", { signal });
      log.flush();
      process.exit(EXIT_CUT_SHORT);
    }
    log.info("stopping", { signal });
    stop();
  };
  const onFatal = (error: unknown): void => {
    log.error("fatal", { error });
    log.flush();
    process.exit(1);
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  process.on("uncaughtException", onFatal);
  // A promise that nobody waited for has left nothing half done that its own part would not have noticed: what must end the
  // process goes through `onFatal`. So it is told, and everybody else is served.
  process.on("unhandledRejection", (error) => log.error("unhandled_rejection", { error }));
  // Whoever read the log may go away: that is no reason to stop serving.
  process.stderr.on("error", () => {});

  const running = await open(onFatal);
  await stopped;
  await running.close();
  log.info("stopped");
  log.flush();
  if (!(await isTaken(process.stderr))) process.exit();
}

/** Resolves when all that was written is taken, or with false after a while. */
async function isTaken(stream: NodeJS.WriteStream): Promise<boolean> {
  const untilMs = performance.now() + LAST_LINES_MS;
  while (stream.writableLength > 0 && performance.now() < untilMs) await delay(20);
  return stream.writableLength === 0;
}
