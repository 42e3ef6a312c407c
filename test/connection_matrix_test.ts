// Goal: whatever a client does to its connection, at whatever moment, hurts nobody else, and is logged as what it was.
// Method: the real program as a child process, raw sockets. Every request that the route table knows meets everything that
// a client can do at every moment; after each the process still answers, the log has the request once, with the client's
// status, nothing of a cut-off upload is kept, the books are true, and open files are back where they were.
import assert from "node:assert/strict";
import { test } from "node:test";
import { METRICS_PATH } from "../lib/routes/metrics.ts";
import { createRoutes } from "../lib/routes/routes.ts";
import { LANES } from "./_connection_matrix_lanes.ts";
import { createMatrixReport } from "./_connection_matrix_report.ts";
import { MOMENTS, QUICK_ACTIONS, SLOW_ACTIONS } from "./_connection_matrix_rules.ts";
import { createRunner } from "./_connection_matrix_runner.ts";
import { openWorld } from "./_connection_matrix_world.ts";
import { startPeopleApp } from "./_people.ts";

/** By how much the program that meets silent clients is hastened: 120 s become 12 s. */
const HASTE = 10;
/** Failures that are printed one by one. */
const PRINTED_MAX = 200;

test("every route of the table is in the matrix, with HEAD and OPTIONS", async (t) => {
  const { app, config } = await startPeopleApp(t);
  const unused = () => Promise.reject(new Error("Nothing is called here"));
  const objectRoutes = { putObject: unused, getObject: unused };
  const routes = createRoutes({ ...app, config, confirm: unused, objectRoutes });
  const asked = new Set(LANES.map(({ method, route }) => `${method} ${route}`));
  const expected = [...routes, { method: "GET", path: METRICS_PATH }].flatMap(({ method, path }) => [
    `${method} ${path}`,
    `OPTIONS ${path}`,
    ...(method === "GET" ? [`HEAD ${path}`] : []),
  ]);
  assert.deepEqual(
    expected.filter((route) => !asked.has(route)),
    [],
    "give each route a row in test/_security_matrix.ts, or if it asks for no credential in test/_connection_matrix_lanes.ts",
  );
});

test("whatever a client does, at whatever moment, is that client's alone", async (t) => {
  const report = createMatrixReport();

  async function quick(): Promise<void> {
    const runner = await createRunner(await openWorld(t), report, LANES);
    for (const moment of MOMENTS) {
      for (const action of QUICK_ACTIONS) await runner.runPhases([{ moment, action }]);
    }
    await runner.end();
  }

  /** All at once: nothing is waited for but time-outs. */
  async function slow(): Promise<void> {
    const runner = await createRunner(await openWorld(t, { haste: HASTE }), report, LANES);
    await runner.runPhases(MOMENTS.flatMap((moment) => SLOW_ACTIONS.map((action) => ({ moment, action }))));
    await runner.end();
  }

  await Promise.all([quick(), slow()]);
  for (const line of report.table().split("\n")) t.diagnostic(line);
  t.diagnostic(`${report.cells()} cells, ${report.failures.length} failures`);
  const printed = report.failures.slice(0, PRINTED_MAX).join("\n");
  assert.equal(report.failures.length, 0, `${report.failures.length} failures:\n${printed}`);
});
