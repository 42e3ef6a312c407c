// Goal: whatever reads the log may stand still: the service goes on, its memory does not grow, and what was lost is told.
// Method: the real program with a full pipe for its log; each request is one line, so lines and losses can be added up.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { type TestContext, test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { createLog } from "../lib/log.ts";
import { afterwards } from "./_db.ts";
import { initProgram, logLines, PROGRAM } from "./_process.ts";
import { until } from "./_until.ts";

const MIB = 1024 * 1024;
/** A line has some 200 bytes. */
const REQUESTS = 60_000;

/** `serve` with a log that the test reads when it wants to. */
async function serveUnread(t: TestContext) {
  const { dataDir } = await initProgram(t);
  const child = spawn(process.execPath, [PROGRAM, "serve"], {
    env: { PATH: process.env.PATH, STOWAGE_DATA_DIR: dataDir, STOWAGE_PORT: "0", STOWAGE_MIN_FREE_BYTES: "0" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = once(child, "close");
  afterwards(t, async () => {
    child.kill("SIGKILL");
    child.stderr.resume();
    await ended;
  });
  const read = { text: "" };
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    read.text += text;
  });
  await until(() => read.text.includes('"msg":"listening"'), "it listens");
  const listening = logLines(read.text).find(({ msg }) => msg === "listening");
  return { child, ended, read, port: Number(new URL(listening?.url).port) };
}

/** Sends so many requests, some at a time on each of a few connections, and resolves when all are answered. */
async function flood(port: number, requests: number): Promise<void> {
  const [connections, atOnce] = [20, 4];
  async function lane(): Promise<void> {
    const socket = connect(port, "127.0.0.1");
    const request = "GET /no/such/path HTTP/1.1\r\nHost: x\r\n\r\n".repeat(atOnce);
    for (let left = requests / connections; left > 0; left -= atOnce) {
      socket.write(request);
      let answers = "";
      while (answers.split("request_id").length - 1 < atOnce) answers += String((await once(socket, "data"))[0]);
    }
    socket.destroy();
  }
  await Promise.all(Array.from({ length: connections }, lane));
}

test("while nobody reads the log requests are served and lines are dropped; when it is read again a line says how many", async (t) => {
  const { child, read, port } = await serveUnread(t);
  child.stderr.pause();
  await flood(port, REQUESTS);
  read.text = "";
  child.stderr.resume();
  await until(() => read.text.includes("log_lines_dropped"), "the losses are told");
  await flood(port, 80);
  const requests = () => read.text.split('"msg":"request"').length - 1;
  const told = logLines(read.text.slice(0, read.text.lastIndexOf("\n") + 1)).filter(
    (line) => line.msg === "log_lines_dropped",
  );
  assert.equal(told.length, 1);
  const dropped = Number(told[0]?.dropped);
  assert.equal(told[0]?.level, "warn");
  await until(() => requests() + dropped === REQUESTS + 80, "each request was written or is counted");
  assert.ok(dropped > REQUESTS / 4, `${dropped} were dropped`);
  assert.ok(read.text.length < 6 * MIB, `${read.text.length} bytes were kept`);
});

test("SIGTERM ends a service whose log nobody reads", async (t) => {
  const { child, ended, port } = await serveUnread(t);
  child.stderr.pause();
  await flood(port, 5_000);
  child.kill("SIGTERM");
  const exited = once(child, "exit");
  assert.deepEqual(await exited, [0, null]);
  child.stderr.resume();
  await ended;
});

test("lines are dropped from the limit on, errors only from twice as much, until the reader has taken everything", async () => {
  let untaken = "";
  let take: () => void = () => {};
  const log = createLog({
    level: "info",
    write: (text) => {
      untaken += text;
    },
    untakenBytes: () => untaken.length,
    onceTaken: (callback) => {
      take = callback;
    },
  });
  const kib = "x".repeat(1024);
  function log10Mib(level: "info" | "error"): void {
    for (let i = 0; i < 10_240; i++) {
      log[level](level, { kib });
      log.flush();
    }
  }
  log10Mib("info");
  assert.ok(untaken.length > 4 * MIB && untaken.length < 4.1 * MIB, `${untaken.length} bytes`);
  log10Mib("error");
  assert.ok(untaken.length > 8 * MIB && untaken.length < 8.1 * MIB, `${untaken.length} bytes`);
  const written = logLines(untaken);
  untaken = "";
  take();
  log.info("after");
  await nextTurn();
  const [told, after, ...more] = logLines(untaken);
  assert.deepEqual([told.msg, told.level, told.dropped], ["log_lines_dropped", "warn", 20_480 - written.length]);
  assert.equal(after.msg, "after");
  assert.deepEqual(more, []);

  // The next time it is counted anew.
  log10Mib("info");
  untaken = "";
  take();
  assert.ok(logLines(untaken)[0].dropped < 10_240);
});
