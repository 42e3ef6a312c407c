import { type ServerResponse, STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { AppError } from "../errors.ts";
import { newRequestId } from "../ids.ts";
import type { Log } from "../log.ts";
import { errorAnswer } from "./errors.ts";

/** What is counted of a request once it was answered. */
export interface AnsweredRequest {
  method: string;
  /** The pattern of its route, never the path that was asked for. */
  route: string;
  status: number;
  /** Null for what was refused before there was a request. */
  durationMs: number | null;
}

export interface ConnectionsOptions {
  /** How long a refused connection is still read, so that the client gets to see the answer instead of a reset. */
  lingerMs: number;
  log: Log;
  now: () => number;
  onAnswered: (request: AnsweredRequest) => void;
}

interface Connection {
  /** The answer to the newest request. Answers leave in the order of their requests, so when it is complete, all are. */
  newest: ServerResponse | null;
  refused: boolean;
}

/** The open connections of a server: answers what `node:http` refuses before there is a request, and finds the idle ones. */
export function createConnections({ lingerMs, log, now, onAnswered }: ConnectionsOptions) {
  const connections = new Map<Duplex, Connection>();

  function add(socket: Duplex): void {
    connections.set(socket, { newest: null, refused: false });
    socket.once("close", () => connections.delete(socket));
  }

  /** A request has come in on this connection, to be answered by `res`. */
  function noteAnswer(socket: Duplex, res: ServerResponse): void {
    const connection = connections.get(socket);
    if (connection !== undefined) connection.newest = res;
  }

  /** Answers what is not HTTP, is too large or too slow, after the answers that are still owed, and closes the connection. */
  function refuse(error: Error & { code?: string }, socket: Duplex): void {
    const connection = connections.get(socket);
    // The parser reports each further chunk again, while the answer is on its way.
    if (connection?.refused === true) return;
    if (connection === undefined || !socket.writable || error.code === "ECONNRESET") {
      socket.destroy();
      return;
    }
    connection.refused = true;
    const { newest } = connection;
    if (newest === null) sendRefusal(error, socket);
    else if (newest.req.complete) {
      if (isAnswered(newest)) sendRefusal(error, socket);
      else newest.once("close", () => (socket.writable ? sendRefusal(error, socket) : undefined));
    }
    // What is wrong is the body of a request that was answered already: there is no more to say.
    else if (isAnswered(newest)) socket.destroy();
    // Or of one that waits for its body, and answers by itself.
    else newest.req.emit("error", new AppError("bad_request", "The body broke off, or is not valid HTTP/1.1"));
  }

  function sendRefusal(error: Error & { code?: string }, socket: Duplex): void {
    const nowMs = now();
    const requestId = newRequestId(nowMs);
    const { status, body } = errorAnswer(refusalOf(error.code), requestId, nowMs);
    const text = `${JSON.stringify(body)}\n`;
    socket.end(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json; charset=utf-8\r\n` +
        `Content-Length: ${Buffer.byteLength(text)}\r\nX-Request-Id: ${requestId}\r\nConnection: close\r\n\r\n${text}`,
    );
    setTimeout(() => socket.destroy(), lingerMs).unref();
    onAnswered({ method: "other", route: "(refused)", status, durationMs: null });
    log.info("request_refused", { status, reason: error.code, request_id: requestId });
  }

  /** Closes the connections on which nothing is under way, also those that never asked for anything. */
  function closeIdle(): void {
    for (const [socket, { newest }] of connections) {
      if (newest === null || isAnswered(newest)) socket.destroy();
    }
  }

  return { add, noteAnswer, refuse, closeIdle };
}

/** Whether the whole answer has been handed to the kernel, or never can be. */
function isAnswered(res: ServerResponse): boolean {
  return res.writableFinished || res.destroyed;
}

function refusalOf(code: string | undefined): AppError {
  switch (code) {
    case "HPE_HEADER_OVERFLOW":
      return new AppError("headers_too_large", "The request's headers are too large: 16 KiB are allowed");
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return new AppError("request_timeout", "The request did not arrive in time");
    default:
      return new AppError("bad_request", "The request is not valid HTTP/1.1");
  }
}
