import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { AppError, clientGone } from "../errors.ts";
import type { Log } from "../log.ts";
import { type AddressRoom, createAddressRoom } from "./address_room.ts";
import { createComplaints } from "./complaints.ts";
import { createRefusals, type RefusalsOptions } from "./refusals.ts";

/** Requests of one connection that are served at once. Pipelined beyond that, they wait, and nothing more is read. */
const REQUESTS_AT_ONCE_MAX = 8;
/**
 * Requests of one connection that may wait. One read from the network can bring some 1,800 of the smallest, at about 5 KB of
 * memory each, before it can be stopped. No honest client pipelines that many.
 */
const WAITING_MAX = 200;
/** The same of all connections together: at most some 100 MB. */
const WAITING_IN_ALL_MAX = 20_000;
/** Bytes of responses that clients do not read, of all connections together. Beyond it the largest are given up, to a half. */
const UNREAD_BYTES_MAX = 128 * 1024 * 1024;
/** A body of this size has no reason to take seconds. */
const SMALL_BODY_BYTES = 64 * 1024;
/** The parser's error if the client closes its side in the middle of a body. Those bytes can never become a request. */
const CLOSED_IN_BODY = "HPE_INVALID_EOF_STATE";
/** While the server closes: a connection has to move so many bytes in each span of the stall's length. */
const MOVED_BYTES_MIN = 2_048;

export interface ConnectionsOptions extends RefusalsOptions {
  /** Connections at once, of everyone together. */
  connectionsMax: number;
  /** Connections at once from one address; null: any number. */
  perAddressMax: number | null;
  /** Whether an address may have any number: a proxy's, which stands for many clients. */
  isTrusted: (address: string) => boolean;
  log: Log;
}

/** The state of one open connection. It is kept here, so that nothing has to be listening when something happens to it. */
export interface Connection {
  readonly socket: Socket;
  /** The address at its other end, because a closed socket has none. */
  readonly address: string;
  /** The newest request that came in, and its response. Responses are sent in order, so when it is sent, all are. */
  newest: ServerResponse<IncomingMessage> | null;
  /** Why the body of the newest request can never be whole, or null while it can. */
  bodyFailure: AppError | null;
  /** Called when `bodyFailure` is set, one for each reader of a body: several requests of a connection are served at once. */
  readonly bodyReaders: Set<() => void>;
  /** Why we have cut the connection, or null if we have not. */
  cut: AppError | null;
  /** Whether a refusal was sent in place of a response, so that the connection closes. */
  isRefused: boolean;
  /** Responses to requests that were begun, until they have left. */
  readonly open: Set<ServerResponse>;
  /** Called when a response is sent, or the connection is closed. */
  readonly turnWaiters: (() => void)[];
  /** Requests that came in and were not begun. */
  readonly waiting: (() => void)[];
  /** Bytes that had moved in either direction when it last was enough, and when that was. */
  moved: { bytes: number; atMs: number };
}

export type Connections = ReturnType<typeof createConnections>;

/**
 * The open connections of a server. Bounds how many there are and how many requests each may have under way, keeps their
 * state, responds to what `node:http` refuses before there is a request, and finds those that can be closed.
 */
