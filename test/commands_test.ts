import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import Database from "better-sqlite3";
import { describeFailure, parseCommand } from "../lib/commands/command_line.ts";
import { COMMANDS } from "../lib/commands/commands.ts";
import { listSettings } from "../lib/config/config.ts";
import { VERSION } from "../lib/version.ts";
import { temporaryFolder } from "./_app.ts";
import { type Ended, initProgram, runProgram } from "./_process.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
const API_KEY = /^op_live_[A-Za-z0-9]{32}$/;

/** What the program says to wrong arguments, which it must notice before it looks for any data. */
async function refusalOf(argv: readonly string[]): Promise<{ text: string; exitCode: number }> {
  const env = { STOWAGE_DATA_DIR: "/nowhere/stowage" };
  try {
    const typed = parseCommand(COMMANDS, argv);
    assert.equal(typed.kind, "run");
    if (typed.kind === "run") await typed.command.run(typed.args, { env, out: () => {} });
  } catch (error) {
    return describeFailure(error);
  }
  throw new Error(`Nothing was wrong with ${argv.join(" ")}`);
}

async function modeOf(path: string): Promise<number> {
  return (await stat(path)).mode & 0o777;
}

/** A data directory and a way to run commands on it. */
async function initialised(t: TestContext) {
  const { dataDir, made } = await initProgram(t);
  const run = (...args: string[]): Promise<Ended> => runProgram(t, args, { STOWAGE_DATA_DIR: dataDir });
  async function succeed(...args: string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await run(...args);
    assert.equal(exitCode, 0, stderr);
    assert.equal(stderr, "");
    return stdout;
  }
  return { dataDir, made, run, succeed };
}

test("init --json prints the four parts; the data directory and its files are private", async (t) => {
  const { dataDir, made } = await initProgram(t);
  assert.deepEqual(Object.keys(made), ["workspace_id", "user_id", "api_key_id", "api_key"]);
  assert.match(made.workspace_id, UUID);
  assert.match(made.user_id, UUID);
  assert.match(made.api_key_id, UUID);
  assert.match(made.api_key, API_KEY);
  assert.equal(await modeOf(dataDir), 0o700);
  for (const file of ["stowage.db", "serve.lock", "url_signing.key"]) {
    assert.equal(await modeOf(join(dataDir, file)), 0o600, file);
  }
  const stored = await readFile(join(dataDir, "stowage.db"), "latin1");
  assert.ok(!stored.includes(made.api_key), "only the hash of a key is kept");
});

test("init tells people what to paste, with its name and quota", async (t) => {
  const dataDir = join(await temporaryFolder(t), "new", "data");
  const { exitCode, stdout, stderr } = await runProgram(t, ["init", "--name", "Acme", "--quota", "5"], {
    STOWAGE_DATA_DIR: dataDir,
  });
  assert.equal(exitCode, 0, stderr);
  assert.match(stdout, /^ {2}KEY=op_live_[A-Za-z0-9]{32}$/m);
  const list = await runProgram(t, ["workspaces", "list", "--json"], { STOWAGE_DATA_DIR: dataDir });
  const [workspace, ...others] = JSON.parse(list.stdout);
  assert.deepEqual(others, []);
  assert.deepEqual([workspace.name, workspace.storage_bytes_quota], ["Acme", 5]);
});

test("init refuses a name that cannot be, and can then be run again", async (t) => {
  const env = { STOWAGE_DATA_DIR: join(await temporaryFolder(t), "data") };
  const { exitCode, stdout, stderr } = await runProgram(t, ["init", "--name", " "], env);
  assert.deepEqual([exitCode, stdout], [1, ""]);
  assert.equal(stderr, "stowage: error: Invalid name: must have 1 to 200 characters\n");
  assert.equal((await runProgram(t, ["init"], env)).exitCode, 0);
});

test("init a second time changes nothing and says which command makes another key", async (t) => {
  const { dataDir, run } = await initialised(t);
  const contents = () =>
    Promise.all(["stowage.db", "url_signing.key"].map((file) => readFile(join(dataDir, file), "hex")));
  const before = await contents();
  const { exitCode, stdout, stderr } = await run("init");
  assert.equal(exitCode, 1);
  assert.equal(stdout, "");
  assert.equal(
    stderr,
    `stowage: error: "${dataDir}" has a workspace already and was left as it is\n` +
      "stowage: hint: `stowage workspaces list` shows it; `stowage keys create --workspace ID` makes another key for it\n",
  );
  assert.deepEqual(await contents(), before);
});

