import type { Contexts, ContextType } from "../core/contexts.ts";
import type { Idempotency, RepeatableRequest } from "../core/idempotency.ts";
import { PERMISSIONS } from "../core/permissions.ts";
import type { Principal } from "../core/principals.ts";
import type { EndedLease, Removals } from "../core/removals.ts";
import type { Rights } from "../core/rights.ts";
import { countText, type TextCounts } from "../core/text_counts.ts";
import type { Upload, Uploads } from "../core/uploads.ts";
import type { Workspaces } from "../core/workspaces.ts";
import { orAfter } from "../deadline.ts";
import { AppError, invalidField } from "../errors.ts";
import { createGate, type Gate } from "../gate.ts";
import type { Log } from "../log.ts";
import { giveWay } from "../pacer.ts";
import { type ObjectStat, type ObjectStore, StoreError } from "../store/objects.ts";
import type { StoreGuard } from "./store_guard.ts";

/** Time beyond the copy itself for the two transactions and for reading the file: 30 s and 1 s for every 10 MB. */
const LEASE_EXTRA_MS = 30_000;
const LEASE_BYTES_PER_MS = 10_000;
/** How long a confirm waits for its turn. Clients give up after some 30 s, and the look before it may have taken 10. */
const TURN_MS_MAX = 10_000;
/** A text that is longer is counted with few others: 1 GiB keeps the process busy for seconds. */
const HUGE_TEXT_BYTES = 4 * 1024 * 1024;
const HUGE_TEXTS_AT_ONCE = 2;
/** What of a text is counted without a break: some 2 ms of work. */
const LONG_TEXT_BYTES = 256 * 1024;
/** Other texts that are counted at once. */
const TEXTS_AT_ONCE = 16;

export interface ConfirmRequest {
  uploadId: string;
  contextType: ContextType;
  contextId: string;
  /** Null where the request came without an Idempotency-Key. */
  repeatable: RepeatableRequest | null;
}

export interface ConfirmParts {
  uploads: Uploads;
  contexts: Contexts;
  workspaces: Workspaces;
  rights: Rights;
  removals: Removals;
  idempotency: Idempotency;
  objects: ObjectStore;
  guard: Pick<StoreGuard, "admitConfirm">;
  maxUploadBytes: number;
  now: () => number;
  log: Log;
  /** How long a confirm of this size may take before its object counts as abandoned. */
  leaseMs?: (sizeBytes: number) => number;
}

/**
 * Confirms uploads: the one operation in which the books and the store meet.
 *
 * The staged object is copied to a final key, and only then is the row charged and pointed to it (NO-GHOST). The final key
 * stands in the outbox while it is copied, so a crash at any point leaves at worst an entry there (NO-ORPHAN).
 */
