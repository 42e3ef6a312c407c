import type { Abuse, Attacker, Made } from "./abuse_attacker.ts";
import { head, type Wire } from "./abuse_wire.ts";
import type { Workspace } from "./data_dirs.ts";

const GIB = 2 ** 30;
const SENT_BYTES = 20;
const ANNOUNCED_BYTES = 500_000;
/** Long enough to be counted as waiting, short enough to come round often. */
const HOLD_MS = 6_000;
const OUTCOME_MS_MAX = 5_000;
/** So many PUTs of a GiB each announce more than most disks have. */
const IDLE_PUTS = 83;
/** Then each announces half as much as the one before, down to this, for what room is still left. */
const IDLE_BYTES_MIN = 1_000;
const STORM_CONNECTIONS = 900;
const STORM_PART = 50;
const STORM_PART_MS = 50;

/** Makes an upload, and opens a connection on which a PUT to it has begun. The upload is deleted at the end. */
async function begun(
  attacker: Attacker,
  tenant: Workspace,
  headers: Record<string, string>,
  then: (wire: Wire, made: Made) => Promise<void>,
): Promise<void> {
  const made = await attacker.create(tenant);
  if (made === null) return;
  const wire = await attacker.open();
  if (wire !== null) {
    wire.send(head("PUT", made.target, headers));
    await then(wire, made);
  }
  await attacker.remove(tenant, made.id);
}

const announcing = (sizeBytes: number) => ({ "Content-Length": String(sizeBytes) });
const CHUNKED = { "Transfer-Encoding": "chunked" };

/** PUTs that do not end as they should. */
export const PUT_ABUSES: readonly Abuse[] = [
  {
    name: "PUT cut by a close",
    run: (attacker) =>
      begun(attacker, attacker.tenants.paying, announcing(ANNOUNCED_BYTES), async (wire) => {
        wire.send(Buffer.alloc(SENT_BYTES));
        await attacker.pause(attacker.random.integer(0, 20));
        wire.halfClose();
        await attacker.pause(attacker.random.integer(0, 20));
        wire.reset();
        attacker.note("cut");
      }),
  },
  {
    name: "PUT cut by a reset",
    run: (attacker) =>
      begun(attacker, attacker.tenants.paying, announcing(ANNOUNCED_BYTES), async (wire) => {
        wire.send(Buffer.alloc(attacker.random.integer(1, 400_000)));
        await attacker.pause(attacker.random.integer(0, 20));
        wire.reset();
        attacker.note("cut");
      }),
  },
  {
    name: "PUT half-closed in the body",
    run: (attacker) =>
      begun(attacker, attacker.tenants.paying, announcing(ANNOUNCED_BYTES), async (wire) => {
        wire.send(Buffer.alloc(SENT_BYTES));
        await attacker.pause(attacker.random.integer(0, 50));
        wire.halfClose();
        attacker.note(await wire.outcome(OUTCOME_MS_MAX));
      }),
  },
  {
    name: "FIN before the body is read",
    run: (attacker) =>
      begun(attacker, attacker.tenants.paying, announcing(ANNOUNCED_BYTES), async (wire) => {
        wire.halfClose();
        attacker.note(await wire.outcome(OUTCOME_MS_MAX));
      }),
  },
  {
    name: "malformed chunk in a PUT",
    run: (attacker) =>
      begun(attacker, attacker.tenants.paying, CHUNKED, async (wire) => {
        wire.send("5\r\nhello\r\n");
        await attacker.pause(attacker.random.integer(0, 20));
        wire.send("this is no length\r\n");
        attacker.note(await wire.outcome(OUTCOME_MS_MAX));
      }),
  },
  {
    name: "too many bytes in a PUT",
    async run(attacker) {
      await begun(attacker, attacker.tenants.paying, announcing(SENT_BYTES), async (wire) => {
        wire.send(Buffer.alloc(SENT_BYTES * 100, "x"));
        attacker.note(await wire.outcome(OUTCOME_MS_MAX));
      });
      const made = await attacker.create(attacker.tenants.paying, { size_bytes: SENT_BYTES });
      if (made === null) return;
      await attacker.sendRaw(`${head("PUT", made.target, CHUNKED)}40\r\n${"x".repeat(64)}\r\n0\r\n\r\n`);
      await attacker.remove(attacker.tenants.paying, made.id);
    },
  },
  {
    name: `${IDLE_PUTS} idle PUTs of 1 GiB to one URL`,
    alone: true,
    async run(attacker) {
      const made = await attacker.create(attacker.tenants.sending);
      if (made === null) return;
      const wires: Wire[] = [];
      const sizes = Array<number>(IDLE_PUTS).fill(GIB);
      for (let sizeBytes = GIB; sizeBytes >= IDLE_BYTES_MIN; sizeBytes /= 2) sizes.push(sizeBytes);
      for (const sizeBytes of sizes) {
        const wire = await attacker.open();
        wire?.send(head("PUT", made.target, announcing(sizeBytes)));
        if (wire !== null) wires.push(wire);
      }
      await attacker.pause(HOLD_MS);
      for (const wire of wires) attacker.note(await wire.outcome(0));
      await attacker.remove(attacker.tenants.sending, made.id);
    },
  },
  {
    name: "PUT that stalls",
    run: (attacker) =>
      begun(attacker, attacker.tenants.paying, announcing(ANNOUNCED_BYTES), async (wire) => {
        wire.send(Buffer.alloc(ANNOUNCED_BYTES / 2));
        await attacker.pause(HOLD_MS);
        attacker.note(await wire.outcome(0));
      }),
  },
  {
    name: "PUT of 1 byte a second",
    run: (attacker) =>
      begun(attacker, attacker.tenants.sending, announcing(GIB), async (wire) => {
        for (let ms = 0; ms < HOLD_MS; ms += 1000) {
          wire.send("x");
          await attacker.pause(1000);
        }
        attacker.note(await wire.outcome(0));
      }),
  },
  {
    name: `storm of ${STORM_CONNECTIONS}: connect, begin a PUT, close`,
    alone: true,
    async run(attacker) {
      const made = await attacker.create(attacker.tenants.paying);
      if (made === null) return;
      for (let done = 0; done < STORM_CONNECTIONS; done += STORM_PART) {
        const wires = await Promise.all(Array.from({ length: STORM_PART }, () => attacker.open()));
        for (const wire of wires) {
          wire?.send(head("PUT", made.target, announcing(GIB)));
          wire?.halfClose();
          if (wire !== null) attacker.note("closed by us");
        }
        await attacker.pause(STORM_PART_MS);
      }
      await attacker.remove(attacker.tenants.paying, made.id);
    },
  },
];
