import assert from "node:assert/strict";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { TestContext } from "node:test";

/** Which requests a fault is for. All that is given must match. */
export interface FaultMatch {
  method?: string;
  /** On the path without its query. */
  path?: RegExp;
  /** On the text after the question mark, which is empty where there is none. */
  query?: RegExp;
  /** On a header's value; the name in lower case. */
  header?: [name: string, value: RegExp];
}

export type FaultKind =
  /** Connections are refused. For all requests, whatever `match` says. */
  | { kind: "refuse" }
  /** The request is read, does not reach the server, and is never answered. */
  | { kind: "hang" }
  /** The request does not reach the server; the connection is reset. */
  | { kind: "cut" }
  /** The server does its work; the answer comes one byte at a time. */
  | { kind: "slow"; byteEveryMs?: number }
  /** The server does its work; the connection is reset after so many bytes of the answer, its head included. */
  | { kind: "reset"; afterBytes: number }
  /** The server does its work; nothing of its answer comes, and the connection is reset, or stays open for ever. */
  | { kind: "drop_response"; connection?: "reset" | "open" }
  /** The request does not reach the server; this is the answer. */
  | { kind: "answer"; status: number; body?: string; headers?: Record<string, string> }
  /** As `answer`, but made from the server's own answer after it did its work. */
  | { kind: "rewrite"; change: (answer: CannedAnswer) => CannedAnswer }
  /** The request (`before`) or the server's answer (`after`, the default) is held until `release()`. */
  | { kind: "hold"; point?: "before" | "after" };

export interface CannedAnswer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
}

export type Fault = FaultKind & {
  match?: FaultMatch;
  /** How many requests it is for; all by default. */
  times?: number;
  /** How many matching requests pass before it begins. */
  skip?: number;
};

export interface FaultHandle {
  /** Resolves when a request met the fault; for `hold` when it is held, for `drop_response` when the work is done. */
  seen: Promise<SeenRequest>;
  /** How many requests met it. */
  hits: () => number;
  /** Lets go what is held, now and later. */
  release: () => void;
}

export interface SeenRequest {
  method: string;
  path: string;
  query: string;
  headers: http.IncomingHttpHeaders;
}

export interface FaultProxy {
  url: string;
  port: number;
  /** Adds a fault. The first that matches a request is the one that it meets. */
  setFault: (fault: Fault) => FaultHandle;
  /** Removes all faults and lets go what is held. Requests that hang stay so. */
  heal: () => Promise<void>;
  /** All requests that came, oldest first. */
  requests: SeenRequest[];
  /** Connections that are open now. */
  connections: () => number;
  /** The most connections that were open at once. */
  connectionsMax: () => number;
  /** The most requests that were open at once. */
  inFlightMax: () => number;
  /** Ends every connection. */
  disconnect: () => void;
  close: () => Promise<void>;
}

interface ActiveFault {
  fault: Fault;
  skipLeft: number;
  timesLeft: number;
  hits: number;
  see: (request: SeenRequest) => void;
  released: Promise<void>;
  release: () => void;
}

/**
 * An HTTP proxy between the service and a real store, which breaks what it is told to break. Requests go on as they
 * came, Host included, so that their signatures stay valid.
 */
