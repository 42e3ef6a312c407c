import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { DATABASE_FILE } from "../lib/db/db.ts";
import { createLog } from "../lib/log.ts";
import { judgeBooks, judgeLog } from "../scripts/bench/abuse_verdict.ts";
import { growth } from "../scripts/bench/abuse_watch.ts";
import { startTestApp, temporaryFolder } from "./_app.ts";
import { rawPathOf } from "./_books.ts";

// Goal: the run under abuse, which continuous integration relies on, does not pass what it is there to find.
// Method: give each part of its verdict what is right and what is wrong.

test("the verdict on a log: errors and failures of the service's own break it, refusals and overload do not", async (t) => {
  const path = join(await temporaryFolder(t), "log");
  let text = "Installing what Stowage needs ...\n";
  const log = createLog({
    level: "info",
    write: (more) => {
      text += more;
    },
  });
  const request = (status: number) => log.info("request", { method: "PUT", route: "/objects/*", status });
  for (const status of [200, 400, 404, 499, 507, 503, 507]) request(status);
  log.warn("request_unavailable", { route: "/objects/*" });
  log.flush();
  writeFileSync(path, text);
  assert.deepEqual(await judgeLog(path), {
    broken: [],
    overload: [
      ["507 on /objects/*", 2],
      ["503 on /objects/*", 1],
    ],
  });

  request(500);
  request(500);
  log.error("fatal", { error: new Error("Cannot read properties of null") });
  log.flush();
  writeFileSync(path, text);
  const { broken } = await judgeLog(path);
  assert.equal(broken.length, 2);
  assert.match(broken[0] ?? "", /^answered with 500 on \/objects\/\*, 2 times: /);
  assert.match(broken[1] ?? "", /^logged the error fatal, 1 times: .*properties of null/);
});

test("the verdict on memory: flat is flat, also after a peak, and what doubles is not", () => {
  const samples = (residentMb: number[]) =>
    residentMb.map((mb, i) => ({ atMs: i * 1000, residentMb: mb, openFiles: 1, databaseMb: 1 }));
  const flat = growth(samples([100, 130, 150, 140, 900, 160, 150, 155, 150, 152]));
  assert.deepEqual(flat, { earlyMb: 150, lateMb: 151, grew: false });
  assert.equal(growth(samples([10, 10, 20, 20, 30, 40, 50, 60, 100, 100])).grew, false, "a few MB are nothing");
  assert.equal(growth(samples([100, 130, 150, 160, 200, 240, 260, 280, 310, 320])).grew, true);
});

test("the verdict on the books: a file that nothing names breaks them", async (t) => {
  const { app, dataDir, sql } = await startTestApp(t);
  await app.close();
  const databaseFile = join(dataDir, DATABASE_FILE);
  assert.deepEqual(judgeBooks(databaseFile, dataDir), []);

  const installation = String(sql.prepare("SELECT id FROM installation").pluck().get());
  const id = "01900000-0000-7000-8000-0000000000a1";
  const path = rawPathOf(dataDir, `final/${installation}/${id}/${"0".repeat(32)}`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, "alone");
  const [broken = "", ...others] = judgeBooks(databaseFile, dataDir);
  assert.match(broken, /^NO-ORPHAN/);
  assert.deepEqual(others, []);
});
