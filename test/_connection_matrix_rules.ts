import type { Hold, Lane } from "./_connection_matrix_lanes.ts";

export const MOMENTS = [
  "after the head",
  "with the head",
  "in the body",
  "while it waits for the database",
  "while it waits for the store",
  "while it is answered",
  "between pipelined requests",
] as const;
export type Moment = (typeof MOMENTS)[number];

/** What a client does that no client should, and at once. */
export const QUICK_ACTIONS = ["close", "reset", "half-close", "malformed chunk", "too many bytes"] as const;
/** What takes until a time-out is over. */
export const SLOW_ACTIONS = ["silence", "drip"] as const;
export const ACTIONS = [...QUICK_ACTIONS, ...SLOW_ACTIONS] as const;
export type Action = (typeof ACTIONS)[number];

/** A client that went away before its response was sent. */
const GONE = 499;
/**
 * A client that closes its side in the middle of a body that is read: either is right. A close looks the same from here, so
 * the response may be left out.
 */
const CUT_BY_FIN = [GONE, 400];
/** An upload that comes too slowly, or not at all. */
const TOO_SLOW = [408, GONE];
/** A connection that has nothing more to say, or whose request was answered early, ends within the linger (2 s) and some. */
const SOON_MS = 6_000;
/** The longest that a time-out takes: that of a head that comes too slowly, which the hooks may not be able to hasten. */
const LONG_MS = 60_000;

/** What is sent before the client does what it does, in what form, and what must come of it. */
export interface Plan {
  /** How the head announces the body. */
  framing: "none" | "length" | "chunked";
  /** How much of the body is sent before. */
  sent: "nothing" | "head" | "part" | "all";
  /** Whether the response is there before the client acts: it waits for it. */
  isAnswered: boolean;
  /** What log and metrics may say. */
  statuses: readonly number[];
  /** Whether the client must get to see the response. */
  answer: "must" | "may";
  /** Whether another response follows, which refuses what came after the request. */
  isRefused: boolean;
  /** Within what time the server must end the connection; null: it need not. */
  endsWithinMs: number | null;
}

export function holdOf(moment: Moment): Hold | null {
  if (moment === "while it waits for the database") return "database";
  return moment === "while it waits for the store" ? "store" : null;
}

/** What a cell does and what must come of it; null if the action cannot meet this request at this moment. */
export function planOf(lane: Lane, moment: Moment, action: Action): Plan | null {
  const hold = holdOf(moment);
  if (hold !== null && !lane.holds.includes(hold)) return null;
  const isDownload = lane.method === "GET" && lane.route === "/objects/*";
  const isHeldPut = hold !== null && lane.reads === "bytes";
  const mustBeWhole = (hold !== null && !isHeldPut) || moment === "while it is answered";
  // A body of chunks has an end only if it is whole, and then nothing of it can be malformed any more.
  if (action === "malformed chunk" && mustBeWhole && (lane.reads !== null || (hold === null && !isDownload)))
    return null;

  const bounds = { framing: framingOf(lane, moment, action, mustBeWhole), sent: sentOf(moment, mustBeWhole) };
  // A request without a body is whole with its head, as is one that is sent to its end by "too many bytes".
  const isWhole = bounds.framing === "none" || (mustBeWhole && bounds.framing === "length");
  const isCut = !isWhole && action !== "too many bytes";
  const isEarly = lane.reads === null && hold === null && moment !== "with the head";
  const isAnswered = isEarly || moment === "while it is answered";
  const isSmall = !(isDownload && moment === "while it is answered");
  const usual: Omit<Plan, "framing" | "sent"> = {
    isAnswered: isAnswered && isSmall,
    statuses: [lane.usual],
    answer: "must",
    isRefused: false,
    endsWithinMs: SOON_MS,
  };
  const changed = ((): Partial<Plan> => {
    switch (action) {
      case "close":
      case "reset": {
        const gone = { answer: "may", endsWithinMs: null } as const;
        if (isCut && lane.reads !== null) return { ...gone, statuses: action === "reset" ? [GONE] : CUT_BY_FIN };
        if (usual.isAnswered) return gone;
        // A close cannot be told from a half-close before something is sent; a reset can, unless both come at once.
        return { ...gone, statuses: action === "reset" && hold !== null ? [GONE] : [lane.usual, GONE] };
      }
      case "half-close":
        return isCut && lane.reads !== null ? { statuses: CUT_BY_FIN, answer: "may" } : {};
      case "malformed chunk":
        if (lane.reads !== null) return { statuses: [400] };
        if (!isSmall) return { statuses: [lane.usual, 400, GONE], answer: "may" };
        return usual.isAnswered ? {} : { statuses: [lane.usual, 400] };
      case "too many bytes":
        return { isRefused: true };
      case "silence":
        if (!isSmall) return { statuses: [lane.usual, 408, GONE], answer: "may", endsWithinMs: LONG_MS };
        if (!isCut) return { endsWithinMs: null };
        return slow(lane);
      case "drip":
        // Bytes after a whole request are the head of the next.
        return isCut ? slow(lane) : { endsWithinMs: LONG_MS };
    }
  })();
  return { ...bounds, ...usual, ...changed };
}

/** What becomes of a body that does not come: it is waited for, but not for long if nobody reads it. */
function slow({ reads }: Lane): Partial<Plan> {
  if (reads === null) return {};
  if (reads === "json") return { statuses: [408], endsWithinMs: LONG_MS };
  return { statuses: TOO_SLOW, answer: "may", endsWithinMs: LONG_MS };
}

function framingOf({ reads }: Lane, moment: Moment, action: Action, mustBeWhole: boolean): Plan["framing"] {
  if (action === "malformed chunk") return "chunked";
  if (reads !== null) return "length";
  // Nobody reads this body: it is sent where something is to happen in the middle of it.
  if (mustBeWhole || action === "too many bytes") return "none";
  return moment === "with the head" && action !== "silence" && action !== "drip" ? "none" : "length";
}

function sentOf(moment: Moment, mustBeWhole: boolean): Plan["sent"] {
  if (mustBeWhole) return "all";
  if (moment === "with the head") return "nothing";
  return moment === "after the head" ? "head" : "part";
}