export async function startFaultProxy(t: TestContext, targetUrl: string): Promise<FaultProxy> {
  const target = new URL(targetUrl);
  const agent = new http.Agent({ keepAlive: true });
  const sockets = new Set<Socket>();
  const requests: SeenRequest[] = [];
  let faults: ActiveFault[] = [];
  let inFlight = 0;
  let inFlightMax = 0;
  let connectionsMax = 0;

  const server = http.createServer({ keepAliveTimeout: 0, requestTimeout: 0 }, (req, res) => {
    inFlightMax = Math.max(inFlightMax, ++inFlight);
    res.once("close", () => {
      inFlight--;
    });
    // A client that goes away is what these tests are about.
    handle(req, res).catch(() => req.socket.destroy());
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    connectionsMax = Math.max(connectionsMax, sockets.size);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
  });

  async function handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const [path = "", query = ""] = (req.url ?? "").split("?");
    const seen = { method: req.method ?? "", path, query, headers: req.headers };
    requests.push(seen);
    const active = take(seen);
    const fault = active?.fault;
    if (!active || !fault) return pass(req, res);

    switch (fault.kind) {
      case "hang":
        req.resume();
        return active.see(seen);
      case "cut":
        active.see(seen);
        return reset(req.socket);
      case "answer":
        await drain(req);
        active.see(seen);
        res.writeHead(fault.status, { "content-length": Buffer.byteLength(fault.body ?? ""), ...fault.headers });
        res.end(req.method === "HEAD" ? "" : fault.body);
        return;
      case "hold":
        if (fault.point === "before") {
          active.see(seen);
          await active.released;
          // A request whose sender has gone meanwhile never arrives.
          return req.socket.destroyed ? undefined : pass(req, res);
        }
        return send(res, await askWhole(req), async () => {
          active.see(seen);
          await active.released;
        });
      case "rewrite": {
        const answer = await askWhole(req);
        active.see(seen);
        return send(res, fault.change(answer));
      }
      case "drop_response":
        await askWhole(req);
        active.see(seen);
        if (fault.connection !== "open") reset(req.socket);
        return;
      case "reset": {
        const raw = rawAnswer(await askWhole(req));
        active.see(seen);
        req.socket.write(raw.subarray(0, fault.afterBytes), () => reset(req.socket));
        return;
      }
      case "slow": {
        const raw = rawAnswer(await askWhole(req));
        active.see(seen);
        for (const byte of raw) {
          if (req.socket.destroyed) return;
          req.socket.write(Buffer.of(byte));
          await new Promise((resolve) => setTimeout(resolve, fault.byteEveryMs ?? 1_000).unref());
        }
        return;
      }
      case "refuse":
        return reset(req.socket);
    }
  }

  function take(request: SeenRequest): ActiveFault | null {
    for (const active of faults) {
      if (active.timesLeft === 0 || !matches(active.fault.match, request)) continue;
      if (active.skipLeft > 0) {
        active.skipLeft--;
        continue;
      }
      active.timesLeft--;
      active.hits++;
      return active;
    }
    return null;
  }

  function ask(req: IncomingMessage): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const { method, url, rawHeaders } = req;
      const onward = http.request(
        { agent, host: target.hostname, port: target.port, method, path: url, headers: rawHeaders, setHost: false },
        resolve,
      );
      onward.on("error", reject);
      req.on("error", () => onward.destroy());
      // A PUT that the client cut short must be cut short for the server as well.
      req.on("close", () => {
        if (!req.complete) onward.destroy();
      });
      req.pipe(onward);
    });
  }

  async function askWhole(req: IncomingMessage): Promise<CannedAnswer> {
    const answer = await ask(req);
    return { status: answer.statusCode ?? 0, headers: answer.headers, body: await drain(answer) };
  }

  async function pass(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const answer = await ask(req);
    res.writeHead(answer.statusCode ?? 0, answer.rawHeaders);
    answer.on("error", () => res.destroy());
    res.on("close", () => answer.destroy());
    answer.pipe(res);
  }

  function listen(port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", () => {
        server.off("error", reject);
        resolve();
      });
    });
  }

  function disconnect(): void {
    for (const socket of sockets) reset(socket);
  }

  function setFault(fault: Fault): FaultHandle {
    const seen = Promise.withResolvers<SeenRequest>();
    const held = Promise.withResolvers<void>();
    const active: ActiveFault = {
      fault,
      skipLeft: fault.skip ?? 0,
      timesLeft: fault.times ?? Number.POSITIVE_INFINITY,
      hits: 0,
      see: seen.resolve,
      released: held.promise,
      release: held.resolve,
    };
    faults.push(active);
    if (fault.kind === "refuse") {
      server.close();
      disconnect();
    }
    return { seen: seen.promise, hits: () => active.hits, release: active.release };
  }

  async function heal(): Promise<void> {
    for (const { release } of faults) release();
    faults = [];
    if (!server.listening) await listen(port);
  }

  async function close(): Promise<void> {
    for (const { release } of faults) release();
    disconnect();
    agent.destroy();
    if (server.listening) await new Promise((resolve) => server.close(resolve));
  }

  await listen(0);
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  const { port } = address;
  t.after(close);

  return {
    url: `http://127.0.0.1:${port}`,
    port,
    setFault,
    heal,
    requests,
    connections: () => sockets.size,
    connectionsMax: () => connectionsMax,
    inFlightMax: () => inFlightMax,
    disconnect,
    close,
  };
}

function matches(match: FaultMatch | undefined, request: SeenRequest): boolean {
  if (!match) return true;
  const { method, path, query, header } = match;
  if (method !== undefined && method !== request.method) return false;
  if (path && !path.test(request.path)) return false;
  if (query && !query.test(request.query)) return false;
  return !header || header[1].test(String(request.headers[header[0]] ?? ""));
}

async function send(res: ServerResponse, answer: CannedAnswer, wait?: () => Promise<void>): Promise<void> {
  await wait?.();
  const { "transfer-encoding": _, "content-length": length, ...headers } = answer.headers;
  // The answer to HEAD has the length of a body that it does not have.
  const isHead = res.req.method === "HEAD";
  res.writeHead(answer.status, { ...headers, "content-length": isHead ? length : answer.body.length });
  res.end(answer.body);
}

function rawAnswer({ status, headers, body }: CannedAnswer): Buffer {
  const { "transfer-encoding": _, ...kept } = { "content-length": String(body.length), ...headers };
  const lines = Object.entries(kept).map(([name, value]) => `${name}: ${value}`);
  return Buffer.concat([
    Buffer.from(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\n${lines.join("\r\n")}\r\n\r\n`),
    body,
  ]);
}

async function drain(stream: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function reset(socket: Socket): void {
  socket.resetAndDestroy();
}
