import { connect } from "node:net";

/** Only the beginning of a response is examined. */
const HELD_CHARS_MAX = 200;
const CONNECT_MS_MAX = 10_000;

/** A connection on which exactly the bytes are sent that are given, right or wrong. */
export interface Wire {
  send: (bytes: string | Buffer) => void;
  /** Closes the sending side alone. */
  halfClose: () => void;
  /** Closes both sides at once, by a reset. */
  reset: () => void;
  /** Reads nothing from now on. */
  stopReading: () => void;
  /** The first status that came back, or how the connection ended, or "silence" after so long. */
  outcome: (waitMs: number) => Promise<string>;
  state: () => WireState;
}

/** "ended": the service has closed its side, and takes what we send all the same. */
type WireState = "open" | "ended" | "closed" | "reset";

/** Connects from this address of the loopback network. Rejects if that fails. */
export function openWire(url: string, localAddress: string): Promise<Wire> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), localAddress, allowHalfOpen: true, noDelay: true });
  let held = "";
  let state: WireState = "open";
  let wake = (): void => {};

  socket.on("data", (chunk) => {
    if (held.length < HELD_CHARS_MAX) held += chunk.toString("latin1");
    wake();
  });
  const end = (how: WireState): void => {
    if (state === "open" || state === "ended") state = how;
    wake();
  };
  socket.on("end", () => end("ended"));
  socket.on("close", () => end("closed"));

  async function outcome(waitMs: number): Promise<string> {
    const deadlineMs = performance.now() + waitMs;
    for (;;) {
      const status = /^HTTP\/1\.1 (\d{3}) /.exec(held)?.[1];
      if (status !== undefined) return status;
      if (state !== "open") return state;
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) return "silence";
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  const wire: Wire = {
    send: (bytes) => void (socket.writable && socket.write(bytes)),
    halfClose: () => void socket.end(),
    reset: () => void socket.resetAndDestroy(),
    stopReading: () => void socket.pause(),
    outcome,
    state: () => state,
  };
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => socket.destroy(new Error("connect timed out")), CONNECT_MS_MAX);
    socket.on("error", (error) => {
      clearTimeout(late);
      end("reset");
      reject(error);
    });
    socket.once("connect", () => {
      clearTimeout(late);
      resolve(wire);
    });
  });
}

/** A request's head. Without a length or a coding among the headers it has no body. */
export function head(method: string, target: string, headers: Record<string, string> = {}): string {
  const lines = Object.entries({ Host: "abuse", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${target} HTTP/1.1\r\n${lines.join("")}\r\n`;
}
