import { randomBytes } from "node:crypto";
import { type Abuse, type Attacker, downloadTarget } from "./abuse_attacker.ts";
import { head, type Wire } from "./abuse_wire.ts";

/** More than the kernel's buffers take, so that a client who does not read is waited for. */
const FILE_BYTES = 16 * 1024 * 1024;
const DOWNLOADS = 10;
const HOLD_MS = 6_000;
const RANGES = 100;

const FILE = randomBytes(FILE_BYTES);

/** The id of a large confirmed upload, once it was made. */
let fileId: string | null = null;

/** Works with the URL of a large file. It is made once: these are about reading. */
async function withFile(attacker: Attacker, work: (target: string) => Promise<void>): Promise<void> {
  const tenant = attacker.tenants.paying;
  if (fileId === null) {
    const made = await attacker.put(tenant, FILE);
    if (made === null || (await attacker.confirm(tenant, made.id))?.status !== 200) return;
    fileId = made.id;
  }
  const target = downloadTarget(await attacker.call("GET", `/api/v1/uploads/${fileId}`, { key: tenant.key }));
  if (target !== null) await work(target);
}

/** Downloads that are not what they are for. */
export const READ_ABUSES: readonly Abuse[] = [
  {
    name: "downloads that are not read",
    run: (attacker) =>
      withFile(attacker, async (target) => {
        const wires: Wire[] = [];
        for (let i = 0; i < DOWNLOADS; i++) {
          const wire = await attacker.open();
          wire?.stopReading();
          wire?.send(head("GET", target));
          if (wire !== null) wires.push(wire);
        }
        await attacker.pause(HOLD_MS);
        for (const wire of wires) attacker.note(wire.state());
      }),
  },
  {
    name: "downloads that are cut",
    run: (attacker) =>
      withFile(attacker, async (target) => {
        for (let i = 0; i < DOWNLOADS; i++) {
          const wire = await attacker.open();
          wire?.send(head("GET", target));
          await attacker.pause(attacker.random.integer(0, 20));
          wire?.reset();
          attacker.note("cut");
        }
      }),
  },
  {
    name: "many ranges",
    run: (attacker) =>
      withFile(attacker, async (target) => {
        for (let i = 0; i < RANGES; i++) {
          const start = attacker.random.integer(0, FILE_BYTES + 1000);
          const range = attacker.random.pick([
            `bytes=${start}-${start + 100}`,
            `bytes=-${start}`,
            "bytes=0-0,2-3,5-6",
            "x",
          ]);
          const isWhole = range?.includes("=-") === true || range === "x" || range?.includes(",") === true;
          // HEAD instead of GET if the range would be the whole file.
          await attacker.call(isWhole ? "HEAD" : "GET", target, { headers: { range: range ?? "" } });
          await attacker.pause(5);
        }
      }),
  },
];
