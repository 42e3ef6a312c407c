import { connect, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { createHttpServer, type HttpOptions } from "../lib/http/server.ts";
import { createLog, type Log } from "../lib/log.ts";
import { type Json, silentLog } from "./_app.ts";

export interface RawAnswer {
  status: number;
  /** By lower-case name. */
  headers: Map<string, string>;
  text: string;
  json: Json;
}

export interface RawClient {
  socket: Socket;
  send: (bytes: string | Buffer) => void;
  /** The next answer, interim ones (1xx) included. `bodiless`: it answers a HEAD. Rejects where the connection ends before. */
  answer: (options?: { bodiless?: boolean }) => Promise<RawAnswer>;
  /** Resolves when the server has ended the connection, with whatever came after the last answer that was read. */
  ended: () => Promise<string>;
}

/** A client that sends exactly the bytes that it is given, right or wrong. */
export async function rawClient(
  t: TestContext,
  url: string,
  options: { localAddress?: string } = {},
): Promise<RawClient> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true, ...options });
  t.after(() => socket.destroy());
  let held = Buffer.alloc(0);
  let isEnded = false;
  let wake: () => void = () => {};
  const changed = () => new Promise<void>((resolve) => (wake = resolve));
  socket.on("data", (chunk) => {
    held = Buffer.concat([held, chunk]);
    wake();
  });
  for (const event of ["end", "close"]) {
    socket.on(event, () => {
      isEnded = true;
      wake();
    });
  }
  // A reset is how some refusals look from here; what matters is what was read before.
  socket.on("error", () => {});
  await new Promise((resolve) => socket.once("connect", resolve));

  async function until(isThere: () => boolean): Promise<void> {
    while (!isThere()) {
      if (isEnded) throw new Error(`The connection ended; held: ${JSON.stringify(held.toString("latin1"))}`);
      await changed();
    }
  }

  async function answer({ bodiless = false } = {}): Promise<RawAnswer> {
    await until(() => held.includes("\r\n\r\n"));
    const headEnd = held.indexOf("\r\n\r\n");
    const [statusLine = "", ...lines] = held.subarray(0, headEnd).toString("latin1").split("\r\n");
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(statusLine)?.[1]);
    const headers = new Map(
      lines.map((line) => {
        const colon = line.indexOf(":");
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      }),
    );
    const hasNoBody = bodiless || status < 200 || status === 204 || status === 304;
    const bodyEnd = headEnd + 4 + (hasNoBody ? 0 : Number(headers.get("content-length")));
    await until(() => held.length >= bodyEnd);
    const text = held.subarray(headEnd + 4, bodyEnd).toString();
    held = held.subarray(bodyEnd);
    return { status, headers, text, json: text.startsWith("{") ? JSON.parse(text) : undefined };
  }

  async function ended(): Promise<string> {
    while (!isEnded) await changed();
    return held.toString();
  }

  return { socket, send: (bytes) => void socket.write(bytes), answer, ended };
}

/** A request's bytes. The length of the body is stated unless a header says how it is sent. */
export function rawRequest(method: string, target: string, headers: Record<string, string> = {}, body = ""): string {
  const all: Record<string, string> = { Host: "test", ...headers };
  if (body !== "" && all["Transfer-Encoding"] === undefined) all["Content-Length"] ??= String(Buffer.byteLength(body));
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${target} HTTP/1.1\r\n${lines.join("")}\r\n${body}`;
}

/** Starts a bare HTTP server with the given routes; nobody needs a credential. */
export async function startHttpServer(
  t: TestContext,
  options: Partial<HttpOptions> & Pick<HttpOptions, "routes">,
): Promise<{ url: string; close: () => Promise<void> }> {
  const server = createHttpServer({
    authenticate: () => ({
      ...{ authKind: "api_key", userId: "u", workspaceId: "w", apiKeyId: "k", scopes: [], checkedAtMs: 0 },
    }),
    askAgain: (_req, _access, known) => known,
    ownerOf: ({ userId }) => userId,
    describe: ({ userId }) => ({ user_id: userId }),
    corsOrigins: [],
    bodyBytesPer10sMin: 0,
    connectionsPerAddressMax: null,
    isTrustedAddress: () => false,
    log: silentLog,
    now: Date.now,
    ...options,
  });
  const port = await server.listen("127.0.0.1", 0);
  t.after(server.close);
  return { url: `http://127.0.0.1:${port}`, close: server.close };
}

/** A log that keeps its lines. */
export function keptLog(): { log: Log; lines: () => Json[]; text: () => string } {
  let text = "";
  const log = createLog({
    level: "debug",
    write: (more) => {
      text += more;
    },
  });
  const read = (): string => {
    log.flush();
    return text;
  };
  return {
    log,
    text: read,
    lines: () =>
      read()
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line)),
  };
}
