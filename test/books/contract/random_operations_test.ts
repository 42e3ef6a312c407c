import assert from "node:assert/strict";
import { AppError } from "../../../lib/errors.ts";
import { createRandom, testCount, testSeed } from "../../help/random.ts";
import { keyed, LEASE_MS, objectOf, promise, type TestWorkspace, toWorkspace } from "./contract.ts";

const STEPS = testCount("STOWAGE_TEST_STEPS", 400);
const QUOTA_BYTES = 200;

promise(
  "whatever is done in whatever order, ledger, counter and uploads agree, and every object is accounted for",
  async (its) => {
    const random = createRandom(testSeed((text) => its.t.diagnostic(text)));
    const workspaces: TestWorkspace[] = [];
    for (let i = 0; i < 3; i++) workspaces.push(await its.makeWorkspace(QUOTA_BYTES));
    /** The ids of uploads, also of those that are gone, by workspace. */
    const made = new Map<TestWorkspace, string[]>(workspaces.map((workspace) => [workspace, []]));
    /** Every key that was ever handed out, with its upload. */
    const keys = new Map<string, string>();
    const sizes = new Map<string, number>();

    const draw = () => {
      const workspace = random.pick(workspaces) ?? assert.fail();
      return { workspace, uploadId: random.pick(made.get(workspace) ?? []) };
    };

    async function create(): Promise<void> {
      const { workspace } = draw();
      const { uploadId, objectKey } = await its.create(
        workspace.key,
        random.percent(50) ? random.integer(0, 50) : null,
      );
      made.get(workspace)?.push(uploadId);
      keys.set(objectKey, uploadId);
    }

    async function confirm(): Promise<void> {
      const { workspace, uploadId } = draw();
      if (uploadId === undefined) return;
      const { key, workspaceId } = workspace;
      const request = toWorkspace(uploadId, workspaceId, random.percent(30) ? keyed(key, uploadId, "confirm") : null);
      const found = await its.books.uploads.findToConfirm(key, request);
      if (found.isConfirmed) return;
      const sizeBytes = random.integer(0, 60);
      const reservation = { workspaceId, sizeBytes, leaseMs: LEASE_MS };
      const finalKey = await its.books.uploads.reserveFinalKey(uploadId, reservation);
      keys.set(finalKey, uploadId);
      if (random.percent(30)) its.advance(random.integer(0, 2 * LEASE_MS));
      if (random.percent(30)) await its.removeDue();
      if (random.percent(10)) {
        const ended = { uploadId, sizeBytes, nowMs: its.nowMs(), mayLandLate: random.percent(50) };
        return its.books.removals.endLease(finalKey, ended);
      }
      await its.books.uploads.settleConfirm(key, request, objectOf(finalKey, sizeBytes));
      sizes.set(uploadId, sizeBytes);
    }

    async function remove(): Promise<void> {
      const { workspace, uploadId } = draw();
      if (uploadId === undefined) return;
      const request = random.percent(50) ? keyed(workspace.key, `d${uploadId}`, "delete") : null;
      await its.books.uploads.remove(workspace.key, uploadId, request);
      sizes.delete(uploadId);
    }

    async function expire(): Promise<void> {
      its.advance(random.integer(0, 3_600_000));
      await its.books.uploads.expire(its.nowMs());
    }

    async function clean(): Promise<void> {
      const taken = await its.books.removals.takeDue(its.nowMs(), random.integer(1, 20));
      const failures = new Map(random.some(taken, 2).map(({ objectKey }) => [objectKey, "no reason"]));
      if (random.percent(20)) await its.books.removals.postpone(taken, "down", its.nowMs() + 1_000);
      else await its.books.removals.settle(taken, failures, its.nowMs());
    }

    async function setQuota(): Promise<void> {
      const { workspaceId } = draw().workspace;
      await its.books.workspaces.setQuota(workspaceId, random.integer(0, 2 * QUOTA_BYTES));
    }

    const operations = [create, create, create, confirm, confirm, confirm, remove, expire, clean, setQuota];
    for (let step = 0; step < STEPS; step++) {
      const several = Array.from({ length: random.integer(1, 3) }, () => random.pick(operations) ?? assert.fail());
      const outcomes = await Promise.allSettled(several.map((operation) => operation()));
      for (const outcome of outcomes) {
        // A refusal is fine: the sums decide.
        if (outcome.status === "rejected") assert.ok(outcome.reason instanceof AppError, outcome.reason);
      }
      if (step % 50 === 0) for (const { workspaceId } of workspaces) await its.checkSums(workspaceId);
      if (step % 100 === 99) {
        await its.reopen();
        await its.books.removals.clearTaken();
      }
    }

    let chargedBytes = 0;
    for (const [{ key, workspaceId }, ids] of made) {
      await its.checkSums(workspaceId);
      for (const uploadId of ids) {
        const upload = await its.books.uploads.find(key, uploadId).catch(() => undefined);
        const sizeBytes = upload?.status === "uploaded" ? upload.sizeBytes : undefined;
        assert.equal(sizeBytes ?? undefined, sizes.get(uploadId), "the upload is as the last success left it");
        const releases = await its.books.ledger.list(workspaceId, { uploadId, kind: "charge", limit: 10 });
        assert.ok(releases.length <= 1, "ONCE");
        chargedBytes += sizeBytes ?? 0;
      }
    }
    assert.equal((await its.books.totals.read(its.nowMs())).bytesUsed, chargedBytes);
    for (const [objectKey, uploadId] of keys) {
      const isNamed = await its.books.audit.isNamed(uploadId, objectKey);
      const isEntered = await its.books.audit.isEntered(objectKey);
      assert.ok(!(isNamed && isEntered), "ROW-FIRST: nothing that a row names is to be removed");
    }
  },
);
