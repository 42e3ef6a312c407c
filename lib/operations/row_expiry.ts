import type { Idempotency } from "../books/idempotency.ts";
import type { Uploads } from "../books/uploads.ts";
import type { Log } from "../log.ts";
import type { Steps } from "./worker.ts";

/** Rows of a deleted workspace that one transaction deletes: each takes about 50 us with its triggers. */
const BATCH_ROWS = 100;
/** After this many transactions for deleted workspaces, objects that are due get their turn. */
const EMPTYING_STEPS = 10;

/** Deletes pending uploads whose time is over, and resolves with their number. */
export async function expireUploads(uploads: Pick<Uploads, "expire">, nowMs: number, steps: Steps): Promise<number> {
  let expired = 0;
  while (!steps.isStopping()) {
    const batch = await uploads.expire(nowMs);
    if (batch === 0) break;
    expired += batch;
    await steps.giveBack();
  }
  return expired;
}

/** Forgets Idempotency-Keys whose time is over. */
export async function expireIdempotencyKeys(idempotency: Idempotency, nowMs: number, steps: Steps): Promise<void> {
  while (!steps.isStopping()) {
    if (!(await idempotency.expire(nowMs))) break;
    await steps.checkLoad();
  }
}

/** Deletes some of the rows of deleted workspaces, in steps that stall no one. Resolves with whether more are left. */
export async function emptyDeletedWorkspaces(
  uploads: Pick<Uploads, "removeOfDeletedWorkspaces">,
  steps: Steps,
  log: Log,
): Promise<boolean> {
  let rows = 0;
  let hasMore = true;
  for (let step = 0; step < EMPTYING_STEPS && hasMore && !steps.isStopping(); step++) {
    const removed = await uploads.removeOfDeletedWorkspaces(BATCH_ROWS);
    rows += removed ?? 0;
    hasMore = removed !== null;
    if (removed !== null && removed > 0) await steps.checkLoad();
  }
  if (rows > 0) log.info("deleted_workspaces_emptied", { rows });
  return hasMore;
}