export function createConnections(options: ConnectionsOptions) {
  const connections = new Map<Duplex, Connection>();
  let waitingInAll = 0;
  const { log } = options;
  const refusals = createRefusals(options);
  const complain = createComplaints(log);
  const room: AddressRoom = createAddressRoom({
    ...options,
    tell: complain,
    giveUp: (sockets) => {
      const open = sockets.map((socket) => connections.get(socket)).filter((connection) => connection !== undefined);
      const alive = open.filter(({ socket }) => !socket.destroyed);
      const victim = alive.find(isIdle) ?? alive.find((connection) => !isWhole(connection)) ?? alive[0];
      victim?.socket.destroy();
    },
  });

  function add(socket: Socket): void {
    if (!room.enter(socket)) return refusals.refuseTooMany(socket);
    const connection: Connection = {
      socket,
      address: socket.remoteAddress ?? "",
      newest: null,
      bodyFailure: null,
      bodyReaders: new Set(),
      cut: null,
      isRefused: false,
      open: new Set(),
      turnWaiters: [],
      waiting: [],
      moved: { bytes: 0, atMs: 0 },
    };
    connections.set(socket, connection);
    // Each of the requests that are served at once may listen for the end twice, beside node:http's own.
    socket.setMaxListeners(4 * REQUESTS_AT_ONCE_MAX);
    // node:http resumes a socket whenever a response leaves. While requests wait, nothing more may come in.
    socket.on("resume", () => {
      if (connection.waiting.length > 0) socket.pause();
    });
    // After the parser: node:http reports no failure at all for a request that offers another protocol ("Upgrade").
    socket.once("end", () => {
      const { newest } = connection;
      if (newest !== null && !newest.req.complete && !isSent(newest)) failBody(connection, clientGone());
    });
    socket.once("close", () => {
      connections.delete(socket);
      room.leave(socket);
      // There is nobody left to respond to: they begin, find that out, and are logged.
      waitingInAll -= connection.waiting.length;
      for (const begin of connection.waiting.splice(0)) begin();
      wakeTurnWaiters(connection);
    });
  }

  /**
   * Takes in a request and calls `begin` when it may be served: at once, unless too many requests of its connection are under
   * way.
   */
  function admit(res: ServerResponse<IncomingMessage>, begin: (connection: Connection) => void): void {
    const connection = connections.get(res.req.socket);
    // It was turned away or cut, and the parser is still at what had come in before.
    if (connection === undefined || connection.socket.destroyed) return;
    // A response that closes the connection was sent. node:http still hands out what was pipelined behind it, but gives it
    // the place of a request that waits, and fails an assertion of its own when that one's turn would have come. That
    // would end the process.
    if (!connection.socket.writable) return;
    connection.newest = res;
    connection.bodyFailure = null;
    const start = (): void => {
      connection.open.add(res);
      res.once("close", () => onSent(connection, res));
      begin(connection);
    };
    const { socket, waiting, open } = connection;
    // A client that does not read is owed one response at a time.
    const atOnceMax = socket.writableLength > 0 ? 1 : REQUESTS_AT_ONCE_MAX;
    if (waiting.length === 0 && open.size < atOnceMax) return start();
    waiting.push(start);
    waitingInAll++;
    socket.pause();
    if (waiting.length > WAITING_MAX || (waitingInAll > WAITING_IN_ALL_MAX && waiting.length > REQUESTS_AT_ONCE_MAX)) {
      complain("too_many_pipelined", socket.remoteAddress ?? "");
      socket.destroy();
    }
  }

  function onSent(connection: Connection, res: ServerResponse): void {
    connection.open.delete(res);
    wakeTurnWaiters(connection);
    const next = connection.waiting.shift();
    if (next === undefined) return;
    waitingInAll--;
    next();
    if (connection.waiting.length === 0) connection.socket.resume();
  }

  /** Resolves when a request's response may be written: when those before it on its connection have left. */
  async function turnOf(connection: Connection, res: ServerResponse): Promise<void> {
    for (;;) {
      const [first] = connection.open;
      if (first === undefined || first === res || connection.socket.destroyed) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      connection.turnWaiters.push(resolve);
      await promise;
    }
  }

  /** Responds to bytes that are not HTTP, too many or too slow, after the responses that are still owed, and closes. */
  function refuse(error: Error & { code?: string }, socket: Duplex): void {
    const connection = connections.get(socket);
    // The parser reports each further chunk again, while the response is on its way.
    if (connection?.isRefused === true) return;
    if (connection === undefined || !socket.writable || error.code === "ECONNRESET") {
      socket.destroy();
      return;
    }
    connection.isRefused = true;
    const { newest, address } = connection;
    if (newest === null) refusals.send(error, socket, address);
    else if (newest.req.complete) {
      if (isSent(newest)) refusals.send(error, socket, address);
      else newest.once("close", () => (socket.writable ? refusals.send(error, socket, address) : undefined));
    }
    // The body of a request whose response was sent: there is no more to say.
    else if (isSent(newest)) socket.destroy();
    // The body of a request that is being served: its handler learns of it when it reads, now or later.
    else failBody(connection, error.code === CLOSED_IN_BODY ? clientGone(error) : malformedBody());
  }

  /** Nothing has moved on a connection for long: it is closed, unless it waits for a handler of ours. */
  function onSilence(socket: Socket): void {
    const connection = connections.get(socket);
    if (connection === undefined || isIdle(connection)) return void socket.destroy();
    if (waitsForClient(connection)) return cutOff(connection);
    socket.setTimeout(socket.timeout ?? 0);
  }

  /**
   * Turns CONNECT away. By then node:http has let go of the socket: it neither reads it any more nor tells a response that is
   * still being written when to go on, so if there is one the connection is cut.
   */
  function refuseConnect(socket: Duplex): void {
    const newest = connections.get(socket)?.newest ?? null;
    if (newest !== null && !isSent(newest)) socket.destroy();
    else refuse(new Error("CONNECT is for proxies"), socket);
  }

  /** Closes the connections on which nothing is under way, also those that never sent a request. */
  function closeIdle(): void {
    for (const connection of connections.values()) if (isIdle(connection)) connection.socket.destroy();
  }

  /**
   * Closes the connections that wait for their client and have moved next to nothing for `stallMs`: a request that is not
   * whole, or a response that is not being read. `sinceMs`: when the server began to close, as `performance.now()` has it.
   */
  function closeStalled(sinceMs: number, stallMs: number): void {
    const nowMs = performance.now();
    for (const connection of connections.values()) {
      const bytes = connection.socket.bytesRead + connection.socket.bytesWritten;
      const isFirstCheck = connection.moved.atMs < sinceMs;
      if (isFirstCheck || bytes - connection.moved.bytes >= MOVED_BYTES_MIN) connection.moved = { bytes, atMs: nowMs };
      const isSlow = nowMs - connection.moved.atMs >= stallMs;
      const isLate = nowMs - sinceMs >= stallMs && isSmallAndLate(connection);
      if (waitsForClient(connection) && (isSlow || isLate)) cutOff(connection);
    }
  }

  /** Gives up connections whose clients do not read, if too much is held for them: the largest first. */
  function dropUnread(): void {
    const unread = [...connections.values()]
      .map((connection) => ({ connection, bytes: unreadBytes(connection) }))
      .filter(({ bytes }) => bytes > 0);
    let sumBytes = unread.reduce((sum, { bytes }) => sum + bytes, 0);
    if (sumBytes <= UNREAD_BYTES_MAX) return;
    unread.sort((a, b) => b.bytes - a.bytes);
    let dropped = 0;
    for (const { connection, bytes } of unread) {
      if (sumBytes <= UNREAD_BYTES_MAX / 2) break;
      cutOff(connection);
      sumBytes -= bytes;
      dropped++;
    }
    log.warn("unread_responses_dropped", { connections: dropped, allowed_bytes: UNREAD_BYTES_MAX });
  }

  return { add, admit, turnOf, refuse, refuseConnect, onSilence, dropUnread, closeIdle, closeStalled };
}

