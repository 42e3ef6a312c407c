import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { COMMANDS } from "../lib/commands/commands.ts";
import { firstSteps } from "../lib/commands/first_steps.ts";
import { listSettings } from "../lib/config/config.ts";
import { type Json, startTestApp, type TestApp, temporaryFolder } from "./_app.ts";
import { confirmUploads } from "./_operator.ts";
import { initProgram, runProgram, serveProgram } from "./_process.ts";

const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
const run = promisify(execFile);

/** What was stated for the upload whose URL is still good. */
function statedSizeBytes(sql: TestApp["sql"]): unknown {
  return sql.prepare("SELECT stated_size_bytes FROM object_removals").pluck().get();
}

test("the README's walk-through works as pasted, with a POSIX shell and curl alone", async (t) => {
  const { app, owner, sql } = await startTestApp(t);
  const script = /<!-- walk-through -->\n```sh\n(.*?)```/s.exec(readme)?.[1] ?? "";
  assert.match(script, /^URL=http:\/\/127\.0\.0\.1:8000$/m);
  const { stdout, stderr } = await run(
    "sh",
    ["-euc", `KEY=${owner.key}\n${script.replace("http://127.0.0.1:8000", app.url)}`],
    { cwd: await temporaryFolder(t) },
  );
  assert.equal(stderr, "");
  assert.match(stdout, /"status":"uploaded","size_bytes":19/);
  assert.match(stdout, /"total":1/);
  assert.match(stdout, /^bytes used: 19$/m);
  assert.match(stdout, /^Hello from Stowage$/m);
  assert.match(stdout, /^bytes used: 0$/m);
  assert.equal(sql.prepare("SELECT count(*) FROM uploads").pluck().get(), 0);
  assert.equal(statedSizeBytes(sql), 19);
});

test("the README's lines for a checksum work as pasted after its walk-through", async (t) => {
  const { app, owner, sql } = await startTestApp(t);
  const [walk = "", checksum = ""] = ["walk-through", "checksum"].map(
    (name) => new RegExp(`<!-- ${name} -->\\n\`\`\`sh\\n(.*?)\`\`\``, "s").exec(readme)?.[1] ?? "",
  );
  const script = `KEY=${owner.key}\n${walk.replace("http://127.0.0.1:8000", app.url)}\n${checksum}\necho "$ANSWER"`;
  const { stdout, stderr } = await run("sh", ["-euc", script], { cwd: await temporaryFolder(t) });
  assert.equal(stderr, "");
  const { data } = JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  assert.deepEqual(Object.keys(data.upload_headers), ["x-amz-checksum-sha256"]);
  await app.core.unconfirmed.flushNotes();
  const stored = sql.prepare("SELECT staged_size_bytes FROM uploads WHERE id = ?").pluck().get(data.upload.id);
  assert.equal(stored, 19, "its bytes were taken");
});

test("the lines that init prints work as pasted", async (t) => {
  const { app, owner, config, sql } = await startTestApp(t);
  const text = firstSteps({ ...config, publicUrl: app.url }, { workspaceId: owner.workspaceId, apiKey: owner.key });
  const script = text.slice(text.indexOf("  URL="));
  const { stdout } = await run("sh", ["-euc", script], { cwd: await temporaryFolder(t) });
  assert.match(stdout, /"status":"uploaded","size_bytes":19/);
  assert.deepEqual(sql.prepare("SELECT kind, bytes FROM storage_events ORDER BY seq").all(), [
    { kind: "charge", bytes: 19 },
    { kind: "release", bytes: -19 },
  ]);
  assert.equal(statedSizeBytes(sql), 19);
});

test("the README's backup and restore work as pasted, and bring back exactly what was backed up", async (t) => {
  const blockOf = (name: string): string =>
    new RegExp(`<!-- ${name} -->\n\`\`\`sh\n(.*?)\`\`\``, "s").exec(readme)?.[1] ?? assert.fail(`no ${name}`);
  const { dataDir, made } = await initProgram(t);
  const cwd = dirname(dataDir);
  const owner = { key: made.api_key, workspaceId: made.workspace_id };
  const first = await serveProgram(t, dataDir);
  await confirmUploads(first, owner, 5);
  first.child.kill("SIGTERM");
  await first.ended;
  await run("sh", ["-euc", blockOf("backup")], { cwd });

  const second = await serveProgram(t, dataDir);
  const { json } = await second.call("GET", "/api/v1/uploads", owner);
  await confirmUploads(second, owner, 5);
  await second.call("DELETE", `/api/v1/uploads/${json.data[0].id}`, owner);
  second.child.kill("SIGKILL");
  await second.ended;
  await run("sh", ["-euc", blockOf("restore")], { cwd });

  const third = await serveProgram(t, dataDir);
  // The port, and so the URLs, are others each time.
  const withoutUrl = ({ download_url, ...upload }: Json): Json => upload;
  const after = (await third.call("GET", "/api/v1/uploads", owner)).json;
  assert.deepEqual(after.data.map(withoutUrl), json.data.map(withoutUrl));
  for (const { id } of json.data) {
    const { data } = (await third.call("GET", `/api/v1/uploads/${id}`, owner)).json;
    assert.match((await third.call("GET", data.download_url)).text, /^file \d$/);
  }
  const doctor = await runProgram(t, ["doctor"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(doctor.exitCode, 0, doctor.stdout);
});

test("the README lists every setting with its default, and every command", () => {
  const table = /<!-- settings -->\n(.*?)<!-- \/settings -->/s.exec(readme)?.[1] ?? "";
  const rows = listSettings().map(
    ({ name, default: value, describe }) =>
      `| \`${name}\` | ${value === null || value === "" ? "" : `\`${value}\``} | ${describe} |`,
  );
  assert.equal(table, ["| variable | default | meaning |", "|---|---|---|", ...rows, ""].join("\n"));
  for (const { name, usage } of COMMANDS) {
    assert.ok(readme.includes(`\`${`${name} ${usage}`.trim()}\``), `the README names ${name} ${usage}`);
  }
});
