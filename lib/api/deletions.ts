import type { Deletion, WaitingObject, WaitReason } from "../books/deletions.ts";
import { PERMISSIONS } from "../books/permissions.ts";
import { type Route, route } from "../http/route.ts";
import { timestamp } from "../timestamp.ts";
import type { RouteParts } from "./table.ts";
import { UploadParams } from "./wire/common.ts";

/** Fixed texts, because the store's own errors may name hosts, buckets and keys, which tenants must not see. */
const REASONS: Record<WaitReason, string> = {
  queued: "it is to be removed next",
  taken: "it is being removed at this moment",
  failed: "the last attempt to remove it failed; it is tried again",
  store_unavailable: "the store could not be used when it was to be removed; it is tried again",
  cut_off: "the service stopped while it was being removed; it is tried again",
  leased: "a confirm may still be copying to it; it is removed when that must have ended",
  again: "it was removed; whatever may still arrive in its place, as by its upload URL, is removed at this time",
};
const PAUSED = "nothing is removed at present: the operator of this service has to decide something first";

/** The reasons that are no errors, only a matter of time. */
const NO_ERRORS: readonly WaitReason[] = ["queued", "taken", "leased", "again"];

/** The proof of a deletion: when it was made, how many bytes it returned, and whether the objects are gone. */
export function deletionRoutes({ books, cleaner }: RouteParts): Route[] {
  return [
    route({
      method: "GET",
      path: "/api/v1/uploads/:upload_id/deletion",
      summary: "Show a deletion: when the upload was deleted and its object removed, or what that waits for",
      // Everybody who could delete the upload may see this.
      access: PERMISSIONS.deleteUpload,
      params: UploadParams,
      async handle({ principal, params, nowMs }) {
        const deletion = await books.deletions.find(principal, params.upload_id, nowMs);
        return { data: present(deletion, cleaner.pauseReason() !== null) };
      },
    }),
  ];
}

function present(deletion: Deletion, isPaused: boolean): Record<string, unknown> {
  const { uploadId, deletedAtMs, bytesReleased, removedAtMs, attempts, waiting } = deletion;
  const failed = waiting.find(({ reason }) => !NO_ERRORS.includes(reason));
  return {
    upload_id: uploadId,
    deleted_at: timestamp(deletedAtMs),
    bytes_released: bytesReleased,
    status: waiting.length === 0 ? "removed" : "waiting",
    object_removed_at: removedAtMs === null ? null : timestamp(removedAtMs),
    attempts,
    last_error: failed === undefined ? null : REASONS[failed.reason],
    waiting_for: waiting.map((object) => presentWaiting(object, isPaused)),
  };
}

function presentWaiting({ place, reason, nextAttemptAtMs }: WaitingObject, isPaused: boolean): Record<string, unknown> {
  return {
    object: place === "final" ? "file" : "staged_file",
    reason: isPaused ? PAUSED : REASONS[reason],
    next_attempt_at: isPaused ? null : timestamp(nextAttemptAtMs),
  };
}
