import type { TestContext } from "node:test";

/**
 * Skips a test because this machine lacks something, so that nobody mistakes it for a pass. With `CI=true` nothing may
 * be lacking, and the test fails instead.
 */
export function skipLoudly(t: TestContext, what: string, how: string): void {
  if (process.env.CI === "true") throw new Error(`${what}. With CI=true this must not be skipped: ${how}`);
  process.stderr.write(`\n*** NOT RUN: "${t.name}": ${what}. To run it: ${how}\n\n`);
  t.skip(what);
}
