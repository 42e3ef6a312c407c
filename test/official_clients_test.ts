import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { type Owner, temporaryFolder } from "./_app.ts";
import { type Cli, createCli, ONEPIN_VERSIONS, onepinCommands, runClient } from "./_onepin_cli.ts";
import { type PeopleApp, startPeopleApp } from "./_people.ts";

// Goal: the published clients work against the service unmodified, and what they show on errors reads well.
// Method: their commands, as they are installed from PyPI, drive a real server; each flow has a workspace and a home of its own.

const SDK_PROGRAM = fileURLToPath(new URL("_onepin_sdk.py", import.meta.url));
const UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057";
const QUOTA_BYTES = 100;

interface Flow {
  its: PeopleApp;
  owner: Owner;
  home: string;
  /** With the owner's key in the environment. */
  cli: Cli;
  /** The same with another credential, or with none. */
  cliWith: (key: string | null) => Cli;
  file: (name: string, text: string) => Promise<string>;
  bytesUsed: () => unknown;
}

for (const version of ONEPIN_VERSIONS) {
  // Two cores: more at once would only wait for each other.
  test(`onepin ${version}`, { concurrency: 2 }, async (t) => {
    const commands = onepinCommands(t, version);
    if (commands === null) return;
    const its = await startPeopleApp(t);

    const flow = (name: string, run: (flow: Flow) => Promise<void>): Promise<void> =>
      t.test(name, async (t) => run(await prepare(t, its, join(commands, "onepin"))));

    await Promise.all([
      flow("docs/clients.md works as pasted", (flow) => asDocumented(flow, commands)),
      flow("a file's life: login, create, confirm, delete", fileLife),
      flow("deletes: asked first, twice, unknown, malformed, empty", deletes),
      flow("workflows: create, list, show, update, delete", workflows),
      flow("errors read well: bad key, scope, workspace, quota, names", errors),
      flow("usage, and workspaces with a key and with a session", usageAndWorkspaces),
      ...["sync", "async"].map((kind) =>
        flow(`the SDK, ${kind}`, (flow) => sdk(flow, { python: join(commands, "python"), kind })),
      ),
    ]);
  });
}

async function prepare(t: TestContext, its: PeopleApp, command: string): Promise<Flow> {
  const owner = await its.addOwner(QUOTA_BYTES);
  const home = await temporaryFolder(t);
  const base = { ONEPIN_BASE_URL: its.app.url };
  const cliWith = (key: string | null): Cli =>
    createCli(command, { home, env: key === null ? base : { ...base, ONEPIN_API_KEY: key } });
  const used = its.sql.prepare("SELECT storage_bytes_used FROM workspaces WHERE id = ?").pluck();
  return {
    ...{ its, owner, home, cliWith },
    cli: cliWith(owner.key),
    bytesUsed: () => used.get(owner.workspaceId),
    async file(name, text) {
      await writeFile(join(home, name), text);
      return name;
    },
  };
}

async function asDocumented({ its, owner, home, bytesUsed }: Flow, commands: string): Promise<void> {
  const docs = await readFile(new URL("../docs/clients.md", import.meta.url), "utf8");
  const script = /<!-- walk-through -->\n```sh\n(.*?)```/s.exec(docs)?.[1] ?? "";
  assert.match(script, /^onepin login --base-url http:\/\/127\.0\.0\.1:8000 /);
  const pasted = `KEY=${owner.key}\n${script.replace("http://127.0.0.1:8000", its.app.url)}`;
  const env = { PATH: `${commands}:${process.env.PATH}` };
  const { exitCode, stdout, stderr } = await runClient("sh", ["-euc", pasted], { home, env });
  assert.equal(stderr, "");
  assert.equal(exitCode, 0);
  assert.match(
    stdout,
    /^Confirmed upload .*hello\.txt.*script.*uploaded.*19.*"bytes_used": 19.*^Deleted upload .*"bytes_used": 0/ms,
  );
  assert.equal(bytesUsed(), 0);

  const program = /```python\n(.*?)```/s.exec(docs)?.[1] ?? "";
  const python = await runClient(join(commands, "python"), ["-c", program], { home });
  assert.deepEqual(python, { exitCode: 0, stdout: "uploaded 6\n", stderr: "" });
  assert.equal(bytesUsed(), 0);
}

