import type { Server as HttpServer } from "node:http";
import { type AddressInfo, createServer, type ListenOptions, type Server } from "node:net";

/**
 * Listening sockets on one port. Node accepts one connection of each in a turn of its event loop: with a single one, and
 * turns of 4 ms, a flood of connections kept newcomers waiting for 17 s, and with eight they get in.
 */
const SOCKETS = 8;

export interface Listeners {
  port: number;
  /** Stops accepting, and resolves when all connections that came in by these sockets are closed. */
  close: () => Promise<void>;
}

/** Listens on a port that no other process shares. Rejects if the address cannot be used. */
export async function openListeners(
  http: HttpServer,
  { host, port }: { host: string; port: number },
  onError: (error: Error) => void,
): Promise<Listeners> {
  // Sockets that share a port would share it with another process of this user, too. So it has to be free first. (A
  // port that the system chooses is free anyway.)
  if (port !== 0) await closed(await listening(createServer(), { host, port }));
  const servers: Server[] = [];
  const canShare = await listening(http, { host, port, reusePort: true }).then(
    () => true,
    // Not every system has it; there one socket has to do.
    (error: NodeJS.ErrnoException) => (error.code === "ENOTSUP" ? false : Promise.reject(error)),
  );
  if (!canShare) await listening(http, { host, port });
  servers.push(http);
  const { address, port: ownPort } = http.address() as AddressInfo;
  for (let i = 1; canShare && i < SOCKETS; i++) {
    // As node:http makes its own.
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => http.emit("connection", socket));
    server.maxConnections = http.maxConnections;
    servers.push(await listening(server, { host: address, port: ownPort, reusePort: true }));
  }
  for (const server of servers) server.on("error", onError);
  return { port: ownPort, close: async () => void (await Promise.all(servers.map(closed))) };
}

function listening<T extends Server>(server: T, options: ListenOptions): Promise<T> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(options, () => {
      server.off("error", reject);
      resolve(server);
    });
  });
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
  });
}
