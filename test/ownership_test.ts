// Goal: data that another user owns, in whole or in part, is never taken for data that is not there: who owns what is
// told, with the command that mends it.
// Method: the real program as "nobody", on folders that root has made; the command that it names is run as it stands.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { afterwards } from "./_db.ts";
import { confirmUploads, fingerprints, isRoot, NOBODY, openFolder } from "./_operator.ts";
import { type Ended, type InitOutput, runProgram, serveProgram, startProgram } from "./_process.ts";

const AS_NOBODY = ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"];

interface Owned {
  dataDir: string;
  made: InitOutput;
  env: Record<string, string>;
  asNobody: (...args: string[]) => Promise<Ended>;
}

/** A data directory of root's with an upload in it, in a folder that everybody may pass through. */
async function rootsData(t: TestContext): Promise<Owned> {
  const folder = openFolder(t);
  chmodSync(folder, 0o755);
  const dataDir = join(folder, "data");
  const env = { STOWAGE_DATA_DIR: dataDir };
  const init = await runProgram(t, ["init", "--json"], env);
  assert.equal(init.exitCode, 0, init.stderr);
  const made: InitOutput = JSON.parse(init.stdout);
  const server = await serveProgram(t, dataDir);
  await confirmUploads(server, { key: made.api_key, workspaceId: made.workspace_id }, 1);
  server.child.kill("SIGTERM");
  await server.ended;
  return { dataDir, made, env, asNobody: (...args) => startProgram(t, args, { env, under: AS_NOBODY }).ended };
}

/** Serves as nobody and stops; the upload must be in the list. */
async function servesAsNobody(t: TestContext, { dataDir, made }: Owned): Promise<void> {
  const server = await serveProgram(t, dataDir, { under: AS_NOBODY });
  const { json } = await server.call("GET", "/api/v1/uploads", { key: made.api_key });
  assert.equal(json.pagination.total, 1);
  server.child.kill("SIGTERM");
  assert.equal((await server.ended).exitCode, 0);
}

/** Runs the command that a hint names, as root. */
function obey({ stdout, stderr }: Ended): void {
  const command = /(chown -R|chmod o\+x) ([\d:]+ )?"[^"]+"/.exec(stderr + stdout)?.[0];
  assert.ok(command !== undefined, `a command is named: ${stderr}`);
  execFileSync("sh", ["-c", command]);
}

const COMMANDS: readonly (readonly string[])[] = [
  ["serve"],
  ["init"],
  ["keys", "list"],
  ["doctor"],
  ["doctor", "storage"],
];

test("a data directory of another user: every command says whose it is, and none calls it missing", async (t) => {
  if (!isRoot(t)) return;
  const its = await rootsData(t);
  const before = fingerprints(its.dataDir);
  for (const args of COMMANDS) {
    const ended = await its.asNobody(...args);
    assert.equal(ended.exitCode, 1, args.join(" "));
    const said = ended.stdout + ended.stderr;
    assert.match(said, /user 65534 may not use ".*data" \(of user 0, root, group 0, root, mode 700\)/, args.join(" "));
    assert.match(said, /as root: chown -R 65534:65534 ".*data"/, args.join(" "));
    assert.doesNotMatch(said, /There is no|\n +at /, args.join(" "));
  }
  assert.deepEqual(fingerprints(its.dataDir), before);
  obey(await its.asNobody("serve"));
  await servesAsNobody(t, its);
});

test("a folder on the way that is closed is named, not called empty", async (t) => {
  if (!isRoot(t)) return;
  const its = await rootsData(t);
  execFileSync("chown", ["-R", `${NOBODY}:${NOBODY}`, its.dataDir]);
  chmodSync(join(its.dataDir, ".."), 0o700);
  for (const args of COMMANDS) {
    const { exitCode, stdout, stderr } = await its.asNobody(...args);
    assert.equal(exitCode, 1, args.join(" "));
    assert.match(stdout + stderr, /user 65534 may not use "\/tmp\/stowage-test-\w+" \(of user 0, root/, args.join(" "));
  }
  obey(await its.asNobody("serve"));
  await servesAsNobody(t, its);
});

for (const part of ["stowage.db", "serve.lock", "url_signing.key", "objects", "objects/final", "objects/staging"]) {
  test(`data of one user with ${part} of another: it is named, and the command mends it`, async (t) => {
    if (!isRoot(t)) return;
    const its = await rootsData(t);
    execFileSync("chown", ["-R", `${NOBODY}:${NOBODY}`, its.dataDir]);
    chownSync(join(its.dataDir, part), 0, 0);
    for (const args of [["serve"], ["doctor"], ["keys", "list"], ["init"]]) {
      const { exitCode, stdout, stderr } = await its.asNobody(...args);
      assert.equal(exitCode, 1, args.join(" "));
      const said = stdout + stderr;
      assert.ok(said.includes(`user 65534 may not use "${join(its.dataDir, part)}" (of user 0, root`), said);
      assert.doesNotMatch(said, /\n +at /);
    }
    obey(await its.asNobody("serve"));
    await servesAsNobody(t, its);
  });
}

for (const [part, mode] of [
  [".", 0o500],
  ["stowage.db", 0o400],
  ["objects", 0o500],
] as const) {
  test(`one's own data without the right to write ${part}: the mode is named, and the command mends it`, async (t) => {
    if (!isRoot(t)) return;
    const its = await rootsData(t);
    execFileSync("chown", ["-R", `${NOBODY}:${NOBODY}`, its.dataDir]);
    chmodSync(join(its.dataDir, part), mode);
    const ended = await its.asNobody("serve");
    assert.equal(ended.exitCode, 1);
    assert.match(ended.stderr, new RegExp(`of user 65534, group 65534, mode ${mode.toString(8)}\\)`));
    const command = /chmod u\+rwX "[^"]+"/.exec(ended.stderr)?.[0];
    assert.ok(command !== undefined, ended.stderr);
    execFileSync("sh", ["-c", command]);
    await servesAsNobody(t, its);
  });
}