test("init goes on where an earlier one was cut off", async (t) => {
  const dataDir = join(await temporaryFolder(t), "data");
  await mkdir(dataDir, { mode: 0o700 });
  // The key is there and the database is empty: as after a kill between the two.
  await writeFile(join(dataDir, "url_signing.key"), Buffer.alloc(32, 7), { mode: 0o600 });
  new Database(join(dataDir, "stowage.db")).close();
  const { exitCode, stdout, stderr } = await runProgram(t, ["init", "--json"], { STOWAGE_DATA_DIR: dataDir });
  assert.equal(exitCode, 0, stderr);
  assert.match(JSON.parse(stdout).api_key, API_KEY);
  assert.deepEqual(await readFile(join(dataDir, "url_signing.key")), Buffer.alloc(32, 7));
});

test("workspaces are made, listed and given quotas", async (t) => {
  const { made, run, succeed } = await initialised(t);
  const created = JSON.parse(await succeed("workspaces", "create", "--name", "Second", "--quota", "100", "--json"));
  assert.deepEqual(Object.keys(created), ["workspace_id", "user_id"]);
  assert.match(created.workspace_id, UUID);
  const third = (await succeed("workspaces", "create", "--name", "Third")).trimEnd();
  assert.match(third, UUID, "for people the id alone, so that it can be piped");

  const raised = JSON.parse(await succeed("workspaces", "set-quota", created.workspace_id, "200", "--json"));
  assert.deepEqual(raised, { workspace_id: created.workspace_id, storage_bytes_quota: 200 });
  const rows = JSON.parse(await succeed("workspaces", "list", "--json"));
  const tenGib = 10 * 1024 ** 3;
  assert.deepEqual(rows, [
    { workspace_id: made.workspace_id, name: "default", storage_bytes_used: 0, storage_bytes_quota: tenGib },
    { workspace_id: created.workspace_id, name: "Second", storage_bytes_used: 0, storage_bytes_quota: 200 },
    { workspace_id: third, name: "Third", storage_bytes_used: 0, storage_bytes_quota: tenGib },
  ]);
  const [head, ...lines] = (await succeed("workspaces", "list")).trimEnd().split("\n");
  assert.match(head ?? "", /^workspace_id +name +storage_bytes_used +storage_bytes_quota$/);
  assert.match(lines[1] ?? "", new RegExp(`^${created.workspace_id} +Second +0 +200$`));

  const unknown = await run("workspaces", "set-quota", "nope", "1");
  assert.equal(unknown.exitCode, 1);
  assert.equal(
    unknown.stderr,
    'stowage: error: There is no workspace "nope"\nstowage: hint: `stowage workspaces list` shows the ids\n',
  );
});

