import type { IncomingMessage } from "node:http";
import { AppError } from "../errors.ts";

/** Conditions on a resource as it was read before. */
const CONDITIONS = withNames(["If-Match", "If-Unmodified-Since"]);
/** Conditions that only save a transfer when something is read: the whole response is always right. */
const CONDITIONS_OF_WRITES = [...CONDITIONS, ...withNames(["If-None-Match", "If-Modified-Since"])];

/**
 * Refuses conditions on JSON resources, which have neither ETag nor date to check them by. Without that a client which asks
 * for a change on a condition would get it without. Throws `precondition_failed`.
 */
export function refuseConditions({ method, headers }: IncomingMessage): void {
  const isRead = method === "GET" || method === "HEAD";
  for (const { header, name } of isRead ? CONDITIONS : CONDITIONS_OF_WRITES) {
    if (headers[name] === undefined) continue;
    throw new AppError(
      "precondition_failed",
      `Cannot check the condition ${header}: nothing here has an ETag or a date`,
    );
  }
}

/** Headers with their names in lower case, as node:http has them. */
function withNames(headers: readonly string[]): { header: string; name: string }[] {
  return headers.map((header) => ({ header, name: header.toLowerCase() }));
}
