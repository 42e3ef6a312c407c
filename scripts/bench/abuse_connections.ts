import type { Abuse, Attacker } from "./abuse_attacker.ts";
import { head, type Wire } from "./abuse_wire.ts";

const HOLD_MS = 6_000;
const DRIP_MS = 500;
const DRIPS_AT_ONCE = 8;
const SILENT_CONNECTIONS = 50;
/** Together more than a server has room for: only a bound for each address keeps strangers out of the way of others. */
const FLOOD_ADDRESSES = 4;
const FLOOD_CONNECTIONS = 2_200;
const FLOOD_PART = 50;
const FLOOD_PART_MS = 50;
const PIPELINED_REQUESTS = 5_000;
const PIPELINED_PART = 500;

/** Sends a request with an endless body on several connections, and checks after a while what happened to them. */
function drip(name: string, begin: (attacker: Attacker) => string): Abuse {
  return {
    name: `dripping body: ${name}`,
    async run(attacker) {
      const wires: Wire[] = [];
      for (let i = 0; i < DRIPS_AT_ONCE; i++) {
        const wire = await attacker.open();
        wire?.send(begin(attacker));
        if (wire !== null) wires.push(wire);
      }
      for (let ms = 0; ms < HOLD_MS; ms += DRIP_MS) {
        for (const wire of wires) wire.send("x");
        await attacker.pause(DRIP_MS);
      }
      for (const wire of wires) {
        attacker.note(`${await wire.outcome(0)}, then ${wire.state()}`);
      }
    },
  };
}

const BODY = { "Content-Length": "1000000" };

/** Sends thousands of requests on one connection, and reads none of the answers. */
function pipeline(target: string, key?: (attacker: Attacker) => string): Abuse {
  return {
    name: `pipelining GET ${target} unread`,
    alone: true,
    async run(attacker) {
      const wire = await attacker.open();
      if (wire === null) return;
      wire.stopReading();
      const headers: Record<string, string> = key === undefined ? {} : { Authorization: `Bearer ${key(attacker)}` };
      const part = head("GET", target, headers).repeat(PIPELINED_PART);
      for (let sent = 0; sent < PIPELINED_REQUESTS; sent += PIPELINED_PART) {
        wire.send(part);
        await attacker.pause(50);
      }
      await attacker.pause(HOLD_MS / 2);
      attacker.note(wire.state());
    },
  };
}

/** Connections that say too little, too slowly, too late, or nothing at all. */
export const CONNECTION_ABUSES: readonly Abuse[] = [
  drip("GET /health", () => head("GET", "/health", BODY)),
  drip("GET /metrics", () => head("GET", "/metrics", BODY)),
  drip("OPTIONS", () => head("OPTIONS", "/api/v1/uploads", BODY)),
  drip("POST without credential", () =>
    head("POST", "/api/v1/uploads", { ...BODY, "Content-Type": "application/json" }),
  ),
  drip("JSON of a tenant", ({ tenants }) =>
    head("POST", "/api/v1/uploads", {
      ...{ Authorization: `Bearer ${tenants.paying.key}`, "Content-Type": "application/json" },
      "Content-Length": "1000",
    }),
  ),
  drip("PUT with a bad signature", () =>
    head("PUT", "/objects/staging/0/0/0?expires=9999999999999&max=1&signature=none", BODY),
  ),
  {
    name: "malformed chunk in a JSON body",
    run: ({ sendRaw, tenants }) =>
      sendRaw(
        `${head("POST", "/api/v1/uploads", {
          ...{ Authorization: `Bearer ${tenants.paying.key}`, "Content-Type": "application/json" },
          "Transfer-Encoding": "chunked",
        })}2\r\n{}\r\nthis is no length\r\n`,
      ),
  },
  {
    name: "connect and say nothing",
    async run(attacker) {
      await hold(attacker, SILENT_CONNECTIONS, "");
    },
  },
  {
    name: "half of a head",
    async run(attacker) {
      await hold(attacker, SILENT_CONNECTIONS, "GET /health HTTP/1.1\r\nHost: abuse\r\nX-Half: ");
    },
  },
  {
    name: `${FLOOD_ADDRESSES * FLOOD_CONNECTIONS} idle connections from ${FLOOD_ADDRESSES} addresses`,
    alone: true,
    async run(attacker) {
      const first = attacker.random.integer(1, 250 - FLOOD_ADDRESSES);
      const wires: (Wire | null)[] = [];
      for (let i = 0; i < FLOOD_ADDRESSES * FLOOD_CONNECTIONS; i += FLOOD_PART) {
        const address = `127.0.2.${first + Math.floor(i / FLOOD_CONNECTIONS)}`;
        wires.push(...(await Promise.all(Array.from({ length: FLOOD_PART }, () => attacker.open(address)))));
        await attacker.pause(FLOOD_PART_MS);
      }
      await attacker.pause(HOLD_MS / 2);
      for (const wire of wires) if (wire !== null) attacker.note(wire.state());
    },
  },
  pipeline("/ready"),
  pipeline("/health"),
  pipeline("/metrics"),
  pipeline("/api/v1/uploads?limit=100", ({ tenants }) => tenants.listing.key),
];

/** Opens connections, sends the same on each, and checks after a while which are still open. */
async function hold(attacker: Attacker, connections: number, text: string): Promise<void> {
  const wires: Wire[] = [];
  for (let i = 0; i < connections; i++) {
    const wire = await attacker.open();
    if (text !== "") wire?.send(text);
    if (wire !== null) wires.push(wire);
  }
  await attacker.pause(HOLD_MS);
  for (const wire of wires) attacker.note(wire.state());
}
