import type { Abuse } from "./abuse_attacker.ts";
import { CONNECTION_ABUSES } from "./abuse_connections.ts";
import { PUT_ABUSES } from "./abuse_puts.ts";
import { READ_ABUSES } from "./abuse_reads.ts";
import { TENANT_ABUSES } from "./abuse_tenants.ts";

/** Every way to misuse the service that is tried. */
export const ABUSES: readonly Abuse[] = [...PUT_ABUSES, ...CONNECTION_ABUSES, ...TENANT_ABUSES, ...READ_ABUSES];
