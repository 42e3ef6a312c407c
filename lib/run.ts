import type { Log } from "./log.ts";

/** Exit code of a process that a second signal ended before it had finished. */
const EXIT_CUT_SHORT = 130;

/**
 * Runs what `open` opens until SIGTERM or SIGINT, then closes it and resolves: requests in flight are finished, queued
 * writes are flushed. A second signal ends the process at once. So does `onFatal`, with exit code 1: the database's state
 * is then unknown and only opening it anew tells.
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
      log.flush();
      process.exit(EXIT_CUT_SHORT);
    }
    log.info("stopping", { signal });
    stop();
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);

  const running = await open((error) => {
    log.error("fatal", { error });
    log.flush();
    process.exit(1);
  });
  await stopped;
  await running.close();
  log.info("stopped");
  log.flush();
}
