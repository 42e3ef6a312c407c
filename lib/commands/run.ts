import { setTimeout as delay } from "node:timers/promises";
import type { Log } from "../log.ts";

/** Exit code of a process that a second signal ended before it was finished. */
const EXIT_CUT_SHORT = 130;
/** How long the last lines wait for a reader: a stalled one would keep the process from ending. */
const LAST_LINES_MS = 2_000;

/**
 * Opens something and runs it until SIGTERM or SIGINT, then closes it and resolves: requests in flight are finished, queued
 * writes are flushed. A second signal ends the process at once. So do `onFatal` and an uncaught exception, with exit code 1:
 * the state is then unknown, and only a restart can tell.
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
  // A rejection that nobody awaited leaves nothing half done that its own part would not have noticed; failures that must end
  // the process go through `onFatal`. So it is logged, and the service goes on.
  process.on("unhandledRejection", (error) => log.error("unhandled_rejection", { error }));
  // The reader of the log may go away: that is no reason to stop serving.
  process.stderr.on("error", () => {});

  const running = await open(onFatal);
  await stopped;
  await running.close();
  log.info("stopped");
  log.flush();
  if (!(await isDrained(process.stderr))) process.exit();
}

/** Resolves with true once everything written was read, or with false after a while. */
async function isDrained(stream: NodeJS.WriteStream): Promise<boolean> {
  const untilMs = performance.now() + LAST_LINES_MS;
  while (stream.writableLength > 0 && performance.now() < untilMs) await delay(20);
  return stream.writableLength === 0;
}