async function fileLife({ its, owner, cliWith, file, bytesUsed }: Flow): Promise<void> {
  const cli = cliWith(null);
  const login = await cli.text("login", "--base-url", its.app.url, "--key", owner.key);
  assert.match(login, new RegExp(owner.workspaceId));
  assert.match(login, /uploads:write/);
  const whoami = await cli.text("whoami");
  for (const part of [owner.workspaceId, its.app.url, "api_key", "file"]) assert.ok(whoami.includes(part), part);
  assert.equal((await cli.json("whoami")).api_key_id, owner.apiKeyId);

  const workflow = (await cli.json("workflows", "create", "--name", "Grüße")).id;
  const script = await file("한글 파일.TXT", "  hello \n\n wörld\r\n");
  const created = await cli.json("uploads", "create", "--file", script, "--category", "script");
  assert.deepEqual(Object.keys(created), ["ok", "id"]);
  assert.equal(created.ok, true);
  const empty = await cli.text("uploads", "create", "--file", await file("empty.txt", ""), "--category", "script");
  const emptyId = /[0-9a-f-]{36}/.exec(empty)?.[0] ?? "";

  const confirm = ["uploads", "confirm", created.id, "--workflow-id", workflow];
  const confirmed = await cli.json(...confirm);
  assert.equal(confirmed.status, "uploaded");
  assert.equal(confirmed.filename, "한글 파일.TXT");
  assert.deepEqual([confirmed.size_bytes, confirmed.char_count, confirmed.line_count], [19, 10, 2]);
  assert.equal(confirmed.workspace_id, owner.workspaceId);
  assert.equal(await cli.text(...confirm), `Confirmed upload ${created.id}.\n`);
  await cli.text("uploads", "confirm", emptyId, "--workflow-id", workflow);
  assert.equal(bytesUsed(), 19);

  const uploads = await cli.json("workflows", "uploads", workflow);
  assert.deepEqual(
    uploads.map(({ id }: { id: string }) => id),
    [emptyId, created.id],
  );
  assert.match(await cli.text("workflows", "uploads", workflow), /한글 파일\.TXT.*script.*uploaded.*19/);
  assert.equal((await cli.json("usage", "summary")).storage.bytes_used, 19);
  assert.equal(await cli.text("uploads", "delete", created.id, "--yes"), `Deleted upload ${created.id}.\n`);
  assert.equal(bytesUsed(), 0);
  await cli.text("logout");
  assert.equal((await cli.fails("whoami")).code, "NOT_LOGGED_IN");
}

async function deletes({ cli, cliWith, its, owner, bytesUsed }: Flow): Promise<void> {
  const { id } = await its.confirmedUpload("bytes", { owner });
  const refused = await cli.run("--json", "uploads", "delete", id);
  assert.equal(refused.exitCode, 1);
  assert.equal(JSON.parse(refused.stderr).error.code, "CONFIRMATION_REQUIRED");
  assert.equal((await cli.type("n\n", "uploads", "delete", id)).exitCode, 1);
  assert.equal((await cliWith(its.owner.key).run("uploads", "delete", id, "--yes")).exitCode, 0, "a 404 is success");
  assert.equal(bytesUsed(), 5, "a foreign key's delete and two that were not confirmed took nothing");

  const deleted = await cli.type("y\n", "uploads", "delete", id);
  assert.equal(deleted.exitCode, 0);
  assert.equal(bytesUsed(), 0);
  const again = await cli.type("y\n", "uploads", "delete", id);
  assert.equal(again.exitCode, 1);
  assert.match(again.stderr, /\[NOT_FOUND\] There is no such upload/);
  assert.equal(await cli.text("uploads", "delete", id, "--yes"), `Deleted upload ${id}.\n`);
  assert.deepEqual(await cli.json("uploads", "delete", UNKNOWN, "--yes"), { ok: true });

  for (const malformed of ["nonsense", ""]) {
    const { code, message } = await cli.fails("uploads", "delete", malformed, "--yes");
    assert.equal(code, "VALIDATION_ERROR");
    assert.match(message, /upload_id.*UUID/);
  }
}

