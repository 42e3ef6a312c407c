import type { IncomingHttpHeaders } from "node:http";
import { isIP } from "node:net";

/**
 * The address of the client behind a request. A trusted proxy is believed what it says of the address before it, and so on
 * from the right, up to the first one that is not trusted: that is the client, or a liar's own address. What stands further
 * to the left anyone may have written.
 *
 * `X-Forwarded-For` counts before `Forwarded`. A proxy that writes only the latter has to drop the former.
 */
export function clientAddress(
  socketAddress: string,
  headers: IncomingHttpHeaders,
  isTrusted: (address: string) => boolean,
): string {
  let address = plainAddress(socketAddress);
  if (!isTrusted(address)) return address;
  for (const before of forwardedAddresses(headers).reverse()) {
    // A proxy that hides the address, or writes something else, is the last that is known.
    if (before === null) return address;
    address = before;
    if (!isTrusted(address)) return address;
  }
  return address;
}

/** From the client's to the nearest proxy's; null for what is not an address. */
function forwardedAddresses(headers: IncomingHttpHeaders): (string | null)[] {
  const forwardedFor = headers["x-forwarded-for"];
  if (forwardedFor !== undefined) return String(forwardedFor).split(",").map(parseAddress);
  const { forwarded } = headers;
  if (forwarded === undefined) return [];
  return forwarded.split(",").map((element) => parseAddress(/(?:^|;)\s*for=("?)([^;"]*)\1/i.exec(element)?.[2] ?? ""));
}

/** An address, also with a port behind it or with an IPv6 address's brackets. */
function parseAddress(text: string): string | null {
  const trimmed = text.trim();
  const [, bracketed] = /^\[(.*)\](?::\d+)?$/.exec(trimmed) ?? [];
  const address = bracketed ?? trimmed.replace(/^(\d+\.\d+\.\d+\.\d+):\d+$/, "$1");
  return isIP(address) === 0 ? null : plainAddress(address);
}

/** An IPv4 address as such: a socket for both versions writes it as an IPv6 one. */
function plainAddress(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, "");
}
