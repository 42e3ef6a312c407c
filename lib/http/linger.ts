import type { IncomingMessage, ServerResponse } from "node:http";
import type { Connection } from "./connections.ts";

/** If no more of a body than this is still to come after the response, node:http reads it and the connection is kept. */
const SOON_READ_BYTES_MAX = 64 * 1024;

/** Whether the connection can be kept although the request's body has not been read: little of it is left to come. */
export function canKeepConnection({ headers }: IncomingMessage, { bodyFailure }: Connection): boolean {
  if (bodyFailure !== null || headers["transfer-encoding"] !== undefined) return false;
  const sizeBytes = Number(headers["content-length"] ?? 0);
  // A client that waits for permission to send the body gets none, so what it sends next is unknown.
  return sizeBytes === 0 || (sizeBytes <= SOON_READ_BYTES_MAX && headers.expect === undefined);
}

/**
 * Responds while the client still sends an unwanted body. Closing at once would make the kernel reset the connection, and the
 * client would never see why. So the whole response goes out, and the rest of the body is read and discarded for a moment.
 */
export function lingerThenEnd(
  req: IncomingMessage,
  res: ServerResponse,
  { socket }: Connection,
  { text, lingerMs }: { text: string; lingerMs: number },
): void {
  if (req.method !== "HEAD") res.write(text);
  else res.flushHeaders();
  const end = (): void => {
    clearTimeout(timer);
    socket.off("end", end).off("close", end);
    res.end();
  };
  const timer = setTimeout(end, lingerMs);
  // "end" of the socket: the client has closed its side, and nothing more comes.
  if (socket.readableEnded || socket.destroyed) return end();
  req.once("end", end);
  socket.once("end", end).once("close", end);
  req.resume();
}

/**
 * Gives up a connection whose response was sent before the request's body was whole, unless the rest comes soon. Without this
 * a client that drips could hold the connection for ever.
 */
export function closeUnlessWhole(req: IncomingMessage, { socket }: Connection, lingerMs: number): void {
  if (req.complete || socket.destroyed || !hasBody(req)) return;
  const timer = setTimeout(() => {
    if (!req.complete) socket.destroy();
  }, lingerMs);
  const forget = (): void => {
    clearTimeout(timer);
    req.off("end", forget);
    socket.off("close", forget);
  };
  req.once("end", forget);
  socket.once("close", forget);
}

/** Whether a body is announced. A request without one is complete a moment after it is handed out. */
function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}
