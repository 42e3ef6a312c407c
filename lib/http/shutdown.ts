import type { Server } from "node:http";
import type { Log } from "../log.ts";
import type { Connections } from "./connections.ts";
import type { Listeners } from "./listeners.ts";

/** How many times within `stallMs` stalled connections are checked for. */
const STALL_CHECKS = 8;
/** How often idle connections are checked for. */
const IDLE_CHECK_MS = 20;

export interface ShutdownOptions {
  server: Server;
  listeners: Listeners;
  connections: Connections;
  /** Resolves once no handler is at work. */
  quiet: () => Promise<void>;
  /** Called when the time is over and what is still open is cut. */
  onCut: () => void;
  /** Time for requests in flight, in milliseconds. */
  graceMs: number;
  /** A client that keeps us waiting must move 2 KiB in each span of this length, in milliseconds. */
  stallMs: number;
  log: Log;
}

/**
 * Stops accepting connections and finishes what is in flight. Resolves once all connections are closed and all handlers are
 * done, or after `graceMs`: a handler that never ends must not hold up the end of the process.
 */
export function shutDown(options: ShutdownOptions): Promise<void> {
  const { server, listeners, connections, quiet, onCut, graceMs, stallMs, log } = options;
  return new Promise((resolve) => {
    const cut = setTimeout(() => {
      log.warn("connections_cut", { after_ms: graceMs });
      onCut();
      server.closeAllConnections();
      resolve();
    }, graceMs);
    // node:http's own check misses connections that never sent a request, and those that become idle later.
    const idleCheck = setInterval(connections.closeIdle, IDLE_CHECK_MS);
    const sinceMs = performance.now();
    const checkStalled = (): void => connections.closeStalled(sinceMs, stallMs);
    const stallCheck = setInterval(checkStalled, stallMs / STALL_CHECKS);
    checkStalled();
    void listeners.close().then(async () => {
      clearInterval(idleCheck);
      clearInterval(stallCheck);
      await quiet();
      clearTimeout(cut);
      resolve();
    });
    connections.closeIdle();
  });
}
