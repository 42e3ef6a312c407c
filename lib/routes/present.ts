import type { Workflow } from "../core/contexts.ts";
import type { Upload } from "../core/uploads.ts";
import type { Pagination } from "../http/routes.ts";
import type { ObjectStore } from "../store/objects.ts";
import { timestamp } from "../timestamp.ts";

/** How an upload is shown on the wire. Fields without a value are null, never left out. */
export function presentUpload(upload: Upload, objects: ObjectStore, urlExpiresAtMs: number): Record<string, unknown> {
  const { objectKey, contentType, filename } = upload;
  return {
    id: upload.uploadId,
    user_id: upload.userId,
    workspace_id: upload.workspaceId,
    filename,
    category: upload.category,
    content_type: contentType,
    format: upload.format,
    status: upload.status,
    size_bytes: upload.sizeBytes,
    checksum_sha256: upload.checksumSha256,
    char_count: upload.charCount,
    line_count: upload.lineCount,
    detected_language: null,
    download_url:
      upload.status === "uploaded"
        ? objects.presignGet(objectKey, { contentType, filename, expiresAtMs: urlExpiresAtMs })
        : null,
    context_type: upload.contextType,
    context_id: upload.contextId,
    created_at: timestamp(upload.createdAtMs),
    updated_at: timestamp(upload.updatedAtMs),
  };
}

/** How a workflow is shown. There are no runs here, so their figures are zero; list items go without the definition. */
export function presentWorkflow(
  workflow: Workflow,
  { withDefinition }: { withDefinition: boolean },
): Record<string, unknown> {
  return {
    id: workflow.workflowId,
    user_id: workflow.userId,
    name: workflow.name,
    name_source: workflow.nameSource,
    description: workflow.description,
    ...(withDefinition ? { definition: JSON.parse(workflow.definitionJson) } : {}),
    runs_count: 0,
    last_run_at: null,
    last_run_status: null,
    run_status_counts: { pending: 0, running: 0, completed: 0, failed: 0, cancelled: 0, paused: 0 },
    created_at: timestamp(workflow.createdAtMs),
    updated_at: timestamp(workflow.updatedAtMs),
  };
}

/** The links from one page of a list to its neighbours, root-relative, with the filters of this one. */
export function paginate(
  path: string,
  query: Record<string, unknown>,
  page: { offset: number; limit: number; total: number },
): Pagination {
  const { offset, limit, total } = page;
  const link = (to: number): string => pageLink(path, query, { offset: String(to) });
  return {
    next: offset + limit < total ? link(offset + limit) : null,
    prev: offset > 0 ? link(Math.max(0, offset - limit)) : null,
    limit,
    total,
  };
}

/** The link to another page of a list: what `query` filters by, where the page begins, and how long it is. */
export function pageLink(path: string, query: Record<string, unknown>, start: Record<string, string>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (name === "offset" || name === "cursor" || name === "limit" || value === undefined) continue;
    for (const item of Array.isArray(value) ? value : [value]) search.append(name, String(item));
  }
  for (const [name, value] of Object.entries(start)) search.set(name, value);
  search.set("limit", String(query.limit));
  return `${path}?${search}`;
}
