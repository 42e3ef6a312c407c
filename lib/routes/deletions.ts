import type { Deletion, WaitingObject, WaitReason } from "../core/deletions.ts";
import { PERMISSIONS } from "../core/permissions.ts";
import { type Route, route } from "../http/routes.ts";
import { timestamp } from "../timestamp.ts";
import type { RouteParts } from "./routes.ts";
import { UploadParams } from "./schemas.ts";

/** In words that tell a tenant nothing of the store: its own may name hosts, buckets and keys. */
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

/** Those that are no error, only a matter of time. */
const NO_ERRORS: readonly WaitReason[] = ["queued", "taken", "leased", "again"];

/** Shows that an upload is deleted for good: when, what was given back, and what became of its objects. */
export function deletionRoutes({ core, cleaner }: RouteParts): Route[] {
  return [
    route({
      method: "GET",
      path: "/api/v1/uploads/:upload_id/deletion",
      summary: "Show a deletion: when the upload was deleted and its object removed, or what that waits for",
      // Who could delete it may ask.
      access: PERMISSIONS.deleteUpload,
      params: UploadParams,
      handle: ({ principal, params, nowMs }) => ({
        data: present(core.deletions.find(principal, params.upload_id, nowMs), cleaner.pauseReason() !== null),
      }),
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
