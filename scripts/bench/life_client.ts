import { connect, type Socket } from "node:net";

/** A response as far as a load generator reads it. */
export interface RawResponse {
  status: number;
  body: Buffer;
}

export interface RawClient {
  /** Sends one request and resolves with its response; a second one only after that. `head` is the path and the headers. */
  send: (request: RawRequest) => Promise<RawResponse>;
  close: () => void;
}

export interface RawRequest {
  method: string;
  path: string;
  headers?: Record<string, string>;
  body?: Buffer | string;
  /** The body is counted and thrown away: `body` of the response is empty. */
  discardsBody?: boolean;
}

const HEAD_END = Buffer.from("\r\n\r\n");

/**
 * One keep-alive connection of HTTP/1.1. It understands what the measured servers send, and no more: a generator that
 * shares two cores with them must cost little beside them.
 */
export async function openRawClient(url: string): Promise<RawClient> {
  const { hostname, port, host } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.setNoDelay(true);
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  return { send: senderOn(socket, host), close: () => socket.destroy() };
}

function senderOn(socket: Socket, host: string): RawClient["send"] {
  let waiting: { resolve: (response: RawResponse) => void; reject: (error: Error) => void; discards: boolean } | null =
    null;
  let received: Buffer = Buffer.alloc(0);
  /** The head of the response whose body is being received. */
  let head: { status: number; bodyBytes: number | "chunked" } | null = null;
  let discardedBytes = 0;

  socket.on("data", (chunk: Buffer) => {
    if (head !== null && waiting?.discards === true && typeof head.bodyBytes === "number") {
      discardedBytes += chunk.length;
    } else received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    advance();
  });
  const fail = (error?: Error): void => waiting?.reject(error ?? new Error("The server closed the connection"));
  socket.on("error", fail);
  socket.on("close", () => fail());

  function advance(): void {
    while (head === null) {
      const end = received.indexOf(HEAD_END);
      if (end === -1) return;
      head = parseHead(received.toString("latin1", 0, end));
      received = received.subarray(end + HEAD_END.length);
      // An interim response, such as 100 Continue.
      if (head.status < 200) head = null;
    }
    if (waiting?.discards === true) {
      discardedBytes += received.length;
      received = received.subarray(received.length);
    }
    const body = head.bodyBytes === "chunked" ? dechunked(received) : wholeBody(head.bodyBytes);
    if (body === null) return;
    const { status } = head;
    const done = waiting;
    head = null;
    waiting = null;
    received = Buffer.alloc(0);
    discardedBytes = 0;
    done?.resolve({ status, body });
  }

  function wholeBody(bytes: number): Buffer | null {
    if (waiting?.discards === true) return discardedBytes >= bytes ? Buffer.alloc(0) : null;
    return received.length >= bytes ? received.subarray(0, bytes) : null;
  }

  return ({ method, path, headers = {}, body = "", discardsBody = false }) =>
    new Promise((resolve, reject) => {
      waiting = { resolve, reject, discards: discardsBody };
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      const length = method === "GET" ? "" : `content-length: ${Buffer.byteLength(body)}\r\n`;
      const text = `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\n${lines.join("")}${length}\r\n`;
      // One write where it is small: two would be two segments.
      if (body.length <= 64 * 1024) socket.write(Buffer.concat([Buffer.from(text), Buffer.from(body)]));
      else {
        socket.write(text);
        socket.write(body);
      }
    });
}

function parseHead(text: string): { status: number; bodyBytes: number | "chunked" } {
  const status = Number(text.slice(9, 12));
  if (/\r\ntransfer-encoding: *chunked/i.test(text)) return { status, bodyBytes: "chunked" };
  const length = /\r\ncontent-length: *(\d+)/i.exec(text)?.[1];
  return { status, bodyBytes: length === undefined ? 0 : Number(length) };
}

/** The body of a response in chunks, once it is whole. */
function dechunked(received: Buffer): Buffer | null {
  const parts: Buffer[] = [];
  for (let at = 0; ; ) {
    const lineEnd = received.indexOf("\r\n", at);
    if (lineEnd === -1) return null;
    const bytes = Number.parseInt(received.toString("latin1", at, lineEnd), 16);
    const end = lineEnd + 2 + bytes + 2;
    if (received.length < end) return null;
    if (bytes === 0) return Buffer.concat(parts);
    parts.push(received.subarray(lineEnd + 2, end - 2));
    at = end;
  }
}
