import type { IncomingMessage } from "node:http";
import { AppError, clientGone } from "../errors.ts";
import { type Connection, failBody } from "./connections.ts";

/** The span over which a body's rate is demanded. */
const RATE_SPAN_MS = 10_000;
/** A body may stand still for this long, as on a mobile connection, if it moves well before and after. */
const STALL_MS_MAX = 30_000;

export interface BodyRate {
  /** Bytes in 10 seconds that must come while they are waited for; 0: any number. */
  bytesPer10sMin: number;
  /** How long a body may stand still. Shorter in tests. */
  stallMsMax?: number;
}

/**
 * A request's body as it arrives, in chunks. Reading fails with an `AppError`: `client_closed_request` if the client went
 * away, `bad_request` if the body broke off or is malformed, `request_timeout` if it comes too slowly. It fails alike
 * whether that happened before the first read or during it. Nothing is destroyed: the sender can still get a response.
 */
export async function* requestBody(
  req: IncomingMessage,
  connection: Connection,
  { bytesPer10sMin, stallMsMax = STALL_MS_MAX }: BodyRate,
): AsyncGenerator<Buffer> {
  // How long the client may keep us waiting. Bytes buy more time; the time that we spend on writing them is free.
  let patienceMs = stallMsMax;
  let wake = (): void => {};
  const onEvent = (): void => wake();
  const events = ["readable", "end", "close"] as const;
  for (const event of events) req.on(event, onEvent);
  connection.bodyReaders.add(onEvent);
  try {
    for (;;) {
      const failure = bodyFailure(req, connection);
      if (failure !== null) throw failure;
      const chunk: Buffer | null = req.read();
      if (chunk !== null) {
        patienceMs = Math.min(stallMsMax, patienceMs + (chunk.length / bytesPer10sMin) * RATE_SPAN_MS);
        yield chunk;
        continue;
      }
      if (req.readableEnded) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      wake = resolve;
      const sinceMs = performance.now();
      const onLate = (): void => failBody(connection, tooSlow(bytesPer10sMin));
      const timer = bytesPer10sMin === 0 ? undefined : setTimeout(onLate, patienceMs);
      await promise;
      clearTimeout(timer);
      patienceMs -= performance.now() - sinceMs;
    }
  } finally {
    for (const event of events) req.off(event, onEvent);
    connection.bodyReaders.delete(onEvent);
  }
}

/**
 * Reads a whole body of at most `bytesMax` bytes within `timeoutMs`. Rejects as `requestBody` does, with `tooLarge()` as
 * soon as it is longer, and with `request_timeout` if it takes longer. By events and not by chunks: this is on the path of
 * every create, whose body mostly comes with its headers.
 */
export function wholeBody(
  req: IncomingMessage,
  connection: Connection,
  { bytesMax, timeoutMs, tooLarge }: { bytesMax: number; timeoutMs: number; tooLarge: () => AppError },
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    const onData = (chunk: Buffer): void => {
      sizeBytes += chunk.length;
      if (sizeBytes > bytesMax) end(tooLarge());
      else chunks.push(chunk);
    };
    const onEnd = (): void => end(null);
    const onFailure = (): void => {
      const failure = bodyFailure(req, connection);
      if (failure !== null) end(failure);
    };
    const end = (failure: AppError | null): void => {
      clearTimeout(timer);
      req.off("data", onData).off("end", onEnd).off("close", onFailure);
      connection.bodyReaders.delete(onFailure);
      if (failure !== null) return reject(failure);
      resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks));
    };
    const timer = setTimeout(() => end(timedOut(timeoutMs)), timeoutMs);
    req.on("data", onData).once("end", onEnd).once("close", onFailure);
    connection.bodyReaders.add(onFailure);
    onFailure();
  });
}

/** Why the body cannot be whole any more, or null while it can. */
function bodyFailure(req: IncomingMessage, connection: Connection): AppError | null {
  if (connection.newest?.req === req && connection.bodyFailure !== null) return connection.bodyFailure;
  if (connection.socket.destroyed || (req.destroyed && !req.readableEnded)) {
    return connection.cut ?? clientGone(req.errored ?? undefined);
  }
  return null;
}

function timedOut(timeoutMs: number): AppError {
  return new AppError("request_timeout", `The body did not arrive within ${timeoutMs / 1000} seconds`);
}

function tooSlow(bytesPer10sMin: number): AppError {
  return new AppError(
    "request_timeout",
    `The body came too slowly and nothing of it was kept: at least ${bytesPer10sMin} bytes in 10 seconds are asked for. Send it again`,
  );
}
