import { connect } from "node:net";

/** What a client announces, and what it sends before it closes. */
export interface Cut {
  announcedBytes: number;
  sent: Buffer;
  headers?: Record<string, string>;
}

/**
 * A PUT whose client closes its side of the connection on the way, as one does that was stopped: everything that was sent
 * arrives. Resolves with the status of the response, or null if none came, once the server has closed as well.
 */
export async function cutPut(url: string, { announcedBytes, sent, headers = {} }: Cut): Promise<number | null> {
  const { hostname, port, host, pathname, search } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  // A reset is how some servers refuse what they do not read.
  socket.on("error", () => {});
  const closed = new Promise<void>((resolve) => {
    socket.on("end", () => socket.destroy());
    socket.on("close", () => resolve());
  });
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(
    `PUT ${pathname}${search} HTTP/1.1\r\nHost: ${host}\r\nContent-Length: ${announcedBytes}\r\n${lines.join("")}\r\n`,
  );
  socket.end(sent);
  await closed;
  const status = /^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1];
  return status === undefined ? null : Number(status);
}
