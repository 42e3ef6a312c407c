import { BlockList, isIP } from "node:net";
import { parseNetwork } from "../addresses.ts";

/** Tells whether an address lies in one of these networks. An IPv4 address counts however the socket writes it. */
export function trustedAddresses(networks: readonly string[]): (address: string) => boolean {
  // Nearly every installation has none, and every request asks.
  if (networks.length === 0) return () => false;
  const list = new BlockList();
  for (const text of networks) {
    const network = parseNetwork(text);
    if (network !== null) list.addSubnet(network.address, network.prefix, network.family);
  }
  return (address) => {
    const version = isIP(address);
    return version !== 0 && list.check(address, version === 4 ? "ipv4" : "ipv6");
  };
}
