import { existsSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { rawPathOf } from "./_books.ts";
import { type Client, openClient, problemsOf, type ReadResponse } from "./_connection_matrix_client.ts";
import type { Lane, Prepared } from "./_connection_matrix_lanes.ts";
import type { Run } from "./_connection_matrix_program.ts";
import { type Action, holdOf, type Moment, type Plan, planOf } from "./_connection_matrix_rules.ts";
import type { World } from "./_connection_matrix_world.ts";

const ANSWERED_WITHIN_MS = 10_000;
const DRIP_EVERY_MS = 1_000;
/** A download that nobody reads is cut before this: after 120 s, hastened. */
const UNREAD_MS = 20_000;
/** No head, and no chunk. */
const NONSENSE = "zz\r\nEXTRA BYTES\r\n\r\n";
const LATE_HEAD = `GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ${"a".repeat(500)}`;

/** One request of the matrix, on a connection of its own. */
export interface Cell {
  name: string;
  lane: Lane;
  moment: Moment;
  action: Action;
  plan: Plan;
  prepared: Prepared;
  client: Client;
  head: string;
  /** The body as it is sent, in its framing. */
  parts: [string, string];
  problems: string[];
  /** Whether the process ended while the cell was under way: then it says nothing. */
  isLost: boolean;
}

/** Makes a cell's request and connects; null if the action cannot meet it. */
export async function openCell(
  world: World,
  run: Run,
  at: { lane: Lane; moment: Moment; action: Action },
): Promise<Cell | null> {
  const { lane, moment, action } = at;
  const plan = planOf(lane, moment, action);
  if (plan === null) return null;
  const prepared = await lane.prepare(world, run, moment === "while it is answered");
  const isSecond = moment === "between pipelined requests";
  const client = await openClient(run.url, [...(isSecond ? ["GET"] : []), lane.method, "GET"]);
  if (moment === "while it is answered") client.pause();
  const { target, headers, body } = prepared;
  const framing = { none: {}, length: { "Content-Length": String(body.length) }, chunked: CHUNKED }[plan.framing];
  const lines = Object.entries({ Host: "test", ...headers, ...framing }).map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  const half = [body.slice(0, body.length / 2), body.slice(body.length / 2)] as const;
  return {
    ...{ ...at, plan, prepared, client, problems: [], isLost: false },
    name: `${lane.name}: ${moment}: ${action}`,
    head: `${isSecond ? FIRST : ""}${lane.method} ${target} HTTP/1.1\r\n${lines.join("")}\r\n`,
    parts: plan.framing === "none" ? ["", ""] : plan.framing === "chunked" ? [chunk(half[0]), ""] : [...half],
  };
}

const CHUNKED = { "Transfer-Encoding": "chunked" };
const FIRST = "GET /health HTTP/1.1\r\nHost: test\r\n\r\n";
const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`;

/** How many responses come before the cell's own. */
function before({ moment }: Cell): number {
  return moment === "between pipelined requests" ? 1 : 0;
}

/** Sends what comes before the act, and waits for what is answered already. */
export async function sendBefore(cell: Cell): Promise<void> {
  const { plan, client, head, parts, moment } = cell;
  if (plan.sent === "nothing") return;
  await client.write(head + (plan.sent === "head" ? "" : parts[0]) + (plan.sent === "all" ? parts[1] : ""));
  // What is paused sees nothing: there the log tells that the response is out.
  if (moment === "while it is answered") return;
  const expected = before(cell) + (plan.isAnswered ? 1 : 0);
  if (!(await client.responded(expected, ANSWERED_WITHIN_MS)))
    cell.problems.push("no response before the client acted");
}

/** Notes it if a request that is held is answered: then the cell does not show what it should. */
export function checkHeld(cell: Cell): void {
  if (holdOf(cell.moment) !== null && cell.client.responses.length > 0) cell.problems.push("it did not wait");
}

/** Does to the connection what the cell is about. */
export async function act({ client, action, plan, head, parts, moment }: Cell): Promise<void> {
  const rest = plan.sent === "head" ? parts[0] + parts[1] : plan.sent === "part" ? parts[1] : "";
  const isAtOnce = plan.sent === "nothing";
  if (isAtOnce && action !== "too many bytes") await client.write(head);
  switch (action) {
    case "close":
      client.close();
      break;
    case "reset":
      client.reset();
      break;
    case "half-close":
      client.halfClose();
      break;
    case "malformed chunk":
      await client.write(NONSENSE);
      break;
    case "too many bytes":
      await client.write((isAtOnce ? head + parts[0] + parts[1] : rest) + NONSENSE);
      break;
    case "silence":
      break;
    case "drip":
      client.drip(plan.framing === "none" || plan.sent === "all" ? LATE_HEAD : parts[1], DRIP_EVERY_MS);
  }
  // A silent client does not read either while its response is written.
  if (moment === "while it is answered" && action !== "silence") client.resume();
}

/** Waits for what must come. */
export async function finish(cell: Cell): Promise<void> {
  const { client, plan, problems, action, moment } = cell;
  const { endsWithinMs } = plan;
  if (action === "close" || action === "reset") return;
  if (action === "silence" && moment === "while it is answered") {
    // The end of a connection is seen only by who reads.
    if (endsWithinMs !== null) await delay(UNREAD_MS);
    client.resume();
  }
  if (plan.answer === "must") {
    const count = before(cell) + (plan.isRefused ? 2 : 1);
    await client.responded(count, endsWithinMs ?? ANSWERED_WITHIN_MS);
  }
  if (endsWithinMs !== null && !(await client.ended(endsWithinMs))) {
    problems.push(`still open after ${endsWithinMs / 1_000} s`);
  }
}

/** The response to the cell's own request, if one came. */
export function ownResponse(cell: Cell): ReadResponse | undefined {
  return cell.client.responses[before(cell)];
}

/** The request ids of responses to what is not the cell's own request. */
export function otherIds(cell: Cell): string[] {
  return cell.client.responses
    .filter((response) => response !== ownResponse(cell))
    .map(({ headers }) => headers.get("x-request-id") ?? "");
}

/** Looks at what the client saw, and at what is kept; then lets go of the connection. */
export function checkClient(cell: Cell, { dataDir }: World): void {
  const { client, plan, problems, prepared, action } = cell;
  const own = ownResponse(cell);
  for (const response of client.responses) problems.push(...problemsOf(response));
  if (client.garbled() !== "") problems.push(`no HTTP: ${JSON.stringify(client.garbled())}`);
  if (plan.answer === "must" && own === undefined) problems.push("no response");
  if (own !== undefined && !plan.statuses.includes(own.status))
    problems.push(`answered with ${own.status}: ${own.text}`);
  const refusal = client.responses[before(cell) + 1];
  if (plan.isRefused) {
    if (refusal?.status !== 400) problems.push(`the extra bytes got ${refusal?.status ?? "no response"}`);
    else if (refusal.headers.get("connection") !== "close") problems.push("the refusal does not say that it closes");
  } else if (refusal !== undefined && action !== "drip") problems.push(`a second response: ${refusal.status}`);
  const { objectKey } = prepared;
  const isKept = objectKey !== null && existsSync(rawPathOf(dataDir, objectKey));
  const isWhole = action === "too many bytes" || plan.sent === "all";
  if (isKept && !isWhole) problems.push("the cut-off upload is kept");
  client.close();
}
