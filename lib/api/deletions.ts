import { PERMISSIONS } from "../books/permissions.ts";
import { type Operation, operation } from "./operation.ts";
import { DeletionOut, presentDeletion } from "./wire/deletions.ts";
import { UploadParams } from "./wire/uploads.ts";

/** Proof that an upload was deleted for good: when, what was given back, and what became of its objects. */
export const deletionOperations: readonly Operation[] = [
  operation({
    method: "GET",
    path: "/api/v1/uploads/:upload_id/deletion",
    operationId: "getDeletion",
    summary: "Show a deletion: when the upload was deleted and its object removed, or what that waits for",
    // Those who could delete it may see it.
    access: PERMISSIONS.deleteUpload,
    params: UploadParams,
    response: DeletionOut,
    async handle({ principal, params, nowMs }, { books, cleaner }) {
      const deletion = await books.deletions.find(principal, params.upload_id, nowMs);
      return { data: presentDeletion(deletion, cleaner.pauseReason() !== null) };
    },
  }),
];
