// Goal: an outage of the store is nobody's concern but the cleaner's: deletes go on, and what they left is made good.
// Method: a proxy in front of a real server lets every request hang, or resets every connection, while uploads are deleted.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openRig, openSite } from "./_matrix_rig.ts";
import { checkRaw } from "./_raw_store.ts";
import { S3_MAKES, useS3Server } from "./_s3_servers.ts";
import { until } from "./_until.ts";

const DELETES = 60;
/** Longer than everything here takes: what hangs still hangs when the deletes are answered. */
const TIMEOUT_MS = 60_000;
const TIMEOUTS = { callMs: TIMEOUT_MS, manyMs: TIMEOUT_MS, copyMs: TIMEOUT_MS, readIdleMs: TIMEOUT_MS };

for (const make of S3_MAKES) {
  for (const kind of ["hang", "cut"] as const) {
    const what = kind === "hang" ? "does not answer" : "resets every connection";
    test(`${make} ${what}: deletes go on, one key probes, no attempt is burnt, and the backlog drains by itself`, async (t) => {
      const server = await useS3Server(t, make);
      if (server === null) return;
      const rig = await openRig(t, await openSite(t, server), { timeouts: TIMEOUTS, cleansInBackground: true });
      const { its, raw, s3 } = rig;
      assert.ok(s3 !== null);
      const { proxy } = s3;
      const dueEntries = its.sql.prepare("SELECT count(*) FROM object_removals WHERE due_at_ms <= ?").pluck();
      const due = () => Number(dueEntries.get(its.clock.now()));
      const ready = async () => (await its.call("GET", "/ready", { key: "" })).json.store;
      const ids: string[] = [];
      for (let i = 0; i < DELETES; i++) ids.push((await its.confirmedUpload(`upload ${i}`)).id);
      await until(() => due() === 0, "nothing is left to do");
      assert.equal(await ready(), "ok");

      const seenBefore = proxy.requests.length;
      proxy.setFault({ kind });
      const answers = await Promise.all(ids.map((id) => its.call("DELETE", `/api/v1/uploads/${id}`)));
      assert.ok(answers.every(({ status }) => status === 200));
      const removals = () => proxy.requests.slice(seenBefore).filter(({ method }) => method !== "GET");
      if (kind === "hang") await until(() => removals().length === 1, "the probe");
      else await until(() => removals().length >= 3, "probes");
      assert.equal(its.sql.prepare("SELECT sum(storage_bytes_used) FROM workspaces").pluck().get(), 0);
      // The first found out, with one key or many, and may be sent twice, as any request on a connection that turns out
      // to be closed; from then on it is one.
      const later = removals().slice(2);
      assert.deepEqual(
        later.filter(({ method }) => method !== "DELETE"),
        [],
      );
      const attempts = its.sql.prepare("SELECT max(attempts) FROM object_removals").pluck();
      assert.equal(attempts.get(), 0);
      assert.equal(due(), DELETES);
      await checkRaw(its.sql, raw);
      assert.equal((await raw.objects()).length, DELETES);
      let shown = "";
      const look = setInterval(
        () =>
          void ready()
            .then((store) => (shown = store))
            .catch(() => {}),
        200,
      );
      try {
        await until(() => shown === "unavailable", "/ready says so");
        await proxy.heal();
        proxy.disconnect();
        await until(() => due() === 0, "the backlog is drained");
        await until(() => shown === "ok", "/ready says so");
      } finally {
        clearInterval(look);
      }
      assert.equal(attempts.get(), 0);
      assert.deepEqual(await raw.objects(), []);
      await rig.drain();
    });
  }
}
