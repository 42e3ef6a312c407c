import { randomBytes, randomUUID } from "node:crypto";
import type { Abuse, Attacker } from "./abuse_attacker.ts";

const WORKFLOW_BYTES = 60 * 1024;
const STAGED_BYTES = 1024 * 1024;
const SCRIPT_BYTES = 16 * 1024 * 1024;
const AT_ONCE = 50;

const UPLOADS = "/api/v1/uploads";
const WORKFLOWS = "/api/v1/workflows";
const SCRIPT = Buffer.alloc(SCRIPT_BYTES, "a script of many words and lines, none of them long\n");

/** Does something again and again, with a short rest in between: a flood that still leaves the machine to others. */
async function repeat(attacker: Attacker, times: number, todo: (i: number) => Promise<unknown>): Promise<void> {
  for (let i = 0; i < times; i++) {
    await todo(i);
    await attacker.pause(10);
  }
}

/** Requests in good form by tenants who mean harm. */
export const TENANT_ABUSES: readonly Abuse[] = [
  {
    name: "whole lives, at once",
    async run(attacker) {
      const tenant = attacker.tenants.paying;
      await repeat(attacker, 5, async () => {
        const made = await attacker.put(tenant, randomBytes(attacker.random.integer(0, 65_536)));
        if (made === null) return;
        await attacker.confirm(tenant, made.id);
        await attacker.remove(tenant, made.id);
      });
    },
  },
  {
    name: "workflows of 60 KiB, quota 0",
    async run(attacker) {
      const { key } = attacker.tenants.flooding;
      const body = { name: "large", definition: { text: "x".repeat(WORKFLOW_BYTES) } };
      await repeat(attacker, 20, () => attacker.call("POST", WORKFLOWS, { key, body }));
    },
  },
  {
    name: "pending uploads, quota 0",
    run: (attacker) => repeat(attacker, 50, () => attacker.create(attacker.tenants.flooding)),
  },
  {
    name: "staged bytes, quota 0",
    run: (attacker) => repeat(attacker, 4, () => attacker.put(attacker.tenants.sending, Buffer.alloc(STAGED_BYTES))),
  },
  {
    name: "Idempotency-Keys, quota 0",
    async run(attacker) {
      const { key } = attacker.tenants.flooding;
      const body = { filename: "a.bin", category: "file" };
      await repeat(attacker, 50, () =>
        attacker.call("POST", UPLOADS, { key, body, headers: { "idempotency-key": randomUUID() } }),
      );
    },
  },
  {
    name: "create, delete, PUT to the URL that is left",
    async run(attacker) {
      const tenant = attacker.tenants.sending;
      await repeat(attacker, 20, async () => {
        const made = await attacker.create(tenant);
        if (made === null) return;
        await attacker.remove(tenant, made.id);
        await attacker.call("PUT", made.target, { body: Buffer.alloc(1000) });
      });
    },
  },
  {
    name: "huge script confirmed",
    async run(attacker) {
      const tenant = attacker.tenants.paying;
      const made = await attacker.put(tenant, SCRIPT, { filename: "huge.txt", category: "script" });
      if (made === null) return;
      await attacker.confirm(tenant, made.id);
      await attacker.remove(tenant, made.id);
    },
  },
  {
    name: `${AT_ONCE} confirms, then ${AT_ONCE} deletes of one id`,
    async run(attacker) {
      const tenant = attacker.tenants.paying;
      const made = await attacker.put(tenant, randomBytes(5000));
      if (made === null) return;
      await Promise.all(Array.from({ length: AT_ONCE }, () => attacker.confirm(tenant, made.id)));
      await Promise.all(Array.from({ length: AT_ONCE }, () => attacker.remove(tenant, made.id)));
    },
  },
  {
    name: "lists with deep offsets",
    async run(attacker) {
      const { random, rows, workflowId } = attacker;
      const { key } = attacker.tenants.listing;
      await repeat(attacker, 20, async () => {
        const offset = random.integer(0, rows);
        await attacker.call("GET", `${UPLOADS}?limit=100&offset=${offset}`, { key });
        await attacker.call("GET", `${UPLOADS}?limit=1&offset=${offset}&context_id=${workflowId}`, { key });
        await attacker.call("GET", `${WORKFLOWS}/${workflowId}/uploads?limit=1&offset=${offset}`, { key });
        await attacker.call("GET", `${UPLOADS}?status=pending&category=script`, { key });
      });
    },
  },
  {
    name: "usage and events",
    async run(attacker) {
      const { key } = attacker.tenants.listing;
      await repeat(attacker, 10, async () => {
        await attacker.call("GET", "/api/v1/usage/summary?range=90d", { key });
        await attacker.call("GET", "/api/v1/usage/storage-events?limit=100", { key });
      });
    },
  },
  {
    name: "garbage tokens",
    run: (attacker) =>
      repeat(attacker, 50, (i) => {
        const key = i % 2 === 0 ? `op_live_${randomBytes(16).toString("hex")}` : `eyJ.${randomUUID()}.x`;
        return attacker.call("GET", UPLOADS, { key });
      }),
  },
  {
    name: "garbage paths and queries",
    async run(attacker) {
      const { random, tenants } = attacker;
      await repeat(attacker, 50, () => {
        const bytes = encodeURIComponent(random.bytes(random.integer(1, 40)).toString("latin1"));
        const target = random.pick([
          `/${bytes}`,
          `${UPLOADS}/${bytes}`,
          `${UPLOADS}?${bytes}=${bytes}`,
          "/%",
          "/../..",
        ]);
        return attacker.call(random.pick(["GET", "DELETE", "PUT"]) ?? "GET", target ?? "/", {
          key: tenants.paying.key,
        });
      });
      await attacker.sendRaw(Buffer.concat([random.bytes(200), Buffer.from("\r\n\r\n")]));
    },
  },
  {
    name: "altered signed URLs",
    async run(attacker) {
      const { random, tenants } = attacker;
      const made = await attacker.create(tenants.paying, { size_bytes: 10 });
      if (made === null) return;
      await repeat(attacker, 20, () => {
        const at = random.integer(made.target.indexOf("/objects/") + 9, made.target.length - 1);
        const other = made.target[at] === "0" ? "1" : "0";
        const target = made.target.slice(0, at) + other + made.target.slice(at + 1);
        return attacker.call("PUT", target, { body: Buffer.alloc(10) });
      });
      await attacker.remove(tenants.paying, made.id);
    },
  },
];