function wakeTurnWaiters({ turnWaiters }: Connection): void {
  // There are almost never any, and this runs for every request.
  if (turnWaiters.length === 0) return;
  for (const wake of turnWaiters.splice(0)) wake();
}

/** Cuts a connection whose client keeps us waiting. Its requests end as the client's fault, but not as if it had gone. */
function cutOff(connection: Connection): void {
  connection.cut = new AppError("request_timeout", "The client did not send, or read, for too long");
  connection.socket.destroy();
}

/** Records that the newest request's body can never be whole. The first reason counts. */
export function failBody(connection: Connection, failure: AppError): void {
  connection.bodyFailure ??= failure;
  for (const wake of connection.bodyReaders) wake();
}

function malformedBody(): AppError {
  return new AppError("bad_request", "The body broke off, or is not valid HTTP/1.1");
}

/** Bytes of a connection's responses that the kernel has not taken yet. */
function unreadBytes({ socket, open }: Connection): number {
  let bytes = socket.writableLength;
  // The one that is being written has the socket's bytes among its own.
  for (const res of open) bytes += res.writableLength - (res.socket === null ? 0 : socket.writableLength);
  return bytes;
}

function isIdle({ newest, waiting }: Connection): boolean {
  return waiting.length === 0 && (newest === null || isSent(newest));
}

/** Whether it is the client's turn: to send the rest of a request, or to read what the kernel could not take yet. */
function waitsForClient({ newest, socket, waiting }: Connection): boolean {
  if (newest === null) return false;
  // Bytes that came in and were not read yet wait for us: for the disk, or for requests before them.
  const isUnread = waiting.length > 0 || newest.req.readableLength > 0;
  return (!newest.req.complete && !isUnread) || socket.writableLength > 0;
}

/** Whether a body that fits in one packet or a few is still not there. */
function isSmallAndLate({ newest }: Connection): boolean {
  if (newest === null || newest.req.complete) return false;
  return Number(newest.req.headers["content-length"] ?? Number.POSITIVE_INFINITY) <= SMALL_BODY_BYTES;
}

/** Whether every request on the connection has arrived as a whole. */
function isWhole({ newest }: Connection): boolean {
  return newest === null || newest.req.complete;
}

/** Whether the whole response has been handed to the kernel, or never can be. */
function isSent(res: ServerResponse): boolean {
  return res.writableFinished || res.destroyed;
}