export function createConfirm(parts: ConfirmParts) {
  const { uploads, contexts, workspaces, rights, removals, idempotency, objects, guard } = parts;
  const { maxUploadBytes, now, log } = parts;
  const leaseMs =
    parts.leaseMs ??
    ((sizeBytes) => objects.promoteMsMax(sizeBytes) + LEASE_EXTRA_MS + Math.ceil(sizeBytes / LEASE_BYTES_PER_MS));
  const copies = gateFor(objects.promotesAtOnceMax, "Too many files are being confirmed at the moment: ask again");
  const tooManyTexts = "Too many scripts are being confirmed at the moment: ask again";
  const texts = gateFor(TEXTS_AT_ONCE, tooManyTexts);
  const hugeTexts = gateFor(HUGE_TEXTS_AT_ONCE, tooManyTexts);
  /**
   * For each upload the end of its last attempt. Two at once would copy twice to no use: the later waits and finds it done.
   * Each waits for the one before: if all waited for the first, each end would wake them all.
   */
  const attempts = new Map<string, Promise<void>>();

  /**
   * Confirms an upload and resolves with it; one that is confirmed already is returned as it is, whatever the context.
   *
   * Throws `not_found` (upload or context) and `forbidden` (a session's role), both also if the right was lost while the copy
   * was made; `invalid_api_key` if the key was revoked or has expired meanwhile; `validation_error` (nothing was PUT, or not
   * as many bytes as were stated, or an Idempotency-Key that came with another request), `payload_too_large`,
   * `storage_limit_exceeded` (nothing is charged and the upload stays pending), `storage_unavailable` (the store failed or is
   * not the one with our objects, or there was no turn in time).
   */
  async function confirm(principal: Principal, request: ConfirmRequest): Promise<Upload> {
    const { uploadId, repeatable } = request;
    // Asked before anything is copied; asked again in the transaction that confirms.
    if (repeatable !== null) idempotency.find(repeatable);
    const before = attempts.get(uploadId);
    // Someone who cannot see the upload must not learn from the wait that it is being confirmed (NO-LEAK).
    if (before !== undefined) uploads.findToChange(principal, uploadId);
    const { promise: done, resolve: end } = Promise.withResolvers<void>();
    // One that gives up waiting does not let the next one through.
    const last = before === undefined ? done : before.then(() => done);
    attempts.set(uploadId, last);
    void last.then(() => {
      if (attempts.get(uploadId) === last) attempts.delete(uploadId);
    });
    try {
      if (before !== undefined) {
        await orAfter(TURN_MS_MAX, before, () => {
          throw beingConfirmed();
        });
      }
      return await confirmAlone(principal, request);
    } finally {
      end();
    }
  }

  async function confirmAlone(principal: Principal, request: ConfirmRequest): Promise<Upload> {
    // It may have waited for another attempt.
    rights.checkIfStale(principal, PERMISSIONS.confirmUpload);
    const upload = uploads.findToChange(principal, request.uploadId);
    if (upload.status === "uploaded") return noted(upload, request);
    try {
      return await attemptConfirm(principal, request, upload);
    } catch (error) {
      // Whatever failed, the row tells what is true: confirmed meanwhile is a success, deleted meanwhile a 404.
      const present = findStill(principal, request);
      if (present.status === "uploaded") return await noted(present, request);
      throw error instanceof StoreError ? storeProblem(error) : error;
    }
  }

  /** The upload, as long as the caller may confirm it. Throws as `Rights.check` does, and `not_found`. */
  function findStill(principal: Principal, { uploadId }: ConfirmRequest): Upload {
    rights.check(principal, PERMISSIONS.confirmUpload);
    return uploads.findToChange(principal, uploadId);
  }

  /** The workspace that is charged. Throws `not_found`, `forbidden`. */
  function bindingOf(
    principal: Principal,
    { contextType, contextId }: ConfirmRequest,
    { workspaceId }: Upload,
  ): string {
    return contexts.workspaceToBind(principal, { contextType, contextId, uploadWorkspaceId: workspaceId });
  }

  /** A success without a change: its key is taken all the same. */
  async function noted(upload: Upload, { repeatable }: ConfirmRequest): Promise<Upload> {
    if (repeatable !== null) await idempotency.note(repeatable, upload.uploadId);
    return upload;
  }

  async function attemptConfirm(principal: Principal, request: ConfirmRequest, upload: Upload): Promise<Upload> {
    const workspaceId = bindingOf(principal, request, upload);
    await guard.admitConfirm();
    const source = await objects.stat(upload.objectKey);
    if (source === null) throw notPut();
    if (upload.statedSizeBytes !== null && upload.statedSizeBytes !== source.sizeBytes) {
      throw otherSize(source.sizeBytes, upload.statedSizeBytes);
    }
    if (source.sizeBytes > maxUploadBytes) throw tooLarge(source.sizeBytes, maxUploadBytes);
    // Asked before anything is copied; the schema asks again inside the transaction.
    workspaces.checkRoom(workspaceId, source.sizeBytes);

    // Whoever waits, waits before the lease is taken: its time runs. The text's turn comes first, because those who wait
    // for it must not hold a connection.
    const copyInTurn = () =>
      copies(workspaceId, () => copyAndSettle(principal, request, { upload, workspaceId, source }));
    if (!isCounted(upload)) return await copyInTurn();
    return await (source.sizeBytes > HUGE_TEXT_BYTES ? hugeTexts : texts)(workspaceId, copyInTurn);
  }

  async function copyAndSettle(
    principal: Principal,
    request: ConfirmRequest,
    { upload, workspaceId, source }: { upload: Upload; workspaceId: string; source: ObjectStat },
  ): Promise<Upload> {
    const { uploadId, contextType, contextId } = request;
    const finalKey = await uploads.reserveFinalKey(uploadId, {
      sizeBytes: source.sizeBytes,
      leaseMs: leaseMs(source.sizeBytes),
    });
    let mayLandLate = false;
    try {
      const object = await objects
        .promote(upload.objectKey, finalKey, { source, contentType: upload.contentType })
        .catch((error) => {
          mayLandLate = !(error instanceof StoreError && error.isRefusal);
          throw error;
        });
      const counts = await countsOf(upload, finalKey, object);
      return await uploads.settleConfirm(
        { uploadId, workspaceId, contextType, contextId, finalKey, object, counts },
        {
          request: request.repeatable,
          // The copy may have taken minutes: who has lost the right meanwhile charges nothing to anyone.
          checkRights: () => void bindingOf(principal, request, findStill(principal, request)),
        },
      );
    } catch (error) {
      await endLease(finalKey, { uploadId, sizeBytes: source.sizeBytes, mayLandLate });
      throw error;
    }
  }

  /** Counted from the final object, which no PUT can change any more. Null for all but scripts in plain text. */
  async function countsOf(upload: Upload, finalKey: string, object: ObjectStat): Promise<TextCounts | null> {
    if (!isCounted(upload)) return null;
    if (object.sizeBytes === 0) return { charCount: 0, lineCount: 0 };
    return countText(
      wholeBody(await objects.read(finalKey), {
        ownerId: upload.workspaceId ?? upload.userId,
        sizeBytes: object.sizeBytes,
      }),
    );
  }

  /** Only a hint: where it fails, the lease ends by itself. */
  async function endLease(finalKey: string, ended: EndedLease): Promise<void> {
    try {
      await removals.endLease(finalKey, { ...ended, nowMs: now() });
    } catch (error) {
      log.warn("lease_not_ended", { error });
    }
  }

  return confirm;
}