test("keys are made, listed and revoked; a new one is printed once, alone on stdout", async (t) => {
  const { made, run, succeed } = await initialised(t);
  const options = ["--workspace", made.workspace_id, "--name", "ci", "--scopes", "uploads:write, workspace:read"];
  const limits = ["--expires", "30", "--rate-limit", "90"];
  const created = JSON.parse(await succeed("keys", "create", ...options, ...limits, "--json"));
  assert.deepEqual(Object.keys(created), ["workspace_id", "api_key_id", "api_key"]);
  assert.match(created.api_key, API_KEY);
  const second = await succeed("keys", "create", "--workspace", made.workspace_id);
  assert.match(second, /^op_live_[A-Za-z0-9]{32}\n$/);

  const revoked = JSON.parse(await succeed("keys", "revoke", created.api_key_id, "--json"));
  assert.deepEqual(revoked, { workspace_id: made.workspace_id, api_key_id: created.api_key_id });
  const text = await succeed("keys", "list", "--json");
  const row = JSON.parse(text).find((key: { api_key_id: string }) => key.api_key_id === created.api_key_id);
  assert.deepEqual(
    { name: row.name, ends_in: row.ends_in, scopes: row.scopes },
    { name: "ci", ends_in: created.api_key.slice(-row.ends_in.length), scopes: "uploads:write,workspace:read" },
  );
  const rates = JSON.parse(text).map((key: { rate_limit_per_min: number | null }) => key.rate_limit_per_min);
  assert.deepEqual(rates, [null, 90, null]);
  assert.ok(row.ends_in.length <= 6, "the list tells keys apart and gives none away");
  assert.equal(Date.parse(row.expires_at) - Date.parse(row.created_at), 30 * 86_400_000);
  assert.ok(Date.parse(row.revoked_at) >= Date.parse(row.created_at));
  for (const key of [created.api_key, second.trimEnd(), made.api_key]) assert.ok(!text.includes(key));

  for (const [args, message] of [
    [
      ["keys", "revoke", "nope"],
      'There is no API key with id "nope"\nstowage: hint: `stowage keys list` shows the ids',
    ],
    [
      ["keys", "create", "--workspace", "nope"],
      'There is no workspace "nope"\nstowage: hint: `stowage workspaces list` shows the ids',
    ],
    [
      ["keys", "create", "--workspace", made.workspace_id, "--expires", "0"],
      "Invalid expires: must be a whole number of days from 1 to 36500",
    ],
    [
      ["keys", "create", "--workspace", made.workspace_id, "--rate-limit", "1000001"],
      "Invalid rate-limit: must be a whole number of requests a minute from 1 to 1000000, or 0 for any number",
    ],
  ] as const) {
    const { exitCode, stdout, stderr } = await run(...args);
    assert.deepEqual([exitCode, stdout, stderr], [1, "", `stowage: error: ${message}\n`]);
  }
  const scope = await run("keys", "create", "--workspace", made.workspace_id, "--scopes", "uploads:writ");
  assert.match(scope.stderr, /^stowage: error: Invalid scopes: "uploads:writ" is not one of .*uploads:write/);
});

test("wrong usage ends with 2, says what is wrong, and how it is right", async (t) => {
  const CREATE =
    "usage: stowage keys create --workspace ID [--name NAME] [--scopes A,B] [--expires DAYS] [--rate-limit N] [--json]";
  const REVOKE = "usage: stowage keys revoke API_KEY_ID [--json]";
  const LIST = "`stowage help` lists the commands";
  for (const [args, what, hint] of [
    [[], "No command was given", LIST],
    [["srve"], 'There is no command "srve"; did you mean "serve"?', LIST],
    [["keys", "creat"], 'There is no command "keys creat"; did you mean "keys create"?', LIST],
    [["key", "list"], 'There is no command "key list"; did you mean "keys list"?', LIST],
    [["keys"], '"keys" needs a second word', "usage: stowage keys create | stowage keys list | stowage keys revoke"],
    [["--port", "80"], 'A command must come before "--port"', LIST],
    [["help", "nothing"], 'There is no command "nothing"; did you mean "config"?', LIST],
    [["keys", "create"], "--workspace is missing", CREATE],
    [
      ["keys", "create", "--workspace", "x", "--nam", "y"],
      'There is no option "--nam" here; did you mean "--name"?',
      CREATE,
    ],
    [
      ["keys", "create", "--workspace", "x", "--expires", "soon"],
      `--expires must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, not "soon"`,
      CREATE,
    ],
    [["keys", "revoke"], "API_KEY_ID is missing", REVOKE],
    [["keys", "revoke", "a", "b"], '"b" is one word too many', REVOKE],
    [["keys", "revoke", "a", "--json=yes"], "Option '--json' does not take an argument", REVOKE],
    [
      ["workspaces", "set-quota", "x", "1e9"],
      `BYTES must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, not "1e9"`,
      "usage: stowage workspaces set-quota WORKSPACE_ID BYTES [--json]",
    ],
    [
      ["init", "--quota", "9999999999999999"],
      `--quota must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, not "9999999999999999"`,
      "usage: stowage init [--name NAME] [--quota BYTES] [--json]",
    ],
  ] as const) {
    const refused = await refusalOf(args);
    assert.deepEqual(
      refused,
      { exitCode: 2, text: `stowage: error: ${what}\nstowage: hint: ${hint}\n` },
      args.join(" "),
    );
  }
  const { exitCode, stderr } = await runProgram(t, ["srve"], {});
  assert.equal(exitCode, 2);
  assert.match(stderr, /^stowage: error: There is no command "srve"; did you mean "serve"\?\nstowage: hint: /);
});

