import assert from "node:assert/strict";
import type { Answer } from "./_app.ts";
import { type FaultyApp, LEASE_MS } from "./_faulty_app.ts";
import { noAnswer, type StoreCall } from "./_faulty_store.ts";
import type { Model, ModelUpload, ModelWorkspace } from "./_model.ts";
import type { Random } from "./_random.ts";
import { IS_S3 } from "./_test_store.ts";

export const MAX_UPLOAD_BYTES = 3_000;
export const PENDING_UPLOADS_MAX = 20;
export const URL_TTL_SECONDS = 900;
export const PENDING_TTL_SECONDS = 86_400;

export interface Context {
  body: { context_type: string; context_id: string };
  /** Whether the workspace can bind an upload to it. */
  isKnown: boolean;
}

export interface WorldParts {
  its: FaultyApp;
  model: Model;
  random: Random;
}

export type World = ReturnType<typeof createWorld>;

/** The service, the model, and what the model says that an answer must be where nothing races it. */
export function createWorld(parts: WorldParts) {
  const { its, model, random } = parts;
  const { call, clock, hooks } = its;
  const { workspaces } = model;

  /** The calls that failed, by the fault of this step. */
  let failed: StoreCall[] = [];

  const anyWorkspace = (): ModelWorkspace => random.pick(workspaces) ?? assert.fail();
  const anyPending = () => random.pick(model.all().filter(({ status }) => status === "pending"));
  /** One that is there, or now and then one that is gone. */
  const anyUpload = () => random.pick(random.percent(8) ? model.graves : model.all());

  /** Lets one call of the store fail in this step, now and then: before its work, or after it. */
  function drawFault({ names, chance }: { names: readonly StoreCall["name"][]; chance: number }): void {
    failed = [];
    its.heal();
    hooks.before = noteReserved;
    if (!random.percent(chance)) return;
    const name = random.pick(names);
    let isLeft = true;
    const fault = (called: StoreCall) => {
      if (!isLeft || called.name !== name) return;
      isLeft = false;
      failed.push(called);
      throw noAnswer();
    };
    if (name === "remove" && random.percent(50)) {
      hooks.refuse = (keys) => new Map(keys.filter(() => random.percent(50)).map((key) => [key, "refused"]));
    } else if (random.percent(50)) hooks.after = fault;
    else
      hooks.before = (called) => {
        noteReserved(called);
        fault(called);
      };
  }

  /** A confirm that comes as far as the copy has raised its row's expiry. */
  function noteReserved({ name, keys }: StoreCall): void {
    if (name !== "promote") return;
    const upload = model.uploads.get(keys[0]?.split("/")[2] ?? "");
    if (upload !== undefined) upload.expiresAtMs = Math.max(upload.expiresAtMs, clock.now() + 2 * LEASE_MS);
  }

  /** Whether the fault of this step hit the upload's confirm. */
  const hasFailed = ({ id }: ModelUpload) =>
    failed.some(({ name, keys }) => name !== "remove" && keys.some((key) => key.includes(id)));

  function sizeOf(upload: ModelUpload | null): number {
    if (upload?.statedSizeBytes != null && random.percent(85)) return upload.statedSizeBytes;
    return random.percent(10) ? random.integer(0, 1) : random.integer(0, MAX_UPLOAD_BYTES + 100);
  }

  /** What a PUT of so many bytes gets, as far as nothing races it. */
  function putStatus(upload: ModelUpload, sizeBytes: number): number {
    // S3 knows no uploads and no most bytes, only what is signed.
    if (IS_S3) return upload.statedSizeBytes !== null && sizeBytes !== upload.statedSizeBytes ? 403 : 200;
    if (upload.urlExpiresAtMs <= clock.now()) return 403;
    if (model.uploads.get(upload.id)?.status !== "pending") return 404;
    if (sizeBytes > (upload.statedSizeBytes ?? MAX_UPLOAD_BYTES)) return 413;
    return upload.statedSizeBytes !== null && sizeBytes !== upload.statedSizeBytes ? 400 : 200;
  }

  function context({ owner, workflows, deletedWorkflows }: ModelWorkspace): Context {
    const its = (context_type: string, context_id: string, isKnown: boolean) => ({
      body: { context_type, context_id },
      isKnown,
    });
    const kind = random.integer(1, 10);
    const workflow = random.pick(workflows);
    const gone = random.pick(deletedWorkflows);
    if (kind <= 3 && workflow !== undefined) return its("workflow", workflow, true);
    if (kind === 4 && gone !== undefined) return its("workflow", gone, false);
    if (kind === 5) {
      const foreign = random.pick(workspaces.filter((other) => other.owner !== owner).flatMap((w) => w.workflows));
      if (foreign !== undefined) return its("workflow", foreign, false);
    }
    return its(kind <= 7 ? "workspace" : "playground", owner.workspaceId, true);
  }

  /** The context that every workspace has. */
  const ownContext = ({ owner }: ModelWorkspace): Context => ({
    body: { context_type: "workspace", context_id: owner.workspaceId },
    isKnown: true,
  });

  const sendConfirm = ({ id, workspace: { owner } }: ModelUpload, { body }: Context) =>
    call("POST", `/api/v1/uploads/${id}`, { key: owner.key, body });
  const sendDelete = ({ id, workspace: { owner } }: ModelUpload) =>
    call("DELETE", `/api/v1/uploads/${id}`, { key: owner.key });

  /** What a confirm gets, as far as nothing races it and the store does not fail. */
  function confirmStatus(upload: ModelUpload, { isKnown }: Context): number {
    const known = model.uploads.get(upload.id);
    if (known === undefined) return 404;
    if (known.status === "uploaded") return 200;
    if (!isKnown) return 404;
    if (known.bytes === null) return 422;
    if (known.bytes.length > MAX_UPLOAD_BYTES) return 413;
    return model.usedBytes(upload.workspace) + known.bytes.length > upload.workspace.quotaBytes ? 402 : 200;
  }

  /** A fault of the store in a confirm that would have come so far shows as 503, and nothing is changed. */
  function withFault(upload: ModelUpload, status: number): number {
    return upload.status === "pending" && hasFailed(upload) ? 503 : status;
  }

  function book(upload: ModelUpload, answer: Answer): void {
    if (answer.status !== 200) return;
    upload.status = "uploaded";
    assert.equal(answer.json.data.size_bytes, upload.bytes?.length);
  }

  /** Another process has written to the database: what the service remembers of the workspace may be too much. */
  function countAnew({ owner }: ModelWorkspace): void {
    its.app.core.unconfirmed.forget(owner);
  }

  return {
    ...parts,
    countAnew,
    anyWorkspace,
    anyPending,
    anyUpload,
    drawFault,
    noteReserved,
    hasFailed,
    sizeOf,
    putStatus,
    context,
    ownContext,
    sendConfirm,
    sendDelete,
    confirmStatus,
    withFault,
    book,
  };
}

/** Fails, with the answer's text, where it is none of those that may come. */
export function expectStatus(what: string, answer: Answer, expected: readonly number[]): void {
  assert.ok(
    expected.includes(answer.status),
    `${what}: ${answer.status} instead of ${expected.join(" or ")}: ${answer.text}`,
  );
}
