import * as z from "zod";
import type { Deletion, WaitingObject, WaitReason } from "../../books/deletions.ts";
import { timestamp } from "../../timestamp.ts";
import { id, time } from "./common.ts";

const WaitingObjectOut = z.strictObject({
  /** The confirmed file, or what was PUT to the upload URL. */
  object: z.enum(["file", "staged_file"]),
  reason: z.string(),
  /** Null while nothing is removed at all. */
  next_attempt_at: time.nullable(),
});

export const DeletionOut = z.strictObject({
  upload_id: id,
  deleted_at: time,
  bytes_released: z.int().min(0),
  status: z.enum(["removed", "waiting"]),
  object_removed_at: time.nullable(),
  attempts: z.int().min(0),
  last_error: z.string().nullable(),
  waiting_for: z.array(WaitingObjectOut),
});

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

/** Reasons that are no error, only a matter of time. */
const NO_ERRORS: readonly WaitReason[] = ["queued", "taken", "leased", "again"];

/** Presents a deletion. `isPaused`: whether the cleaner waits for the operator's decision. */
export function presentDeletion(deletion: Deletion, isPaused: boolean): z.infer<typeof DeletionOut> {
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

function presentWaiting(
  { place, reason, nextAttemptAtMs }: WaitingObject,
  isPaused: boolean,
): z.infer<typeof WaitingObjectOut> {
  return {
    object: place === "final" ? "file" : "staged_file",
    reason: isPaused ? PAUSED : REASONS[reason],
    next_attempt_at: isPaused ? null : timestamp(nextAttemptAtMs),
  };
}
