import type { Principal } from "../books/principals.ts";
import type { EndedLease, Removals } from "../books/removals.ts";
import type { ConfirmRequest, FoundToConfirm, Upload, Uploads } from "../books/uploads.ts";
import { orAfter } from "../deadline.ts";
import { AppError, invalidField } from "../errors.ts";
import { createGate } from "../gate.ts";
import type { Log } from "../log.ts";
import { type ObjectStat, type ObjectStore, type Sealing, StoreError } from "../store/objects.ts";
import { createScriptCounts, isCounted, type ScriptCounts } from "./script_counts.ts";
import type { StoreGuard } from "./store_guard.ts";

/** Time beyond the copy itself for the two transactions and for reading the file: 30 s and 1 s for every 10 MB. */
const LEASE_EXTRA_MS = 30_000;
const LEASE_BYTES_PER_MS = 10_000;
/** How long a confirm waits for its turn. Clients give up after about 30 s, and the store may need 10 of them. */
const TURN_MS_MAX = 10_000;

export interface ConfirmParts {
  uploads: Pick<
    Uploads,
    "checkMayConfirm" | "findToConfirm" | "checkRoom" | "reserveFinalKey" | "settleConfirm" | "settleSealed"
  >;
  removals: Pick<Removals, "endLease">;
  objects: ObjectStore;
  guard: Pick<StoreGuard, "admitConfirm">;
  maxUploadBytes: number;
  now: () => number;
  log: Log;
  /** How long a confirm of this size may take before its object counts as abandoned. */
  leaseMs?: (sizeBytes: number) => number;
}

/**
 * Confirms an upload and resolves with it. An upload that is confirmed already is returned as it is, whatever the context.
 *
 * Throws
 * - as `Uploads.findToConfirm`, even if the right was lost only while the object was copied;
 * - `validation_error`: nothing was PUT, or not as many bytes as were stated;
 * - `payload_too_large`: more bytes were PUT than the server accepts;
 * - `storage_limit_exceeded`: the quota has no room; nothing is charged, and the upload stays pending;
 * - `insufficient_storage`: the object had to be copied, and the disk has no room; the upload stays pending;
 * - `storage_unavailable`: the store failed, or is not the one with our objects, or there was no turn in time.
 */
export type Confirm = (principal: Principal, request: ConfirmRequest) => Promise<Upload>;

type Pending = Extract<FoundToConfirm, { isConfirmed: false }>;

/**
 * A confirm is the one operation in which the books and the store meet.
 *
 * The staged object is copied to a final key, and only then is the row charged and pointed to it (NO-GHOST). The final key
 * stands in the outbox while it is copied, so a crash at any point leaves at worst an entry there (NO-ORPHAN). If the store
 * can seal the staged object there is no copy: one transaction checks that the object is still the same, charges it, and
 * shuts out every later PUT, because those need a pending row.
 */
