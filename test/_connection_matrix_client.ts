import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Json } from "./_app.ts";

/** So much of a response's body is kept to be looked at; a download is only counted. */
const TEXT_BYTES_MAX = 64 * 1024;
const LOOK_MS = 5;

export interface ReadResponse {
  status: number;
  /** By lower-case name. */
  headers: Map<string, string>;
  /** The beginning of the body. */
  text: string;
  /** How many bytes of the body came. */
  sizeBytes: number;
}

/** A client on one connection that does what no client should. */
export interface Client {
  /** Its own port, by which the server's sockets tell that they are of this client. */
  port: number;
  /** The whole responses that came so far. */
  responses: readonly ReadResponse[];
  /** What came that is no HTTP; empty if all was. */
  garbled: () => string;
  hasEnded: () => boolean;
  write: (bytes: string | Buffer) => Promise<void>;
  /** Waits for so many responses in all; false if the time is over or the connection ended before. */
  responded: (count: number, withinMs: number) => Promise<boolean>;
  /** Waits until the server has ended the connection; false if it has not. */
  ended: (withinMs: number) => Promise<boolean>;
  close: () => void;
  reset: () => void;
  halfClose: () => void;
  /** Sends one byte after the other until the connection ends. */
  drip: (bytes: string, everyMs: number) => void;
  /** Reads nothing more, so that what is sent stays in the kernel; and reads again. */
  pause: () => void;
  resume: () => void;
}

/** Connects. `methods` are those of the requests that will be sent: a response to HEAD has no body. */
export async function openClient(url: string, methods: readonly string[]): Promise<Client> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
  const responses: ReadResponse[] = [];
  let held: Buffer = Buffer.alloc(0);
  let current: (ReadResponse & { leftBytes: number }) | null = null;
  let garbled = "";
  let isEnded = false;
  let dripping: NodeJS.Timeout | undefined;

  socket.on("data", (chunk) => {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    while (held.length > 0 && garbled === "") {
      if (current === null) {
        const headEnd = held.indexOf("\r\n\r\n");
        if (headEnd < 0) return;
        current = startOf(held.subarray(0, headEnd).toString("latin1"), methods[responses.length] === "HEAD");
        if (current === null) {
          garbled = held.toString("latin1", 0, 200);
          return;
        }
        held = held.subarray(headEnd + 4);
      }
      const part = held.subarray(0, current.leftBytes);
      if (current.sizeBytes < TEXT_BYTES_MAX) current.text += part.toString();
      current.sizeBytes += part.length;
      current.leftBytes -= part.length;
      held = held.subarray(part.length);
      if (current.leftBytes > 0) return;
      // "100 Continue" is no response: it is followed by one.
      if (current.status >= 200) responses.push(current);
      current = null;
    }
  });
  socket.on("error", () => {});
  for (const event of ["end", "close"]) {
    socket.on(event, () => {
      isEnded = true;
      clearInterval(dripping);
    });
  }
  await new Promise((resolve) => socket.once("connect", resolve).once("close", resolve));

  async function wait(isTrue: () => boolean, withinMs: number): Promise<boolean> {
    const startedMs = performance.now();
    while (!isTrue()) {
      if (isEnded || performance.now() - startedMs > withinMs) return isTrue();
      await delay(LOOK_MS);
    }
    return true;
  }

  return {
    port: socket.localPort ?? 0,
    responses,
    garbled: () => garbled,
    hasEnded: () => isEnded,
    write: (bytes) =>
      new Promise((resolve) => {
        if (bytes.length === 0 || socket.destroyed) return resolve();
        // What cannot be sent any more is no failure of the client: the server has closed.
        socket.write(bytes, () => resolve());
      }),
    responded: (count, withinMs) => wait(() => responses.length >= count || garbled !== "", withinMs),
    ended: (withinMs) => wait(() => isEnded, withinMs),
    close: () => void socket.destroy(),
    reset: () => void socket.resetAndDestroy(),
    halfClose: () => void socket.end(),
    drip(bytes, everyMs) {
      let sent = 0;
      dripping = setInterval(() => {
        if (sent < bytes.length && socket.writable) socket.write(bytes.charAt(sent++));
      }, everyMs);
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
  };
}

/** A response whose head this is; null if it is none, or does not say how long it is. */
function startOf(head: string, isBodiless: boolean): (ReadResponse & { leftBytes: number }) | null {
  const [statusLine = "", ...lines] = head.split("\r\n");
  const status = Number(/^HTTP\/1\.1 (\d{3}) \S/.exec(statusLine)?.[1]);
  const headers = new Map<string, string>();
  for (const line of lines) {
    const [, name, value] = /^([A-Za-z-]+): (.*)$/.exec(line) ?? [];
    if (name === undefined || value === undefined) return null;
    headers.set(name.toLowerCase(), value);
  }
  const hasNoBody = isBodiless || status < 200 || status === 204 || status === 304;
  const leftBytes = hasNoBody ? 0 : Number(headers.get("content-length"));
  if (Number.isNaN(status) || Number.isNaN(leftBytes)) return null;
  return { status, headers, text: "", sizeBytes: 0, leftBytes };
}

/** What is wrong with a response by itself: every response of ours has an id, and every failure the envelope. */
export function problemsOf({ status, headers, text, sizeBytes }: ReadResponse): string[] {
  const id = headers.get("x-request-id");
  const problems = id === undefined ? [`a ${status} without X-Request-Id`] : [];
  if (headers.get("content-type")?.startsWith("application/json") !== true || sizeBytes === 0) {
    return status >= 400 && sizeBytes > 0 ? [...problems, `a ${status} that is no JSON`] : problems;
  }
  let json: Json;
  try {
    json = JSON.parse(text);
  } catch {
    return [...problems, `a ${status} whose JSON is broken: ${text}`];
  }
  if (json.meta !== undefined && json.meta.request_id !== id) problems.push(`a ${status} with two request ids`);
  const { code, message } = json.error ?? {};
  if (status >= 400 && (typeof code !== "string" || typeof message !== "string" || json.meta === undefined)) {
    problems.push(`a ${status} without the envelope: ${text}`);
  }
  if (status < 400 && json.error !== undefined) problems.push(`a ${status} with an error: ${text}`);
  return problems;
}
