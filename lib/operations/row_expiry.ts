import type { Idempotency } from "../books/idempotency.ts";
import type { Uploads } from "../books/uploads.ts";
import type { Log } from "../log.ts";
import type { Steps } from "./worker.ts";

/** Rows of a deleted workspace that go in one transaction: each is a delete with its triggers, about 50 us. */
const BATCH_ROWS = 100;
/** After so many transactions for deleted workspaces it is the turn of the objects that are due. */
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
    await steps.lookAround();
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
    if (removed !== null && removed > 0) await steps.lookAround();
  }
  if (rows > 0) log.info("deleted_workspaces_emptied", { rows });
  return hasMore;
}
