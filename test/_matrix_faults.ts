import assert from "node:assert/strict";
import { mkdirSync, renameSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { StoreError } from "../lib/store/objects.ts";
import type { S3StoreTimeouts } from "../lib/store/s3/objects_s3.ts";
import type { CannedAnswer, FaultKind } from "./_fault_proxy.ts";
import { noAnswer } from "./_faulty_store.ts";
import type { CallName } from "./_matrix_hooks.ts";
import { type Rig, soon } from "./_matrix_rig.ts";
import type { Scene, Step } from "./_matrix_steps.ts";

/** For calls that are to run into their time-out; the others have the store's own. */
const SHORT_MS = 700;
export const SHORT: S3StoreTimeouts = { callMs: SHORT_MS, manyMs: SHORT_MS, copyMs: SHORT_MS, readIdleMs: SHORT_MS };
const SKEW_MS = 20 * 60_000;

export interface Begun {
  /** How many calls have met it. */
  hits: () => number;
  /** Everything is as it should be again. */
  heal: () => Promise<void>;
}

export interface CellParts {
  t: TestContext;
  rig: Rig;
  step: Step;
  scene: Scene;
}

type Begin = (parts: CellParts) => Promise<Begun>;

export interface Fault {
  name: string;
  /** Steps that it can meet; all by default. */
  applies?: (step: Step) => boolean;
  timeouts?: S3StoreTimeouts;
  paged?: boolean;
  /** The bucket cannot be looked at while it lasts. */
  isBlinding?: boolean;
  /** SIGKILL of the process while the request (`before`) or the answer (`after`) is held back. */
  kill?: "before" | "after";
  /** Begins it on an S3 store. */
  s3?: Begin;
  /** Begins what comes nearest to it on the embedded store; without it there is no such thing there. */
  disk?: Begin;
}

const isOwnRequest = ({ action }: Step): boolean => action !== "delete";
const LISTING = "cleaner: listing";
const MULTI = "cleaner: multi-delete";
/** Answers with something in them that can be cut. */
const WITH_BODY = ["confirm: copy", "confirm: read", "delete", MULTI, LISTING, "cleaner: read the marker"];

/** The proxy does it to every request of the step. */
function onRequests(fault: FaultKind): Begin {
  return async ({ rig, step }) => {
    const { proxy } = proxied(rig);
    const { hits } = proxy.setFault({ ...fault, match: step.match });
    return { hits, heal: proxy.heal };
  };
}

function errorAnswer(status: number, code: string): Begin {
  const body = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>injected</Message></Error>`;
  return onRequests({ kind: "answer", status, body, headers: { "content-type": "application/xml" } });
}

/** Runs `begin` when the step's call begins; on deletes, which make no call, at once. */
async function atCall({ rig, step }: CellParts, begin: () => void | Promise<void>): Promise<() => number> {
  let hits = 0;
  if (!isOwnRequest(step)) await begin();
  rig.hooks.before = async (name) => {
    if (name !== step.call) return;
    if (hits++ === 0 && isOwnRequest(step)) await begin();
  };
  return () => hits;
}

/** The embedded store's call fails before its work, or after it. */
function onCall(point: "before" | "after", failure: () => StoreError): Begin {
  return async ({ rig, step }) => {
    let hits = 0;
    rig.hooks[point] = (name: CallName) => {
      if (name !== step.call) return;
      hits++;
      throw failure();
    };
    return { hits: () => hits, heal: async () => unhook(rig) };
  };
}

function cutShort(answer: CannedAnswer): CannedAnswer {
  return { ...answer, body: answer.body.subarray(0, Math.floor(answer.body.length / 2)) };
}

export const FAULTS: readonly Fault[] = [
  {
    name: "connection refused",
    async s3(parts) {
      const { proxy } = proxied(parts.rig);
      // The look at a copy is a second request inside of the same call: its connection is reset before it arrives.
      if (parts.step.name === "confirm: look at the copy") return await onCut(parts);
      const hits = await atCall(parts, () => void proxy.setFault({ kind: "refuse" }));
      return { hits, heal: proxy.heal };
    },
  },
  { name: "no answer", timeouts: SHORT, s3: onRequests({ kind: "hang" }) },
  { name: "1 byte a second", timeouts: SHORT, s3: onRequests({ kind: "slow" }) },
  { name: "reset after 50 bytes", s3: onRequests({ kind: "reset", afterBytes: 50 }) },
  { name: "done, answer lost", s3: onRequests({ kind: "drop_response" }), disk: onCall("after", noAnswer) },
  { name: "503 SlowDown", s3: errorAnswer(503, "SlowDown") },
  { name: "500", s3: errorAnswer(500, "InternalError"), disk: onCall("before", noAnswer) },
  {
    ...{ name: "403", s3: errorAnswer(403, "AccessDenied") },
    disk: onCall("before", () => new StoreError("denied", "The store refused")),
  },
  { name: "200, empty", s3: onRequests({ kind: "answer", status: 200, body: "" }) },
  {
    name: "200, HTML",
    s3: onRequests({
      ...{ kind: "answer", status: 200, body: "<html><body><h1>It works</h1></body></html>" },
      headers: { "content-type": "text/html" },
    }),
  },
  {
    ...{ name: "200, body cut short", applies: ({ name }) => WITH_BODY.includes(name) },
    s3: onRequests({ kind: "rewrite", change: cutShort }),
  },
  {
    ...{ name: "one key fails", applies: ({ name }) => name === MULTI },
    async s3(parts) {
      const { proxy, bucket } = proxied(parts.rig);
      const [kept = "", ...others] = dueKeys(parts.rig);
      for (const key of others) await bucket.remove(key);
      const entry = `<Error><Key>${kept}</Key><Code>InternalError</Code><Message>injected</Message></Error>`;
      const { hits } = proxy.setFault({
        ...{ kind: "answer", match: parts.step.match, status: 200, body: `<DeleteResult>${entry}</DeleteResult>` },
      });
      return { hits, heal: proxy.heal };
    },
    async disk({ rig }) {
      let hits = 0;
      rig.hooks.refuse = ([key = ""]) => {
        hits++;
        return new Map([[key, "injected"]]);
      };
      return { hits: () => hits, heal: async () => unhook(rig) };
    },
  },
  {
    name: "clock 20 min ahead",
    isBlinding: true,
    // Nobody can set a clock between the two requests of one call.
    applies: ({ name }) => name !== "confirm: look at the copy",
    async s3(parts) {
      const { timers } = parts.t.mock;
      const hits = await atCall(parts, () => timers.enable({ apis: ["Date"], now: Date.now() + SKEW_MS }));
      return { hits, heal: async () => timers.reset() };
    },
  },
  {
    ...{ name: "listing of two pages", paged: true, applies: ({ name }) => name === LISTING },
    async s3({ rig, step }) {
      const { proxy } = proxied(rig);
      // The first page comes, the second does not.
      const match = { ...step.match, query: /continuation-token=.*list-type=2/ };
      const { hits } = proxy.setFault({ kind: "answer", status: 500, match });
      return { hits, heal: proxy.heal };
    },
  },
  {
    name: "bucket gone for a while",
    isBlinding: true,
    async s3({ rig, step }) {
      const { proxy, bucket } = proxied(rig);
      let restore: () => Promise<void> = async () => {};
      async function bringBack(): Promise<void> {
        // All at once, as a disk that is mounted again: nobody sees it half full.
        proxy.setFault({ kind: "cut" });
        await restore();
        await proxy.heal();
      }
      if (!isOwnRequest(step)) {
        restore = await bucket.vanish();
        return { hits: () => 1, heal: bringBack };
      }
      // Held until the bucket is gone, so that the calls before it find everything.
      const held = proxy.setFault({ kind: "hold", point: "before", match: step.match, times: 1 });
      const gone = soon(held.seen, step.name).then(async () => {
        restore = await bucket.vanish();
        held.release();
      });
      return {
        hits: held.hits,
        async heal() {
          await gone;
          await bringBack();
        },
      };
    },
  },
  {
    ...{ name: "swapped for an empty one", isBlinding: true },
    async s3({ rig }) {
      const { bucket } = proxied(rig);
      const bringBack = await bucket.vanish();
      await bucket.make();
      return await swapped(rig, async () => {
        await bucket.vanish();
        await bringBack();
      });
    },
    async disk({ rig }) {
      const folder = join(rig.dataDir, "objects");
      renameSync(folder, `${folder}.away`);
      mkdirSync(folder);
      return await swapped(rig, async () => {
        // Not recursive: nothing may have been made in it.
        rmdirSync(folder);
        renameSync(`${folder}.away`, folder);
      });
    },
  },
  { name: "killed, answer held", kill: "after" },
  { name: "killed, request held", kill: "before" },
];

/** The store was swapped longer ago than a comparison is good for. Once it is back, a look at it is all that is needed. */
async function swapped({ its }: Rig, undo: () => Promise<void>): Promise<Begun> {
  its.clock.advance(1_001);
  return {
    hits: () => 1,
    async heal() {
      await undo();
      assert.equal(await its.app.guard.isCurrent(), true);
    },
  };
}

async function onCut({ rig, step }: CellParts): Promise<Begun> {
  const { proxy } = proxied(rig);
  const { hits } = proxy.setFault({ kind: "cut", match: step.match });
  return { hits, heal: proxy.heal };
}

function unhook({ hooks }: Rig): void {
  for (const name of ["before", "after", "refuse"] as const) hooks[name] = undefined;
}

function dueKeys({ its }: Rig): string[] {
  return its.sql
    .prepare<[], string>("SELECT object_key FROM object_removals WHERE due_at_ms = 0 ORDER BY seq")
    .pluck()
    .all();
}

function proxied({ s3 }: Rig): NonNullable<Rig["s3"]> {
  if (s3 === null) throw new Error("The embedded store has no proxy");
  return s3;
}
