// Goal: a first run that cannot serve makes no key, because the key would be shown once and for nothing.
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { temporaryFolder } from "../help/app.ts";
import { logLines, runProgram, startProgram } from "../help/process.ts";

/** A port that somebody else listens on. */
async function takenPort(t: TestContext): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return String(address.port);
}

test("serve --init makes a data directory, prints the key, and serves; a second time it just serves", async (t) => {
  const env = { STOWAGE_DATA_DIR: join(await temporaryFolder(t), "data") };
  const first = startProgram(t, ["serve", "--init"], { env });
  await first.says('"msg":"listening"');
  first.child.kill("SIGTERM");
  const ended = await first.ended;
  assert.equal(ended.exitCode, 0, ended.stderr);
  assert.match(ended.stdout, /^ {2}op_live_[A-Za-z0-9]{32}$/m);

  const second = startProgram(t, ["serve", "--init"], { env });
  await second.says('"msg":"listening"');
  second.child.kill("SIGTERM");
  assert.equal((await second.ended).stdout, "");
});

for (const setting of ["STOWAGE_PORT", "STOWAGE_METRICS_PORT"]) {
  test(`serve --init with a taken ${setting} prints no key and makes nothing`, async (t) => {
    const dataDir = join(await temporaryFolder(t), "data");
    const port = await takenPort(t);
    const env = { STOWAGE_DATA_DIR: dataDir, [setting]: port };
    const { exitCode, stdout, stderr } = await runProgram(t, ["serve", "--init"], env);
    assert.deepEqual([exitCode, stdout], [1, ""]);
    assert.equal(
      stderr,
      `stowage: error: Cannot listen on 127.0.0.1:${port}: another process uses this port\n` +
        `stowage: hint: stop it, or set ${setting} to another port\n`,
    );
    assert.ok(!existsSync(dataDir));
  });
}

test("serve --init with an S3 server that cannot be reached prints no key and makes nothing", async (t) => {
  const dataDir = join(await temporaryFolder(t), "data");
  const env = {
    STOWAGE_DATA_DIR: dataDir,
    STOWAGE_STORE: "s3",
    // A port of the reserved range that nothing listens on.
    STOWAGE_S3_ENDPOINT: "http://127.0.0.1:1",
    STOWAGE_S3_ACCESS_KEY: "a",
    STOWAGE_S3_SECRET_KEY: "b",
  };
  const { exitCode, stdout, stderr } = await runProgram(t, ["serve", "--init"], env);
  assert.deepEqual([exitCode, stdout], [1, ""]);
  assert.match(
    stderr,
    /^stowage: error: Cannot use the S3 server at http:\/\/127\.0\.0\.1:1: .+\nstowage: hint: .+\n$/,
  );
  assert.ok(!existsSync(dataDir));
});

test("serve warns once of the variables that Kubernetes makes for a Service with its name, and ignores them", async (t) => {
  const env = {
    STOWAGE_DATA_DIR: join(await temporaryFolder(t), "data"),
    STOWAGE_METRICS_PORT: "tcp://10.43.0.7:9000",
    STOWAGE_SERVICE_HOST: "10.43.0.7",
  };
  const program = startProgram(t, ["serve", "--init"], { env });
  await program.says('"msg":"listening"');
  program.child.kill("SIGTERM");
  const warnings = logLines((await program.ended).stderr).filter(({ msg }) => msg === "service_links_ignored");
  assert.deepEqual(
    warnings.map(({ variables }) => variables),
    [["STOWAGE_METRICS_PORT", "STOWAGE_SERVICE_HOST"]],
  );
});
