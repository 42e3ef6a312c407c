import type { IncomingMessage } from "node:http";
import { AppError } from "../errors.ts";

/** Conditions on a resource as it was read before. */
const CONDITIONS = ["If-Match", "If-Unmodified-Since"] as const;
/** Conditions that only save a transfer when something is read: the whole response is always right. */
const CONDITIONS_OF_WRITES = [...CONDITIONS, "If-None-Match", "If-Modified-Since"] as const;

/**
 * Refuses conditions on JSON resources, which have neither ETag nor date to check them by. Without that a client which asks
 * for a change on a condition would get it without. Throws `precondition_failed`.
 */
export function refuseConditions({ method, headers }: IncomingMessage): void {
  const isRead = method === "GET" || method === "HEAD";
  for (const name of isRead ? CONDITIONS : CONDITIONS_OF_WRITES) {
    if (headers[name.toLowerCase()] === undefined) continue;
    throw new AppError("precondition_failed", `Cannot check the condition ${name}: nothing here has an ETag or a date`);
  }
}
