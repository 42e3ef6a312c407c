import { AsyncLocalStorage } from "node:async_hooks";
import http from "node:http";
import https from "node:https";
import type { Readable } from "node:stream";
import { S3NoResponseError, S3ResponseError } from "./errors.ts";
import { childText, parseXml } from "./xml.ts";

/** Connections for calls that move no data. The client library's own default opens one for each call. */
const SOCKETS_MAX = 16;
/** Connections for copies and reads, which may hold one for minutes. They cost this process little: the store does the work. */
export const COPY_SOCKETS_MAX = 32;
/** An idle connection is closed after this time, before the server closes it (MinIO: 30 s) while we write to it. */
const SOCKET_IDLE_MS = 15_000;
/** The most that is read of an error response. S3's are below 1 KiB; a proxy's page may have any length. */
const ERROR_BODY_BYTES_MAX = 64 * 1024;

export interface CallOptions {
  /** Covers the whole call: waiting for a connection, sending, and reading the response. */
  timeoutMs: number;
  /** The only status that counts as success; any other rejects with its `S3ResponseError`. */
  status: number;
  /** Whether the time-out ends with the response's headers, because the reader of the body has one of its own. */
  streams?: boolean;
  /** Whether the call may take as long as its object is large: it then uses connections of its own kind. */
  isBulk?: boolean;
  /** Called before a call is repeated because its first attempt was sent and got no response. */
  onRepeat?: () => void;
}

interface CallState extends CallOptions {
  onFreshSocket: boolean;
  /** Set if a connection that had been idle turned out to be closed. */
  wasStale: boolean;
}

/** The part of `node:http` that the client library calls, in the one form that it uses. */
type Request = (
  options: http.RequestOptions,
  onResponse?: (response: http.IncomingMessage) => void,
) => http.ClientRequest;

export interface S3Transport {
  /** For the client library, in place of `node:http`. */
  request: Request;
  agent: http.Agent;
  /** Runs one call of the client library, which makes one request, under these options. */
  call: <T>(options: CallOptions, work: () => Promise<T>) => Promise<T>;
  close: () => void;
}

export interface S3TransportOptions {
  secure: boolean;
  socketsMax?: number | undefined;
  copySocketsMax?: number | undefined;
  /** Called for each response, with the time of the request and the response's `Date` header. */
  onResponse: (askedAtMs: number, date: string | undefined) => void;
  now: () => number;
}

/**
 * Connections, time limits and error responses for the client library. By itself it has no time-out, opens any number of
 * connections, and never reads a response of 408, 429 or 5xx, so that its connection is lost for good: two such responses on
 * two connections stop it for ever. Here every response that is not a success is read to its end, or its connection is
 * destroyed, before the library hears of it.
 */
export function createS3Transport({
  secure,
  socketsMax = SOCKETS_MAX,
  copySocketsMax = COPY_SOCKETS_MAX,
  onResponse,
  now,
}: S3TransportOptions): S3Transport {
  const module = secure ? https : http;
  const shortCalls = createLane(socketsMax);
  const bulkCalls = createLane(copySocketsMax);
  const calls = new AsyncLocalStorage<CallState>();

  /** The connections for one kind of call: kept ones, and fresh ones for second attempts. */
  function createLane(maxSockets: number): { kept: http.Agent; fresh: http.Agent } {
    return {
      kept: new module.Agent({ keepAlive: true, maxSockets, timeout: SOCKET_IDLE_MS }),
      fresh: new module.Agent({ keepAlive: false, maxSockets }),
    };
  }

  function request(options: http.RequestOptions, onSuccess?: (response: http.IncomingMessage) => void) {
    const call = calls.getStore();
    if (!call) throw new Error("A request to the store must be made inside of transport.call()");
    const askedAtMs = now();
    const lane = call.isBulk ? bulkCalls : shortCalls;
    const req = module.request({ ...options, agent: call.onFreshSocket ? lane.fresh : lane.kept });
    let hasResponse = false;

    const timer = setTimeout(() => {
      const error = new S3NoResponseError(`no response within ${Math.round(call.timeoutMs)} ms`);
      req.destroy(error);
      // A request that still waits for a connection would emit this only once it gets one.
      if (!req.socket) req.emit("error", error);
    }, call.timeoutMs);
    req.on("close", () => clearTimeout(timer));
    req.on("error", (error: NodeJS.ErrnoException) => {
      clearTimeout(timer);
      call.wasStale = req.reusedSocket && !hasResponse && (error.code === "ECONNRESET" || error.code === "EPIPE");
    });
    req.on("response", (response) => {
      hasResponse = true;
      onResponse(askedAtMs, response.headers.date);
      if (response.statusCode === call.status) {
        if (call.streams) clearTimeout(timer);
        onSuccess?.(response);
        return;
      }
      // If its body cannot be read, the status still says something.
      readText(response, ERROR_BODY_BYTES_MAX).then(
        (body) => req.emit("error", responseError(response, body)),
        () => req.emit("error", responseError(response, "")),
      );
    });
    return req;
  }

  async function call<T>(options: CallOptions, work: () => Promise<T>): Promise<T> {
    const startedAtMs = performance.now();
    const first: CallState = { ...options, onFreshSocket: false, wasStale: false };
    try {
      return await calls.run(first, work);
    } catch (error) {
      // A server may close an idle connection just as we use it. That is no failure of the server, so the call is made once
      // more, on a new connection: others in the pool are likely to be closed as well.
      if (!first.wasStale) throw error;
      options.onRepeat?.();
      const timeoutMs = Math.max(1, options.timeoutMs - (performance.now() - startedAtMs));
      return await calls.run({ ...options, timeoutMs, onFreshSocket: true, wasStale: false }, work);
    }
  }

  return {
    request,
    agent: shortCalls.kept,
    call,
    close() {
      for (const { kept, fresh } of [shortCalls, bulkCalls]) {
        kept.destroy();
        fresh.destroy();
      }
    },
  };
}

/** Reads a stream to its end as UTF-8. Destroys it and rejects if it is longer than `bytesMax`. */
export async function readText(stream: Readable, bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of stream) {
    bytes += chunk.length;
    // Leaving the loop destroys the stream and its connection, so nobody waits for the rest.
    if (bytes > bytesMax) throw new S3NoResponseError(`the response is longer than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

function responseError(response: http.IncomingMessage, body: string): S3ResponseError {
  const status = response.statusCode ?? 0;
  try {
    const root = parseXml(body);
    if (root.name === "Error") {
      return new S3ResponseError(status, childText(root, "Code") ?? "", childText(root, "Message") ?? "");
    }
  } catch {
    // It is not S3's: a proxy's page, or the empty response to HEAD, in which case MinIO names the code in a header.
  }
  const code = response.headers["x-minio-error-code"];
  return new S3ResponseError(status, typeof code === "string" ? code : "", "");
}