async function workflows({ cli }: Flow): Promise<void> {
  assert.match(await cli.text("workflows", "list"), /No results|Showing 0 of 0/);
  const made = await cli.text("workflows", "create", "--name", "First", "--description", "Some words");
  const id = /^Created workflow ([0-9a-f-]{36})\.$/m.exec(made)?.[1] ?? "";
  const other = await cli.json(
    "workflows",
    "create",
    "--name",
    "First",
    "--definition",
    '{"graph":{"nodes":[],"edges":[]},"execution":{"steps":[],"params":{}}}',
  );
  assert.equal(other.name, "First", "names need not be unique");

  assert.equal((await cli.json("workflows", "show", id)).description, "Some words");
  await cli.text("workflows", "update", id, "--name", "Second");
  assert.match(await cli.text("workflows", "show", id), /Second/);
  const listed = await cli.json("workflows", "list", "--limit", "1", "--sort", "name", "--order", "desc");
  assert.deepEqual(
    listed.map(({ name }: { name: string }) => name),
    ["Second"],
  );
  assert.match(await cli.text("workflows", "list", "--search", "seco"), /Second/);
  assert.deepEqual(await cli.json("workflows", "uploads", id), []);
  const tooMany = await cli.fails("workflows", "list", "--limit", "101");
  assert.equal(tooMany.code, "VALIDATION_ERROR");
  assert.match(tooMany.message, /limit.*1 to 100/);

  await cli.text("workflows", "delete", id, "--yes");
  assert.deepEqual(await cli.json("workflows", "delete", id, "--yes"), { ok: true });
  const gone = await cli.fails("workflows", "show", id);
  assert.deepEqual(gone, { code: "NOT_FOUND", message: "There is no such workflow" });
  assert.equal((await cli.fails("workflows", "delete", "nonsense", "--yes")).code, "VALIDATION_ERROR");
}

async function errors({ its, owner, cli, cliWith, file }: Flow): Promise<void> {
  const script = await file("a.txt", "x".repeat(QUOTA_BYTES));
  const create = (name: string): string[] => ["uploads", "create", "--file", name, "--category", "script"];

  const bad = cliWith(`op_live_${"A".repeat(32)}`);
  for (const args of [["whoami"], create(script)]) {
    const { code, message } = await bad.fails(...args);
    assert.equal(code, "INVALID_API_KEY");
    assert.match(message, /This API key is not known/);
  }
  const login = await cliWith(null).run("login", "--key", "op_test_x", "--base-url", its.app.url);
  assert.equal(login.exitCode, 1);
  assert.match(login.stderr, /INVALID_API_KEY/);
  assert.equal((await cliWith(null).fails("usage", "summary")).code, "NOT_AUTHENTICATED");

  const readOnly = await its.app.core.keys.create({ workspaceId: owner.workspaceId, scopes: ["workflows:read"] });
  const lacking = await cliWith(readOnly.apiKey).fails(...create(script));
  assert.deepEqual(lacking, { code: "FORBIDDEN", message: 'This API key lacks the scope "uploads:write"' });
  const elsewhere = await cli.fails("--workspace", its.owner.workspaceId, ...create(script));
  assert.equal(elsewhere.code, "FORBIDDEN");
  assert.match(elsewhere.message, /X-Workspace-Id names another workspace/);

  for (const [name, allowed] of [
    ["a.exe", /txt.*pdf/],
    ["noext", /must end in one of/],
  ] as const) {
    const { code, message } = await cli.fails(...create(await file(name, "x")));
    assert.equal(code, "VALIDATION_ERROR");
    assert.match(message, allowed);
  }
  assert.equal((await cli.fails(...create("missing.txt"))).code, "FILE_NOT_FOUND");

  // The first fits to the byte, the second does not.
  const workflow = (await cli.json("workflows", "create", "--name", "Full")).id;
  const { id } = await cli.json(...create(script));
  assert.equal((await cli.fails("uploads", "confirm", id, "--workflow-id", UNKNOWN)).code, "NOT_FOUND");
  await cli.text("uploads", "confirm", id, "--workflow-id", workflow);
  const more = (await cli.json(...create(await file("b.txt", "y")))).id;
  const full = await cli.fails("uploads", "confirm", more, "--workflow-id", workflow);
  assert.equal(full.code, "STORAGE_LIMIT_EXCEEDED");
  assert.match(full.message, /100/);
  await cli.text("uploads", "delete", id, "--yes");
  await cli.text("uploads", "confirm", more, "--workflow-id", workflow);

  const unsent = await its.createUpload({ filename: "c.txt", category: "script", key: owner.key });
  const early = await cli.fails("uploads", "confirm", unsent.id, "--workflow-id", workflow);
  assert.equal(early.code, "VALIDATION_ERROR");
  assert.match(early.message, /upload.url/i);
}

