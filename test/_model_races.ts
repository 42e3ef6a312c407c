import assert from "node:assert/strict";
import type { Answer } from "./_app.ts";
import { LEASE_MS } from "./_faulty_app.ts";
import { createGate, type StoreCall } from "./_faulty_store.ts";
import type { ModelUpload } from "./_model.ts";
import type { Operations } from "./_model_operations.ts";
import { expectStatus, type World } from "./_model_world.ts";
import { IS_S3 } from "./_test_store.ts";

/**
 * What happens at once. The order in which two things take effect is the machine's; the model knows which answers can
 * come, and follows them.
 */
export function createRaces(world: World, operations: Operations) {
  const {
    its,
    model,
    random,
    anyPending,
    noteReserved,
    hasFailed,
    sendConfirm,
    sendDelete,
    confirmStatus,
    context,
    book,
  } = world;
  const { app, clock, put, sql, hooks } = its;
  const { workspaces } = model;
  const { putBytes, deleteOne, confirmOne, cleanerPass, setQuota } = operations;
  const young = () =>
    model.all().filter(({ status, expiresAtMs }) => status === "uploaded" || expiresAtMs > clock.now());

  async function raceDeletes(): Promise<void> {
    const upload = random.pick(model.all());
    if (upload === undefined) return;
    const answers = await Promise.all([sendDelete(upload), sendDelete(upload), sendDelete(upload)]);
    assert.deepEqual(answers.map(({ status }) => status).sort(), [200, 404, 404]);
    model.remove(upload);
  }

  async function raceConfirms(): Promise<void> {
    const upload = anyPending();
    if (upload === undefined) return;
    const at = context(upload.workspace);
    const expected = confirmStatus(upload, at);
    const answers = await Promise.all([sendConfirm(upload, at), sendConfirm(upload, at), sendConfirm(upload, at)]);
    for (const answer of answers) expectStatus("racing confirm", answer, [expected, 503]);
    assert.equal(answers.filter(({ status }) => status !== expected).length, hasFailed(upload) ? 1 : 0);
    for (const answer of answers) book(upload, answer);
  }

  async function raceConfirmAndDelete(): Promise<void> {
    const upload = random.pick(model.all());
    if (upload === undefined) return;
    const at = context(upload.workspace);
    const expected = [404, confirmStatus(upload, at), 503];
    const byHand = random.percent(40);
    const confirming = sendConfirm(upload, at);
    await turns(random.integer(0, 12));
    if (byHand) assert.equal(sql.prepare("DELETE FROM uploads WHERE id = ?").run(upload.id).changes, 1);
    else expectStatus("delete that races a confirm", await sendDelete(upload), [200]);
    const answer = await confirming;
    expectStatus("confirm that races a delete", answer, expected);
    assert.ok(answer.status !== 503 || hasFailed(upload));
    model.remove(upload);
    if (byHand) world.countAnew(upload.workspace);
  }

  async function raceConfirmAndPut(): Promise<void> {
    const upload = anyPending();
    if (upload === undefined) return;
    const at = context(upload.workspace);
    const [before, bytes] = [upload.bytes, random.bytes(world.sizeOf(upload))];
    const expectedPut = world.putStatus(upload, bytes.length);
    const [putAnswer, answer] = await Promise.all([put(upload.uploadUrl, bytes), sendConfirm(upload, at)]);
    expectStatus("PUT that races a confirm", putAnswer, [expectedPut, 404]);
    expectStatus("confirm that races a PUT", answer, at.isKnown ? [200, 402, 413, 422, 503] : [404]);
    if (answer.status !== 200) {
      assert.equal(putAnswer.status, expectedPut);
      if (expectedPut === 200) upload.bytes = bytes;
      return;
    }
    const { object_key } =
      sql.prepare<[string], { object_key: string }>("SELECT object_key FROM uploads WHERE id = ?").get(upload.id) ??
      assert.fail();
    const object = (await its.raw.objects()).find(({ objectKey }) => objectKey === object_key) ?? assert.fail();
    const found = await object.read();
    upload.bytes = [before, bytes].find((candidate) => candidate?.equals(found)) ?? assert.fail();
    book(upload, answer);
  }

  /** A confirm is held in the middle, and things happen meanwhile. */
  async function slowConfirm(): Promise<void> {
    its.heal();
    const upload = anyPending();
    if (upload === undefined || upload.expiresAtMs <= clock.now()) return;
    const at = world.ownContext(upload.workspace);
    if (confirmStatus(upload, at) !== 200) return;
    const gate = createGate();
    const isBefore = random.percent(50);
    hooks.before = (called) => {
      noteReserved(called);
      return isBefore && called.name === "promote" ? gate.pass() : undefined;
    };
    if (!isBefore) hooks.after = ({ name }: StoreCall) => (name === "promote" ? gate.pass() : undefined);
    const confirming = sendConfirm(upload, at);
    await gate.reached;
    its.heal();

    const copied = upload.bytes;
    let expected = 200;
    if (random.percent(40)) {
      clock.advance(LEASE_MS + 1);
      if (random.percent(80)) {
        await cleanerPass();
        expected = 503;
      }
    }
    if (random.percent(30)) {
      await putBytes(upload);
      if (isBefore && isOther(upload.bytes, copied)) expected = 503;
    }
    if (random.percent(20)) await setQuota(upload.workspace, random.integer(0, 10_000));
    const chargedBytes = model.usedBytes(upload.workspace) + (copied?.length ?? 0);
    if (expected === 200 && chargedBytes > upload.workspace.quotaBytes) expected = 402;
    if (random.percent(15)) {
      await deleteOne(upload);
      expected = 404;
    }
    gate.open();
    const answer = await confirming;
    expectStatus("slow confirm", answer, [expected]);
    // What was staged after the copy goes with the staging key.
    if (answer.status === 200) upload.bytes = copied;
    if (model.uploads.has(upload.id)) book(upload, answer);
  }

  /** Many things at once, each to another upload, so that they share commits; and a pass of the cleaner among them. */
  async function storm(): Promise<void> {
    const cleans = random.percent(60);
    if (cleans) model.expire(clock.now());
    const usedBefore = new Map(workspaces.map((one) => [one, model.usedBytes(one)]));
    const confirms: { upload: ModelUpload; answer: Answer }[] = [];
    const work = random.some(young(), 12).map(async (upload) => {
      const what = random.integer(1, 4);
      if (what === 1) return putBytes(upload);
      if (what === 2) return deleteOne(upload);
      if (upload.status === "uploaded") return confirmOne(upload);
      const at = world.ownContext(upload.workspace);
      confirms.push({ upload, answer: await sendConfirm(upload, at) });
    });
    if (cleans) work.push(app.cleaner.runOnce().then(() => {}));
    await Promise.all(work);
    const most = new Map(usedBefore);
    for (const { upload } of confirms)
      most.set(upload.workspace, (most.get(upload.workspace) ?? 0) + (upload.bytes?.length ?? 0));
    for (const { upload, answer } of confirms) {
      expectStatus("confirm in a storm", answer, [upload.bytes === null ? 422 : 200, 402, 413, 503]);
      if (answer.status === 402) assert.ok((most.get(upload.workspace) ?? 0) > upload.workspace.quotaBytes);
      assert.equal(answer.status === 503, hasFailed(upload) && answer.status !== 422);
      book(upload, answer);
    }
    for (const one of workspaces) assert.ok(model.usedBytes(one) <= Math.max(one.quotaBytes, usedBefore.get(one) ?? 0));
  }

  return { raceDeletes, raceConfirms, raceConfirmAndDelete, raceConfirmAndPut, slowConfirm, storm };
}

/** Whether a store takes the second PUT for another object than the first: S3 goes by the bytes. */
function isOther(bytes: Buffer | null, before: Buffer | null): boolean {
  return IS_S3 ? bytes?.equals(before ?? Buffer.alloc(0)) === false : bytes !== before;
}

/** Lets the event loop go round so many times. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}