export function createConfirm(parts: ConfirmParts): Confirm {
  const { uploads, objects, guard, maxUploadBytes } = parts;
  const { sealing } = objects;
  const inTurn = createUploadTurns();
  const copyTurn = createGate({
    places: objects.promotesAtOnceMax,
    waitMsMax: TURN_MS_MAX,
    refusal: "Too many files are being confirmed at the moment: retry",
  });
  const scripts = createScriptCounts(objects, {
    waitMsMax: TURN_MS_MAX,
    refusal: "Too many scripts are being confirmed at the moment: retry",
  });
  const copyAndSettle = createCopies(parts, scripts);

  async function confirm(principal: Principal, request: ConfirmRequest): Promise<Upload> {
    return await inTurn(request.uploadId, {
      // A wait must not tell strangers that the upload is being confirmed (NO-LEAK). The context is checked in the turn:
      // if the confirm that has it succeeds, no context matters any more.
      checkMayWait: () => uploads.checkMayConfirm(principal, request),
      async work() {
        const present = await uploads.findToConfirm(principal, request);
        return present.isConfirmed ? present.upload : await confirmPending(principal, request, present);
      },
    });
  }

  async function confirmPending(principal: Principal, request: ConfirmRequest, pending: Pending): Promise<Upload> {
    try {
      return await attempt(principal, request, pending);
    } catch (error) {
      // The row decides, whatever failed: confirmed meanwhile is a success, deleted meanwhile is a 404.
      const present = await uploads.findToConfirm(principal, request);
      if (present.isConfirmed) return present.upload;
      throw error instanceof StoreError ? storeProblem(error) : error;
    }
  }

  async function attempt(principal: Principal, request: ConfirmRequest, pending: Pending): Promise<Upload> {
    const { upload, workspaceId } = pending;
    await guard.admitConfirm();
    const staged = await objects.stat(upload.objectKey);
    if (staged === null) throw nothingStaged();
    if (upload.statedSizeBytes !== null && upload.statedSizeBytes !== staged.sizeBytes) {
      throw otherSize(staged.sizeBytes, upload.statedSizeBytes);
    }
    if (staged.sizeBytes > maxUploadBytes) throw tooLarge(staged.sizeBytes, maxUploadBytes);
    // Before any wait: a caller who is over the quota must not get a 503, which says that a retry may succeed. The charge
    // itself decides.
    await uploads.checkRoom(workspaceId, staged.sizeBytes);

    // All waiting comes before the lease, because the lease runs out. A script waits for its own turn first, so that waiting
    // scripts hold no connection to the store.
    const settle =
      sealing?.canSeal(upload.objectKey) === true
        ? () => sealAndSettle(sealing, { principal, request, pending, staged })
        : () => copyTurn(workspaceId, () => copyAndSettle(principal, request, pending, staged));
    return isCounted(upload) ? await scripts.inTurn(staged.sizeBytes, workspaceId, settle) : await settle();
  }

  /** Counts and charges the staged object in place. */
  async function sealAndSettle({ seal }: Sealing, { principal, request, pending, staged }: Attempt): Promise<Upload> {
    const { objectKey, workspaceId, userId } = pending.upload;
    // A PUT may replace the object while it is counted: then it cannot be sealed as the one that was stat'ed.
    const counts = isCounted(pending.upload) ? await scripts.count(objectKey, staged, workspaceId ?? userId) : null;
    const { checksumSha256 = null } = staged;
    const object = { ...staged, checksumSha256, counts, seal: () => seal(objectKey, staged) };
    return await uploads.settleSealed(principal, request, object);
  }

  return confirm;
}

interface Attempt {
  principal: Principal;
  request: ConfirmRequest;
  pending: Pending;
  /** The staged object as it was stat'ed. */
  staged: ObjectStat;
}

/** Reserves a final key, copies the object to it, and charges it; or ends the lease. */
function createCopies(parts: ConfirmParts, scripts: ScriptCounts) {
  const { uploads, removals, objects, now, log } = parts;
  const { leaseMs = leaseMsOf(objects) } = parts;

  async function copyAndSettle(
    principal: Principal,
    request: ConfirmRequest,
    { upload, workspaceId }: Pending,
    source: ObjectStat,
  ): Promise<Upload> {
    const { uploadId, objectKey, contentType } = upload;
    const { sizeBytes } = source;
    const finalKey = await uploads.reserveFinalKey(uploadId, { workspaceId, sizeBytes, leaseMs: leaseMs(sizeBytes) });
    let mayLandLate = false;
    try {
      const object = await objects.promote(objectKey, finalKey, { source, contentType }).catch((error) => {
        mayLandLate = !(error instanceof StoreError && error.isRefusal);
        throw error;
      });
      const counts = isCounted(upload)
        ? await scripts.count(finalKey, object, upload.workspaceId ?? upload.userId)
        : null;
      // The staged object's checksum: the promoted object is exactly that one.
      const { checksumSha256 = null } = source;
      return await uploads.settleConfirm(principal, request, { ...object, finalKey, checksumSha256, counts });
    } catch (error) {
      await endLease(finalKey, { uploadId, sizeBytes, nowMs: now(), mayLandLate });
      throw error;
    }
  }

  /** Saves time only: if it fails, the lease runs out by itself. */
  async function endLease(finalKey: string, ended: EndedLease): Promise<void> {
    try {
      await removals.endLease(finalKey, ended);
    } catch (error) {
      log.warn("lease_not_ended", { error });
    }
  }

  return copyAndSettle;
}

