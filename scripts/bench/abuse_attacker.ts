import { setTimeout as delay } from "node:timers/promises";
import { Agent, type Dispatcher, request } from "undici";
import * as z from "zod";
import { createRandom, type Random } from "../../test/_random.ts";
import type { AbuseJob } from "./abuse_protocol.ts";
import { openWire, type Wire } from "./abuse_wire.ts";
import type { Workspace } from "./data_dirs.ts";

/** How long an abusive client waits for an answer before it gives up. */
const ANSWER_MS_MAX = 10_000;

/** One way to misuse the service. */
export interface Abuse {
  name: string;
  /** Whether only one client does it at a time, because it takes as much as many do. */
  alone?: boolean;
  /** Does it once, for some seconds at most. What it opened is closed afterwards. */
  run: (attacker: Attacker) => Promise<void>;
}

/** A pending upload, with the URL to send its bytes to. */
export interface Made {
  id: string;
  target: string;
}

interface Call {
  key?: string | undefined;
  body?: unknown;
  headers?: Record<string, string>;
}

/** What an abusive client has to do its work with. Everything it does is counted by outcome. */
export interface Attacker extends Pick<AbuseJob, "tenants" | "workflowId" | "rows"> {
  random: Random;
  /** Counts an outcome of the abuse at hand. */
  note: (outcome: string) => void;
  /** Waits, but not beyond the end of the run. */
  pause: (ms: number) => Promise<void>;
  /** Opens a connection from this client's own address, or from another. Null if that failed, which is counted. */
  open: (address?: string) => Promise<Wire | null>;
  /** Opens a connection, sends this and counts the first thing that comes back; the connection stays open. */
  sendRaw: (bytes: string | Buffer) => Promise<void>;
  /** Sends a proper request and counts the status. Null if there was no answer. The target may be a whole URL. */
  call: (
    method: Dispatcher.HttpMethod,
    target: string,
    call?: Call,
  ) => Promise<{ status: number; json: unknown } | null>;
  /** Creates an upload; null if that is refused. */
  create: (tenant: Workspace, body?: Record<string, unknown>) => Promise<Made | null>;
  /** Creates an upload and PUTs its bytes; null if either is refused. */
  put: (tenant: Workspace, bytes: Buffer, body?: Record<string, unknown>) => Promise<Made | null>;
  confirm: (tenant: Workspace, id: string) => Promise<{ status: number; json: unknown } | null>;
  remove: (tenant: Workspace, id: string) => Promise<unknown>;
}

const Created = z.object({ data: z.object({ upload: z.object({ id: z.string() }), upload_url: z.string() }) });
const Confirmed = z.object({ data: z.object({ download_url: z.string() }) });

/** Path and query of the download URL of a confirmed upload that was answered, or null. */
export function downloadTarget(answer: { json: unknown } | null): string | null {
  const confirmed = Confirmed.safeParse(answer?.json);
  return confirmed.success ? targetOf(confirmed.data.data.download_url) : null;
}

function targetOf(url: string): string {
  const { pathname, search } = new URL(url);
  return pathname + search;
}

/** One of the abusive clients, with an address of its own. `stop` ends whatever it waits for. */
export function createAttacker(
  job: AbuseJob,
  { number, note, stop }: { number: number; note: (outcome: string) => void; stop: AbortSignal },
) {
  // Linux takes all of 127.0.0.0/8 for this machine's own.
  const address = `127.0.1.${number + 1}`;
  const agent = new Agent({
    connections: 8,
    ...{ headersTimeout: ANSWER_MS_MAX, bodyTimeout: ANSWER_MS_MAX, connectTimeout: ANSWER_MS_MAX },
    connect: { localAddress: address },
  });
  const wires = new Set<Wire>();

  async function open(from = address): Promise<Wire | null> {
    try {
      const wire = await openWire(job.url, from);
      wires.add(wire);
      return wire;
    } catch (error) {
      note(codeOf(error));
      return null;
    }
  }

  async function pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: stop }).catch(() => {});
  }

  const call: Attacker["call"] = async (method, target, { key, body, headers = {} } = {}) => {
    const isJson = body !== undefined && !Buffer.isBuffer(body);
    try {
      const answer = await request(job.url + target, {
        method,
        dispatcher: agent,
        signal: stop,
        headers: {
          ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
          ...(isJson ? { "content-type": "application/json" } : {}),
          ...headers,
        },
        body: isJson ? JSON.stringify(body) : Buffer.isBuffer(body) ? body : null,
      });
      const text = await answer.body.text();
      note(String(answer.statusCode));
      const hasJson = String(answer.headers["content-type"]).startsWith("application/json");
      return { status: answer.statusCode, json: hasJson ? JSON.parse(text) : undefined };
    } catch (error) {
      if (!stop.aborted) note(codeOf(error));
      return null;
    }
  };

  const create: Attacker["create"] = async (tenant, body = {}) => {
    const asked = { filename: "abuse.bin", category: "file", ...body };
    const answer = await call("POST", "/api/v1/uploads", { key: tenant.key, body: asked });
    const created = Created.safeParse(answer?.json);
    if (!created.success) return null;
    const { upload, upload_url } = created.data.data;
    return { id: upload.id, target: targetOf(upload_url) };
  };

  const attacker: Attacker = {
    ...{ tenants: job.tenants, workflowId: job.workflowId, rows: job.rows },
    random: createRandom(job.seed + number),
    ...{ note, pause, open, call, create },
    async sendRaw(bytes) {
      const wire = await open();
      wire?.send(bytes);
      note((await wire?.outcome(ANSWER_MS_MAX)) ?? "no connection");
    },
    async put(tenant, bytes, body) {
      const made = await create(tenant, body);
      if (made === null) return null;
      const answer = await call("PUT", made.target, { body: bytes });
      return answer?.status === 200 ? made : null;
    },
    confirm: (tenant, id) =>
      call("POST", `/api/v1/uploads/${id}`, {
        key: tenant.key,
        body: { context_type: "workspace", context_id: tenant.workspaceId },
      }),
    remove: (tenant, id) => call("DELETE", `/api/v1/uploads/${id}`, { key: tenant.key }),
  };

  /** Closes what the last abuse left open. */
  function letGo(): void {
    for (const wire of wires) wire.reset();
    wires.clear();
  }

  async function close(): Promise<void> {
    letGo();
    await agent.destroy();
  }

  return { attacker, letGo, close };
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && typeof error.code === "string" ? error.code : error.message;
}
