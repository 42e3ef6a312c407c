import type { IncomingMessage, ServerResponse } from "node:http";
import type { Connection } from "./connections.ts";
import { type Cors, isPreflight } from "./cors.ts";
import type { JsonResponse } from "./errors.ts";
import { canKeepConnection, lingerThenEnd } from "./linger.ts";

export interface ResponsesOptions {
  cors: Cors;
  /** How long an unwanted body is read after its response, in milliseconds. */
  lingerMs: number;
  /** Whether the server is closing: then no connection is kept. */
  isClosing: () => boolean;
}

/** One request that is being served, as far as its response needs to know it. */
interface Serving {
  connection: Connection;
  requestId: string;
  /** Whether pages of every origin may read the response. */
  isOpen: boolean;
}

export type Responses = ReturnType<typeof createResponses>;

/** Writes the responses of JSON routes and to OPTIONS, and the headers that a raw route's response begins with. */
export function createResponses({ cors, lingerMs, isClosing }: ResponsesOptions) {
  /** Writes a JSON body whole, even while the client still sends one that nobody wants. */
  function json(
    req: IncomingMessage,
    res: ServerResponse,
    { connection, requestId, isOpen }: Serving,
    { status, headers, body }: JsonResponse,
  ): void {
    // The line end is for people who read the response in a terminal.
    const text = `${JSON.stringify(body)}\n`;
    const unread = !req.complete && (status === 408 || !canKeepConnection(req, connection));
    res.writeHead(status, {
      "Content-Type": "application/json; charset=utf-8",
      "Content-Length": Buffer.byteLength(text),
      "X-Request-Id": requestId,
      // Responses carry signed URLs and one workspace's data: no cache may keep them.
      "Cache-Control": "no-store",
      ...cors.headersFor(req, isOpen),
      ...(unread || isClosing() ? { Connection: "close" } : {}),
      ...headers,
    });
    if (unread) lingerThenEnd(req, res, connection, { text, lingerMs });
    else res.end(text);
  }

  /** Says which methods a path takes, to a browser's preflight too. */
  function options(req: IncomingMessage, res: ServerResponse, { requestId, isOpen }: Serving, allow: string): void {
    res.writeHead(204, {
      Allow: allow,
      "X-Request-Id": requestId,
      ...(isClosing() ? { Connection: "close" } : {}),
      ...(isPreflight(req) ? cors.preflightHeadersFor(req, isOpen, allow) : cors.headersFor(req, isOpen)),
    });
    res.end();
  }

  /** Sets the headers that every response of a raw route has. */
  function prepareRaw(req: IncomingMessage, res: ServerResponse, { requestId, isOpen }: Serving): void {
    res.setHeader("X-Request-Id", requestId);
    for (const [name, value] of Object.entries(cors.headersFor(req, isOpen))) res.setHeader(name, value);
    if (isClosing()) res.setHeader("Connection", "close");
  }

  return { json, options, prepareRaw };
}