async function usageAndWorkspaces({ its, owner, cli, cliWith }: Flow): Promise<void> {
  assert.match(await cli.text("usage", "summary", "--range", "60d", "--timezone", "Europe/Paris"), /Europe\/Paris/);
  assert.equal((await cli.json("usage", "summary", "--activity-view", "weekly")).activity.buckets.length, 12);
  assert.match(await cli.text("usage", "activity"), /No results/);
  assert.deepEqual(await cli.json("usage", "activity", "--limit", "5"), []);
  assert.deepEqual((await cli.json("usage", "by-language")).languages, []);
  await cli.text("usage", "by-language");
  const zone = await cli.fails("usage", "summary", "--timezone", "Mars/Base");
  assert.equal(zone.code, "VALIDATION_ERROR");
  assert.match(zone.message, /timezone/);

  assert.deepEqual(
    (await cli.json("workspace", "list")).map(({ id }: { id: string }) => id),
    [owner.workspaceId],
  );
  assert.match(await cli.text("workspace", "show", owner.workspaceId), new RegExp(owner.workspaceId));
  assert.deepEqual(await cli.json("workspace", "settings", owner.workspaceId), { default_language: null, theme: null });
  assert.equal((await cli.fails("workspace", "show", its.owner.workspaceId)).code, "NOT_FOUND");
  const create = ["workspace", "create", "--name", "Mine"];
  const refused = await cli.fails(...create);
  assert.equal(refused.code, "FORBIDDEN");
  assert.match(refused.message, /session/);

  const session = cliWith(await its.issuer.mint({ sub: `cli-${owner.userId}`, email: "cli@example.com", name: "CLI" }));
  assert.equal((await session.json("whoami")).auth_kind, "clerk");
  const made = await session.json(...create, "--color-idx", "3");
  assert.equal(made.color_idx, 3);
  assert.match(await session.text("workspace", "list"), /Mine/);
  assert.equal((await session.json("workspace", "show", made.id)).slug, made.slug);
  await session.text("workspace", "settings", made.id);
  const none = await session.fails("workflows", "list");
  assert.equal(none.code, "BAD_REQUEST");
  assert.match(none.message, /X-Workspace-Id/);
  assert.deepEqual(await session.json("--workspace", made.id, "workflows", "list"), []);
}

async function sdk({ its, owner, home }: Flow, { python, kind }: { python: string; kind: string }): Promise<void> {
  const { exitCode, stdout, stderr } = await runClient(python, [SDK_PROGRAM, kind, owner.workspaceId], {
    home,
    env: { ONEPIN_BASE_URL: its.app.url, ONEPIN_API_KEY: owner.key },
  });
  assert.equal(exitCode, 0, stderr);
  // The classes are those that each of the package's methods declares; only 422 is declared everywhere.
  const notFound = { type: "ApiError", status: 404, code: "NOT_FOUND" };
  const invalid = { type: "UnprocessableEntityError", status: 422, code: "VALIDATION_ERROR" };
  assert.deepEqual(JSON.parse(stdout), {
    whoami: ["api_key", owner.workspaceId],
    listed: true,
    named: "Other",
    shown: "Other",
    pending: ["Grüße.txt", "pending", null],
    early: invalid,
    put: 200,
    confirmed: ["uploaded", 17, 11, 2, true],
    download: true,
    of_workflow: true,
    used: 17,
    lines: 2,
    activity: [],
    by_language: [],
    workspaces: true,
    workspace: true,
    settings: null,
    limit: QUOTA_BYTES,
    credits: 0,
    new_workspace: { type: "ApiError", status: 403, code: "FORBIDDEN" },
    deleted: {},
    again: notFound,
    unknown: notFound,
    malformed: invalid,
    category: invalid,
    left: 0,
    gone: notFound,
  });
}
