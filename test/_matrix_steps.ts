import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { StoreError } from "../lib/store/objects.ts";
import { rawPathOf } from "./_books.ts";
import type { FaultMatch } from "./_fault_proxy.ts";
import { DAY_MS } from "./_faulty_app.ts";
import type { CallName } from "./_matrix_hooks.ts";
import type { Rig } from "./_matrix_rig.ts";
import { installationOf } from "./_raw_store.ts";

export const COPY: FaultMatch = { method: "PUT", header: ["x-amz-copy-source", /./] };
const TEXT = "one line\nand another\n".repeat(20);
export const TEXT_COUNTS = { chars: 20 * 19, lines: 20 * 2 };
/** More than a page of a listing has. */
const PAGED_OBJECTS = 1_100;

/** What was prepared for a call to go wrong. */
export interface Scene {
  /** A staged upload that is to be confirmed. */
  confirmId?: string;
  /** Confirmed uploads: to be deleted, or deleted already so that the cleaner has their objects to remove. */
  deleteIds: string[];
  /** Objects in staging that nothing names. */
  lateKeys: string[];
  /** Nothing may ever happen to this one. */
  bystanderId: string;
}

export interface Step {
  name: string;
  /** The store's method, and on S3 the request that it makes. */
  call: CallName;
  match: FaultMatch;
  /** What someone does that comes to this call. */
  action: "confirm" | "delete" | "clean" | "look";
  prepare: (rig: Rig, options: { paged: boolean }) => Promise<Scene>;
}

async function confirmScene(rig: Rig): Promise<Scene> {
  const scene = await bystander(rig);
  const { id, uploadUrl } = await rig.its.createUpload({ filename: "a.txt", category: "script" });
  assert.equal((await rig.its.put(uploadUrl, TEXT)).status, 200);
  await rig.its.app.cleaner.runOnce();
  return { ...scene, confirmId: id };
}

/** Confirmed uploads whose staging objects are gone already. */
async function confirmed(rig: Rig, count: number): Promise<Scene> {
  const scene = await bystander(rig);
  for (let i = 0; i < count; i++) scene.deleteIds.push((await rig.its.confirmedUpload(`upload ${i}`)).id);
  await rig.its.app.cleaner.runOnce();
  return scene;
}

async function deleted(rig: Rig, scene: Scene): Promise<Scene> {
  for (const id of scene.deleteIds) assert.equal((await rig.its.call("DELETE", `/api/v1/uploads/${id}`)).status, 200);
  return scene;
}

/** A minute after the marker was last written: the cleaner compares it and writes it anew. A start does so as well. */
async function markerScene(rig: Rig): Promise<Scene> {
  const scene = await bystander(rig);
  scene.deleteIds.push((await rig.its.confirmedUpload("upload")).id);
  await deleted(rig, scene);
  rig.its.clock.advance(60_000);
  return scene;
}

async function lateScene(rig: Rig, { paged }: { paged: boolean }): Promise<Scene> {
  const { its, s3, dataDir } = rig;
  const scene = await confirmed(rig, 0);
  for (let i = 0; i < (paged ? PAGED_OBJECTS : 3); i++) {
    scene.lateKeys.push(`staging/${installationOf(its.sql)}/${randomUUID()}/${randomBytes(16).toString("hex")}`);
  }
  const waiting = scene.lateKeys.values();
  const putEach = async (): Promise<void> => {
    for (const key of waiting) {
      if (s3 !== null) await s3.bucket.put(key, "late");
      else {
        await mkdir(dirname(rawPathOf(dataDir, key)), { recursive: true });
        await writeFile(rawPathOf(dataDir, key), "late");
      }
    }
  };
  await Promise.all(Array.from({ length: 8 }, putEach));
  its.clock.advance(2 * DAY_MS);
  return scene;
}

async function bystander({ its }: Rig): Promise<Scene> {
  const { id } = await its.confirmedUpload("bystander");
  return { deleteIds: [], lateKeys: [], bystanderId: id };
}

/** Every call of confirm, delete and cleaner to the store. */
export const STEPS: readonly Step[] = [
  {
    ...{ name: "confirm: look", call: "stat", action: "confirm", prepare: confirmScene },
    match: { method: "HEAD", path: /\/staging\// },
  },
  { name: "confirm: copy", call: "promote", action: "confirm", match: COPY, prepare: confirmScene },
  {
    ...{ name: "confirm: look at the copy", call: "promote", action: "confirm" },
    match: { method: "HEAD", path: /\/final\// },
    async prepare(rig) {
      const scene = await confirmScene(rig);
      // Some servers name no ETag in the answer to a copy; these do, so it is taken away.
      rig.s3?.proxy.setFault({
        ...{ kind: "rewrite", match: COPY },
        change: ({ headers: { etag: _, ...headers }, status, body }) => ({
          ...{ status, headers },
          body: Buffer.from(body.toString().replace(/<ETag>.*?<\/ETag>/s, "")),
        }),
      });
      return scene;
    },
  },
  {
    ...{ name: "confirm: read", call: "read", action: "confirm", prepare: confirmScene },
    match: { method: "GET", path: /\/final\/[^/]+\/[^/]+\/[0-9a-f]{32}$/ },
  },
  { name: "delete", call: "remove", action: "delete", match: {}, prepare: (rig) => confirmed(rig, 3) },
  {
    ...{ name: "cleaner: single delete", call: "remove", action: "clean", match: { method: "DELETE" } },
    prepare: async (rig) => deleted(rig, await confirmed(rig, 1)),
  },
  {
    ...{ name: "cleaner: multi-delete", call: "remove", action: "clean" },
    match: { method: "POST", query: /^delete/ },
    prepare: async (rig) => deleted(rig, await confirmed(rig, 3)),
  },
  {
    ...{ name: "cleaner: listing", call: "list", action: "look", prepare: lateScene },
    match: { method: "GET", query: /list-type=2.*max-keys=1000/ },
  },
  {
    ...{ name: "cleaner: read the marker", call: "readMarker", action: "clean", prepare: markerScene },
    match: { method: "GET", path: /ledger-marker$/ },
  },
  {
    ...{ name: "cleaner: write the marker", call: "writeMarker", action: "clean", prepare: markerScene },
    match: { method: "PUT", path: /ledger-marker$/ },
  },
];

/** Does what comes to the step's call, and tells in a word or two what came of it. */
export async function act({ its }: Rig, { action }: Step, scene: Scene): Promise<string> {
  const { cleaner } = its.app;
  switch (action) {
    case "confirm":
      return String((await its.confirm(scene.confirmId ?? assert.fail())).status);
    case "delete": {
      const answers = await Promise.all(scene.deleteIds.map((id) => its.call("DELETE", `/api/v1/uploads/${id}`)));
      return [...new Set(answers.map(({ status }) => status))].join(" ");
    }
    case "clean": {
      const { removed, failed } = await cleaner.runOnce();
      if (failed > 0) return removed > 0 ? "part" : "refused";
      const burnt = its.sql.prepare("SELECT object_key FROM object_removals WHERE attempts > 0").all();
      assert.deepEqual(burnt, [], "no attempt is burnt");
      return removed > 0 ? "removed" : "waits";
    }
    case "look":
      try {
        return `found ${await cleaner.lookForLateArrivals()}`;
      } catch (error) {
        assert.ok(error instanceof StoreError, String(error));
        return "waits";
      }
  }
}
