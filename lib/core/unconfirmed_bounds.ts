import { AppError } from "../errors.ts";

/** What may be staged beyond the quota: whoever has used theirs up can still upload, and learn at the confirm what to do. */
const EXTRA_BYTES = 64 * 1024 * 1024;
const RETRY_AFTER_SECONDS = 60;

/** Whose unconfirmed uploads are counted together: a workspace's, or a person's that are in none. */
export interface Owner {
  workspaceId: string | null;
  userId: string;
}

/** What counts against the bound on uploads. */
interface UploadFigures {
  /** Pending ones. */
  uploads: number;
  /** Upload URLs for any length that are still good although their upload is deleted or confirmed. */
  heldUploads: number;
}

/** What counts against the bounds on bytes, and how many are asked for. */
interface ByteFigures {
  bytes: number;
  /** The lengths of the upload URLs that are still good although their upload is deleted or confirmed. */
  heldBytes: number;
  moreBytes: number;
}

export interface Quota {
  storageBytesQuota: number;
  storageBytesUsed: number;
}

/** Why the owner may not have one more upload; null if they may. */
export function tooManyUploads(owner: Owner, { uploads, heldUploads }: UploadFigures, max: number): AppError | null {
  if (uploads + heldUploads < max) return null;
  const most = `${whoHas(owner)} ${max} uploads that were never confirmed`;
  return new AppError(
    "rate_limited",
    heldUploads === 0
      ? `${most}, which is the most allowed: confirm or delete some`
      : `${most} or whose upload URL is still good, which is the most allowed: confirm or delete some, and wait until ` +
          "their URLs have expired. One that was created with its size_bytes does not count once it is confirmed or deleted",
    { retryAfterSeconds: RETRY_AFTER_SECONDS },
  );
}

/** Why so many bytes more would be too many by the setting; null if they would not. */
export function tooManyBySetting(owner: Owner, figures: ByteFigures, max: number): AppError | null {
  if (sumOf(figures) <= max) return null;
  // No waiting helps: a retry would be refused for ever.
  if (figures.moreBytes > max) {
    return new AppError(
      "payload_too_large",
      `Cannot take a file of ${figures.moreBytes} bytes: uploads that are not confirmed may have ${max} bytes at once on this server`,
    );
  }
  const message = tooManyBytes(owner, figures, `${max} at once`);
  return new AppError("rate_limited", message, { retryAfterSeconds: RETRY_AFTER_SECONDS });
}

/** So few bytes are in order whatever the quota. */
export function areFew(figures: ByteFigures): boolean {
  return sumOf(figures) <= EXTRA_BYTES;
}

/** Why so many bytes more would be too many by the quota; null if they would not. */
export function tooManyByQuota(owner: Owner, figures: ByteFigures, quota: Quota): AppError | null {
  const { storageBytesQuota: quotaBytes, storageBytesUsed: usedBytes } = quota;
  const leftBytes = Math.max(0, quotaBytes - usedBytes);
  const fitsWhatIsLeft = figures.bytes + figures.moreBytes <= leftBytes + EXTRA_BYTES;
  // What the URLs of confirmed uploads may still bring is held against the whole quota, not against what those uploads have
  // left of it: otherwise nobody could fill more than half of theirs within the life of a URL.
  if (fitsWhatIsLeft && sumOf(figures) <= quotaBytes + EXTRA_BYTES) return null;
  const most = fitsWhatIsLeft
    ? `${quotaBytes + EXTRA_BYTES} together: the quota of ${quotaBytes}, and ${EXTRA_BYTES} more`
    : `${leftBytes + EXTRA_BYTES} at once: the ${leftBytes} left of the quota of ${quotaBytes}, and ${EXTRA_BYTES} more`;
  const message = tooManyBytes(owner, figures, most);
  // Time alone makes room then: the URLs expire.
  if (fitsWhatIsLeft) return new AppError("rate_limited", message, { retryAfterSeconds: RETRY_AFTER_SECONDS });
  return new AppError("storage_limit_exceeded", message);
}

function sumOf({ bytes, heldBytes, moreBytes }: ByteFigures): number {
  return bytes + heldBytes + moreBytes;
}

function whoHas({ workspaceId }: Owner): string {
  return workspaceId === null ? "You have" : "The workspace has";
}

function tooManyBytes(owner: Owner, { bytes, heldBytes, moreBytes }: ByteFigures, most: string): string {
  const asked = moreBytes === 0 ? "another upload" : `${moreBytes} bytes more`;
  const [held, wait] =
    heldBytes === 0
      ? ["", ""]
      : [
          `, and ${heldBytes} that can still be sent to upload URLs of confirmed or deleted uploads`,
          ", or wait until those URLs have expired",
        ];
  return (
    `Cannot take ${asked}: ${whoHas(owner).toLowerCase()} ${bytes} bytes in uploads that were never confirmed${held}. ` +
    `At most ${most}. Confirm or delete some${wait}`
  );
}
