import type { Socket } from "node:net";

export interface AddressRoomOptions {
  connectionsMax: number;
  perAddressMax: number | null;
  isTrusted: (address: string) => boolean;
  /** Closes the least useful of these sockets, which all belong to one address. */
  giveUp: (sockets: readonly Socket[]) => void;
  /** Logs what an address did, now and then. */
  tell: (event: string, address: string) => void;
}

export type AddressRoom = ReturnType<typeof createAddressRoom>;

/**
 * Shares out connections among addresses, so that nobody can take all of them. An address has a limit of its own. When all
 * connections are taken, the address that has the most gives one up for the newcomer.
 */
export function createAddressRoom(options: AddressRoomOptions) {
  const { connectionsMax, perAddressMax, isTrusted, giveUp, tell } = options;
  const socketsOf = new Map<string, Set<Socket>>();
  /** The address of each socket, because a closed socket has none. */
  const addressOf = new Map<Socket, string>();

  /** Counts a new connection. False if its address has too many: it is not counted then. */
  function enter(socket: Socket): boolean {
    const address = addressGroup(socket.remoteAddress ?? "");
    const sockets = socketsOf.get(address) ?? new Set();
    if (perAddressMax !== null && sockets.size >= perAddressMax && !isTrusted(socket.remoteAddress ?? "")) {
      tell("too_many_connections", address);
      return false;
    }
    if (addressOf.size >= connectionsMax) giveUp([...largest()]);
    sockets.add(socket);
    socketsOf.set(address, sockets);
    addressOf.set(socket, address);
    return true;
  }

  function leave(socket: Socket): void {
    const address = addressOf.get(socket);
    if (address === undefined) return;
    addressOf.delete(socket);
    const sockets = socketsOf.get(address);
    sockets?.delete(socket);
    if (sockets?.size === 0) socketsOf.delete(address);
  }

  function largest(): Set<Socket> {
    let most = new Set<Socket>();
    for (const sockets of socketsOf.values()) if (sockets.size > most.size) most = sockets;
    return most;
  }

  return { enter, leave };
}

/**
 * The key that identifies one client: an IPv4 address, however it is written, or the 64-bit network of an IPv6 one, which is
 * the least that a client is given.
 */
export function addressGroup(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  if (!address.includes(":")) return address;
  const [head = "", tail = ""] = address.split("%")[0]?.split("::") ?? [];
  const left = head === "" ? [] : head.split(":");
  const right = tail === "" ? [] : tail.split(":");
  const zeros = Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => "0");
  return `${[...left, ...zeros, ...right].slice(0, 4).join(":")}::/64`;
}