test("the log of a killed server that ran as root is named to the user that comes after", async (t) => {
  if (!isRoot(t)) return;
  const its = await rootsData(t);
  const server = await serveProgram(t, its.dataDir);
  await confirmUploads(server, { key: its.made.api_key, workspaceId: its.made.workspace_id }, 1);
  server.child.kill("SIGKILL");
  await server.ended;
  for (const name of readdirSync(its.dataDir).filter((each) => !each.startsWith("stowage.db-"))) {
    execFileSync("chown", ["-R", `${NOBODY}:${NOBODY}`, join(its.dataDir, name)]);
  }
  chownSync(its.dataDir, NOBODY, NOBODY);
  const { exitCode, stderr } = await its.asNobody("serve");
  assert.equal(exitCode, 1);
  assert.match(stderr, /may not use ".*stowage\.db-wal" .*, ".*stowage\.db-shm"/);
});

test("objects of another user deep in the folders: a read is 503, a removal waits, and doctor names them", async (t) => {
  if (!isRoot(t)) return;
  const its = await rootsData(t);
  execFileSync("chown", ["-R", `${NOBODY}:${NOBODY}`, its.dataDir]);
  const deep = execFileSync("find", [join(its.dataDir, "objects", "final"), "-type", "f"], { encoding: "utf8" }).trim();
  chownSync(join(deep, ".."), 0, 0);
  const server = await serveProgram(t, its.dataDir, { under: AS_NOBODY });
  const key = its.made.api_key;
  const [upload] = (await server.call("GET", "/api/v1/uploads", { key })).json.data;
  const { download_url: url } = (await server.call("GET", `/api/v1/uploads/${upload.id}`, { key })).json.data;
  assert.equal((await server.call("GET", url)).status, 503);
  const { exitCode, stdout } = await its.asNobody("doctor");
  assert.equal(exitCode, 1);
  assert.match(stdout, /objects could not be compared: .*EACCES/);
  assert.match(stdout, /NO-ORPHAN/);
  assert.equal((await server.call("DELETE", `/api/v1/uploads/${upload.id}`, { key })).status, 200);
  execFileSync("chown", ["-R", `${NOBODY}:${NOBODY}`, its.dataDir]);
});

test("without url_signing.key serve makes a new one and says that older URLs are void; init repairs nothing", async (t) => {
  const folder = openFolder(t);
  const dataDir = join(folder, "data");
  const env = { STOWAGE_DATA_DIR: dataDir };
  const made: InitOutput = JSON.parse((await runProgram(t, ["init", "--json"], env)).stdout);
  const key = join(dataDir, "url_signing.key");
  const owner = { key: made.api_key, workspaceId: made.workspace_id };
  const first = await serveProgram(t, dataDir);
  const [id] = await confirmUploads(first, owner, 1);
  const { download_url: old } = (await first.call("GET", `/api/v1/uploads/${id}`, owner)).json.data;
  first.child.kill("SIGTERM");
  await first.ended;
  rmSync(key);

  const init = await runProgram(t, ["init"], env);
  assert.equal(init.exitCode, 1);
  assert.match(init.stderr, /has a workspace already and was left as it is/);
  assert.equal(existsSync(key), false, "what is refused is left as it is");
  assert.equal((await runProgram(t, ["keys", "list"], env)).exitCode, 0);
  const doctor = await runProgram(t, ["doctor"], env);
  assert.equal(doctor.exitCode, 1);
  assert.match(doctor.stdout, /^problem +files +there is no ".*url_signing\.key"\n.*`stowage serve` makes a new one/m);
  assert.match(doctor.stdout, /^ok +NO-GHOST/m, "the rest is looked at all the same");
  assert.equal(existsSync(key), false, "doctor changes nothing");

  const second = await serveProgram(t, dataDir);
  assert.match(second.stderr(), /"msg":"signing_key_made".*URLs that were given out before are void/);
  const { pathname, search } = new URL(old);
  assert.equal((await second.call("GET", `${pathname}${search}`)).status, 403);
  const { download_url: url } = (await second.call("GET", `/api/v1/uploads/${id}`, owner)).json.data;
  assert.equal((await second.call("GET", url)).text, "file 0");
});

test("objects on a disk of their own: its lost+found, which is root's, is nobody's concern", async (t) => {
  if (!isRoot(t)) return;
  const its = await rootsData(t);
  execFileSync("chown", ["-R", `${NOBODY}:${NOBODY}`, its.dataDir]);
  mkdirSync(join(its.dataDir, "objects", "lost+found"), { mode: 0o700 });
  await servesAsNobody(t, its);
  const { exitCode, stdout } = await its.asNobody("doctor");
  assert.equal(exitCode, 0, stdout);
});

test("the signing key has only to be readable: with mode 400, of root with group's right, or on a read-only mount", async (t) => {
  if (!isRoot(t)) return;
  const its = await rootsData(t);
  execFileSync("chown", ["-R", `${NOBODY}:${NOBODY}`, its.dataDir]);
  const key = join(its.dataDir, "url_signing.key");
  chmodSync(key, 0o400);
  await servesAsNobody(t, its);
  chownSync(key, 0, NOBODY);
  chmodSync(key, 0o440);
  await servesAsNobody(t, its);
  execFileSync("mount", ["--bind", key, key]);
  afterwards(t, () => execFileSync("umount", ["--lazy", key]));
  execFileSync("mount", ["-o", "remount,bind,ro", key]);
  await servesAsNobody(t, its);
});