test("help lists every command, of one or of all, and goes to stdout", async (t) => {
  const { exitCode, stdout, stderr } = await runProgram(t, ["help"], {});
  assert.deepEqual([exitCode, stderr], [0, ""]);
  for (const { name, summary } of COMMANDS) {
    assert.ok(stdout.includes(`\n  ${name}`), name);
    assert.ok(stdout.includes(summary), summary);
  }
  for (const option of ["--help", "-h"]) assert.equal((await runProgram(t, [option], {})).stdout, stdout);
  const ofOne = await runProgram(t, ["keys", "revoke", "--help"], {});
  assert.match(ofOne.stdout, /^Usage: stowage keys revoke API_KEY_ID \[--json\]\n\nRevoke an API key/);
  assert.equal(ofOne.exitCode, 0);
  assert.equal((await runProgram(t, ["help", "keys", "revoke"], {})).stdout, ofOne.stdout);
});

test("version prints the version", async (t) => {
  for (const args of [["version"], ["--version"]]) {
    assert.equal((await runProgram(t, args, {})).stdout, `${VERSION}\n`);
  }
});

test("config prints every setting as JSON", async (t) => {
  const { exitCode, stdout } = await runProgram(t, ["config"], { STOWAGE_PORT: "8123", STOWAGE_LOG_LEVEL: "warn" });
  assert.equal(exitCode, 0);
  const settings = JSON.parse(stdout);
  assert.deepEqual(
    Object.keys(settings),
    listSettings().map(({ name }) => name),
  );
  assert.equal(settings.STOWAGE_PORT, 8123);
  assert.equal(settings.STOWAGE_LOG_LEVEL, "warn");
});

test("a command without a data directory says how to make one, and makes none", async (t) => {
  const dataDir = join(await temporaryFolder(t), "data");
  for (const args of [["serve"], ["keys", "list"], ["workspaces", "list"]]) {
    const { exitCode, stdout, stderr } = await runProgram(t, args, { STOWAGE_DATA_DIR: dataDir });
    assert.deepEqual([exitCode, stdout], [1, ""]);
    assert.equal(
      stderr,
      `stowage: error: There is no Stowage data in "${dataDir}"\n` +
        "stowage: hint: `stowage init` makes it; if it is elsewhere, set STOWAGE_DATA_DIR to that folder\n",
    );
  }
  await assert.rejects(stat(dataDir), { code: "ENOENT" });
});

test("init in a place that cannot be a folder says which setting to change", async (t) => {
  const file = join(await temporaryFolder(t), "file");
  await writeFile(file, "");
  const { exitCode, stderr } = await runProgram(t, ["init"], { STOWAGE_DATA_DIR: file });
  assert.equal(exitCode, 1);
  assert.equal(
    stderr,
    `stowage: error: Cannot make the data directory "${file}": EEXIST: file already exists, mkdir '${file}'\n` +
      "stowage: hint: set STOWAGE_DATA_DIR to a folder that this user may write to\n",
  );
});

test("a data directory where a file system takes none is refused, and not tried for ever", {
  skip: process.platform !== "linux" && "only Linux has /proc",
}, async (t) => {
  const { exitCode, stderr } = await runProgram(t, ["init"], { STOWAGE_DATA_DIR: "/proc/stowage/data" });
  assert.equal(exitCode, 1);
  assert.match(stderr, /^stowage: error: Cannot make the data directory "\/proc\/stowage\/data": ENOENT/);
});

test("a result that could not be printed is a failure, told in one line", async () => {
  const program = fileURLToPath(new URL("../server.ts", import.meta.url));
  const child = spawn(process.execPath, [program, "version"], { stdio: ["ignore", "pipe", "pipe"] });
  // The reader goes before anything is written.
  child.stdout.destroy();
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  const [exitCode] = await once(child, "close");
  assert.equal(exitCode, 1);
  assert.match(stderr, /^stowage: error: Cannot print the result: write EPIPE\n$/);
});
