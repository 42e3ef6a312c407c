// Goal: a newcomer's first minute. Method: what is committed, cloned into a fresh folder, and `./scripts/start` in it.
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { request } from "undici";
import { temporaryFolder } from "./_app.ts";
import { skipLoudly } from "./_loud_skip.ts";
import { collectOutput } from "./_output.ts";
import { logLines } from "./_process.ts";

const REPOSITORY = fileURLToPath(new URL("..", import.meta.url));

interface Started {
  child: ChildProcess;
  url: string;
  stdout: string;
  stderr: string;
}

/** Runs the start script as a newcomer does, and resolves once it serves. */
async function start(t: TestContext, folder: string): Promise<Started> {
  // Neither our settings nor our tools: what the script needs it must install.
  const { PATH = "", HOME = "" } = process.env;
  const path = PATH.split(":").filter((entry) => !entry.includes("node_modules"));
  const child = spawn("./scripts/start", {
    cwd: folder,
    env: { PATH: path.join(":"), HOME, STOWAGE_PORT: "0" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = once(child, "close");
  t.after(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  const output = collectOutput(child);
  await new Promise<void>((resolve, reject) => {
    child.stderr.on("data", () => {
      if (output.stderr.includes('"msg":"listening"')) resolve();
    });
    void ended.then(() => reject(new Error(`It ended before it served: ${output.stderr}`)), reject);
  });
  const [listening] = logLines(output.stderr.slice(output.stderr.indexOf('{"time"')));
  return { child, url: listening.url, ...output };
}

test("./scripts/start in a clean clone installs, prints a key once, and serves; again it just serves", async (t) => {
  if (process.env.CI !== "true" && process.env.STOWAGE_TEST_START !== "1") {
    return skipLoudly(t, "it installs packages into a fresh clone", "set STOWAGE_TEST_START=1");
  }
  if (spawnSync("git", ["-C", REPOSITORY, "rev-parse", "HEAD"]).status !== 0) {
    return skipLoudly(t, "this is no git repository", "run it in a clone");
  }
  const folder = join(await temporaryFolder(t), "clone");
  execFileSync("git", ["clone", "--quiet", "--no-hardlinks", REPOSITORY, folder]);

  const first = await start(t, folder);
  const keys = [...new Set(first.stdout.match(/op_live_[A-Za-z0-9]{32}/g))];
  assert.equal(keys.length, 1);
  assert.match(first.stdout, /curl .*\/api\/v1\/uploads/);
  const headers = { Authorization: `Bearer ${keys[0]}` };
  const whoami = await request(`${first.url}/api/v1/auth/whoami`, { headers });
  assert.equal(whoami.statusCode, 200);
  await whoami.body.dump();

  first.child.kill("SIGTERM");
  const [exitCode] = await once(first.child, "close");
  assert.equal(exitCode, 0, "the signal reaches the server itself");

  const second = await start(t, folder);
  assert.equal(second.stdout, "");
  assert.ok(!second.stderr.includes("Installing"));
  const again = await request(`${second.url}/api/v1/auth/whoami`, { headers });
  assert.equal(again.statusCode, 200);
  await again.body.dump();
});