function leaseMsOf(objects: ObjectStore): (sizeBytes: number) => number {
  return (sizeBytes) => objects.promoteMsMax(sizeBytes) + LEASE_EXTRA_MS + Math.ceil(sizeBytes / LEASE_BYTES_PER_MS);
}

interface Turn<T> {
  /** Called before a wait, if there is one. Throws if this caller may not know of the other confirm. */
  checkMayWait: () => Promise<void>;
  work: () => Promise<T>;
}

/** Lets one confirm of each upload work at a time: two at once would both copy, and the second then finds it done. */
function createUploadTurns() {
  // Each confirm waits for the one before it. If all waited for the first, its end would wake all of them.
  const lastTurns = new Map<string, Promise<void>>();

  return async function inTurn<T>(uploadId: string, { checkMayWait, work }: Turn<T>): Promise<T> {
    if (lastTurns.has(uploadId)) await checkMayWait();
    const before = lastTurns.get(uploadId);
    const { promise: done, resolve: end } = Promise.withResolvers<void>();
    // A confirm that gives up waiting does not let the next one through.
    const last = before === undefined ? done : before.then(() => done);
    lastTurns.set(uploadId, last);
    void last.then(() => {
      if (lastTurns.get(uploadId) === last) lastTurns.delete(uploadId);
    });
    try {
      if (before !== undefined) {
        await orAfter(TURN_MS_MAX, before, () => {
          throw beingConfirmed();
        });
      }
      return await work();
    } finally {
      end();
    }
  };
}

function beingConfirmed(): AppError {
  return new AppError("storage_unavailable", "This upload is being confirmed at the moment: retry", {
    retryAfterSeconds: 5,
  });
}

function nothingStaged(): AppError {
  return invalidField("upload_id", "nothing was uploaded yet: PUT the file to its upload_url, then confirm again");
}

/** Some servers keep the part of a broken PUT that arrived, whatever length it announced. */
function otherSize(sizeBytes: number, statedSizeBytes: number): AppError {
  const arrived =
    sizeBytes < statedSizeBytes
      ? `${sizeBytes} of ${statedSizeBytes} bytes arrived: PUT it again`
      : `${sizeBytes} bytes arrived, more than the ${statedSizeBytes} that were stated: PUT the right file`;
  return invalidField(
    "upload_id",
    `${arrived} to its upload_url, then confirm again. If that URL has expired, create a new upload`,
  );
}

function tooLarge(sizeBytes: number, maxUploadBytes: number): AppError {
  return new AppError(
    "payload_too_large",
    `Cannot confirm a file of ${sizeBytes} bytes: at most ${maxUploadBytes} are allowed. Delete the upload and create one for a smaller file`,
  );
}

/** Turns a store's failure into the error that the caller of a confirm gets. */
function storeProblem(error: StoreError): AppError {
  if (error.failure === "absent" || error.failure === "changed") {
    return new AppError("storage_unavailable", "The uploaded file changed while it was being confirmed: retry", {
      retryAfterSeconds: 1,
      cause: error,
    });
  }
  if (error.failure === "full") {
    return new AppError(
      "insufficient_storage",
      "Cannot confirm the upload: the server's disk is too full for it. Try again later, or ask its administrator to make room",
      { cause: error },
    );
  }
  return new AppError("storage_unavailable", "The object store cannot be used at the moment: retry", {
    retryAfterSeconds: 5,
    cause: error,
  });
}
