import type { IncomingMessage, ServerResponse } from "node:http";
import type { Connection } from "./connections.ts";
import { corsHeaders, isPreflight, preflightHeaders } from "./cors.ts";
import type { JsonAnswer } from "./errors.ts";
import { isSoonRead, lingerThenEnd } from "./linger.ts";

export interface ResponsesOptions {
  corsOrigins: readonly string[];
  /** How long a body that nobody wants is read after its response, in milliseconds. */
  lingerMs: number;
  /** Whether the server closes: then no connection is kept. */
  isClosing: () => boolean;
}

/** One request that is being answered, as far as its response needs to know it. */
interface Answering {
  connection: Connection;
  requestId: string;
}

/** Writes the responses that do not come from a raw route. */
export function createResponses({ corsOrigins, lingerMs, isClosing }: ResponsesOptions) {
  /** Writes a JSON body whole, also while the client still sends one that nobody wants. */
  function json(
    req: IncomingMessage,
    res: ServerResponse,
    { connection, requestId }: Answering,
    { status, headers, body }: JsonAnswer,
  ): void {
    // The line end is for those who read the response in a terminal.
    const text = `${JSON.stringify(body)}\n`;
    const unread = !req.complete && (status === 408 || !isSoonRead(req, connection));
    res.writeHead(status, {
      "Content-Type": "application/json; charset=utf-8",
      "Content-Length": Buffer.byteLength(text),
      "X-Request-Id": requestId,
      // Responses carry signed URLs and one workspace's data: no cache may keep them.
      "Cache-Control": "no-store",
      ...(corsOrigins.length === 0 ? {} : corsHeaders(req, corsOrigins)),
      ...(unread || isClosing() ? { Connection: "close" } : {}),
      ...headers,
    });
    if (unread) lingerThenEnd(req, res, connection, { text, lingerMs });
    else res.end(text);
  }

  /** Tells which methods a path takes, to a browser's preflight too. */
  function options(req: IncomingMessage, res: ServerResponse, { requestId }: Answering, allow: string): void {
    res.writeHead(204, {
      Allow: allow,
      "X-Request-Id": requestId,
      ...(isClosing() ? { Connection: "close" } : {}),
      ...(isPreflight(req) ? preflightHeaders(req, corsOrigins, allow) : corsHeaders(req, corsOrigins)),
    });
    res.end();
  }

  return { json, options };
}