function gateFor(places: number, refusal: string): Gate {
  return createGate({ places, waitMsMax: TURN_MS_MAX, refusal });
}

function isCounted({ category, format }: Upload): boolean {
  return category === "script" && format === "txt";
}

/**
 * The bytes as they come, of a long text a bit in each turn of the event loop; rejects at their end if they are fewer or
 * more than were charged, so that no part is counted as the whole.
 */
async function* wholeBody(
  bytes: AsyncIterable<Uint8Array>,
  { ownerId, sizeBytes }: { ownerId: string; sizeBytes: number },
): AsyncGenerator<Uint8Array> {
  let cameBytes = 0;
  for await (const chunk of bytes) {
    if (cameBytes >= LONG_TEXT_BYTES) await giveWay(ownerId);
    cameBytes += chunk.length;
    yield chunk;
  }
  if (cameBytes !== sizeBytes) {
    throw new StoreError("unavailable", `Cannot read the object: ${cameBytes} of ${sizeBytes} bytes came`);
  }
}

function beingConfirmed(): AppError {
  return new AppError("storage_unavailable", "This upload is being confirmed at the moment: ask again", {
    retryAfterSeconds: 5,
  });
}

function notPut(): AppError {
  return invalidField("upload_id", "nothing was uploaded yet: PUT the file to its upload_url, then confirm again");
}

/** Some servers keep what came of a PUT that was cut on its way, whatever length it announced. */
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

/** What a store's failure means for someone who confirms. */
function storeProblem(error: StoreError): AppError {
  if (error.failure === "absent" || error.failure === "changed") {
    return new AppError("storage_unavailable", "The uploaded file changed while it was confirmed: ask again", {
      retryAfterSeconds: 1,
      cause: error,
    });
  }
  return new AppError("storage_unavailable", "The object store cannot be used at the moment: ask again", {
    retryAfterSeconds: 5,
    cause: error,
  });
}
