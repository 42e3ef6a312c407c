import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { type Answer, temporaryFolder } from "./_app.ts";
import { startFaultProxy } from "./_fault_proxy.ts";
import { assertKeyRefused, FILE, type KeyedApp, OTHER_REQUEST, startKeyedApp, UPLOADS } from "./_keyed_app.ts";
import { ONEPIN_VERSIONS, onepinCommands, runClient } from "./_onepin_cli.ts";

const run = promisify(execFile);

/** Sends requests while another process holds the write lock for a moment: they meet in one group. */
async function inOneGroup<T>({ sql }: KeyedApp, send: () => Promise<T>): Promise<T> {
  sql.exec("BEGIN IMMEDIATE");
  const answers = send();
  await delay(100);
  sql.exec("COMMIT");
  return answers;
}

const atOnce = <T>(count: number, send: (i: number) => Promise<T>) =>
  Promise.all(Array.from({ length: count }, (_, i) => send(i)));

const statuses = (answers: Answer[]) => answers.map(({ status }) => status).sort();

const MEETINGS = [
  ["as they come", (_its: KeyedApp, send: () => Promise<Answer[]>) => send()],
  ["in one transaction", (its: KeyedApp, send: () => Promise<Answer[]>) => inOneGroup(its, send)],
] as const;

for (const [how, meet] of MEETINGS) {
  test(`of many creates at once with one key one does it, and all get its answer: ${how}`, async (t) => {
    const its = await startKeyedApp(t);
    for (let round = 0; round < 10; round++) {
      const answers = await meet(its, () => atOnce(12, () => its.create(`key-${round}`)));
      for (const { status, json } of answers) {
        assert.equal(status, 201);
        assert.deepEqual(json.data, answers[0]?.json.data);
      }
      assert.equal(its.count("uploads"), round + 1);
    }
    assert.equal(its.count("idempotency_keys"), 10);
  });

  test(`of two requests at once with one key that ask for different things one is done: ${how}`, async (t) => {
    const its = await startKeyedApp(t);
    const answers = await meet(its, () => atOnce(8, (i) => its.create("a", { ...FILE, filename: `${i % 2}.bin` })));
    assert.deepEqual(statuses(answers), [201, 201, 201, 201, 422, 422, 422, 422]);
    for (const answer of answers) if (answer.status === 422) assertKeyRefused(answer, OTHER_REQUEST);
    assert.equal(its.count("uploads"), 1);
  });

  test(`of many deletes at once with one key all are 200, and the bytes come back once: ${how}`, async (t) => {
    const its = await startKeyedApp(t);
    const { id } = await its.confirmedUpload("12345");
    assert.deepEqual(statuses(await meet(its, () => atOnce(6, () => its.deleteAs("a", id)))), Array(6).fill(200));
    assert.equal(its.count("storage_events"), 2);
    const [one, other] = [await its.confirmedUpload("1"), await its.confirmedUpload("2")];
    const both = await meet(its, () => Promise.all([one, other].map((upload) => its.deleteAs("b", upload.id))));
    assert.deepEqual(statuses(both), [200, 422]);
    assert.equal(its.count("uploads"), 1);
    its.check();
  });
}

test("of many confirms at once with one key all are 200, and one is charged", async (t) => {
  const its = await startKeyedApp(t);
  const { id } = await its.staged("12345");
  const answers = await atOnce(6, () => its.confirmAs("a", id));
  assert.deepEqual(statuses(answers), Array(6).fill(200));
  assert.equal(its.count("storage_events"), 1);
  its.check();
  await its.checkEnd();
});

test("of confirms of two uploads at once with one key one is done; the other is as if it had not been asked", async (t) => {
  const its = await startKeyedApp(t);
  const ids = [(await its.staged("12345")).id, (await its.staged("12")).id];
  const answers = await Promise.all(ids.map((id) => its.confirmAs("a", id)));
  assert.deepEqual(statuses(answers), [200, 422]);
  assert.deepEqual(ids.map(its.statusOf).sort(), ["pending", "uploaded"]);
  assert.equal(its.count("storage_events"), 1);
  its.check();
  // It can be confirmed with a key of its own, and the copy that was made in vain goes.
  const [left = ""] = ids.filter((id) => its.statusOf(id) === "pending");
  assert.equal((await its.confirmAs("b", left)).status, 200);
  assert.equal(its.usedBytes(), 7);
  await its.checkEnd();
});

// A process that is killed leaves what was committed. So what has to hold is that the deed and its memory are in one
// transaction: then a kill leaves both or neither, whenever it comes.
test("where the memory cannot be written the deed is not done, and where the deed fails nothing is remembered", async (t) => {
  const its = await startKeyedApp(t);
  const staged = await its.staged("12345");
  const confirmed = await its.confirmedUpload("12");
  const [events, uploads] = [its.count("storage_events"), its.count("uploads")];
  const requests = [() => its.create("a"), () => its.confirmAs("b", staged.id), () => its.deleteAs("c", confirmed.id)];
  for (const [deed, table] of [
    ["memory", "INSERT ON idempotency_keys"],
    ["create", "INSERT ON uploads"],
    ["confirm", "UPDATE OF status ON uploads"],
    ["delete", "DELETE ON uploads"],
  ]) {
    its.sql.exec(`CREATE TRIGGER broken AFTER ${table} BEGIN SELECT RAISE(ABORT, 'broken for the test'); END`);
    const answers: Answer[] = [];
    for (const [i, request] of requests.entries()) {
      if (deed === "memory" || deed === ["create", "confirm", "delete"][i]) answers.push(await request());
    }
    assert.deepEqual(statuses(answers), Array(answers.length).fill(500), deed);
    assert.equal(its.count("idempotency_keys"), 0, deed);
    assert.deepEqual([its.count("storage_events"), its.count("uploads")], [events, uploads], deed);
    assert.equal(its.statusOf(staged.id), "pending");
    its.sql.exec("DROP TRIGGER broken");
  }
  for (const request of requests) assert.ok((await request()).status < 300);
  assert.equal(its.count("idempotency_keys"), 3);
  its.check();
  await its.checkEnd();
});

/** A curl that repeats requests, in front of a proxy that loses the answer to the first. */
async function curlThrough(t: TestContext, its: KeyedApp) {
  const proxy = await startFaultProxy(t, its.app.url);
  async function curl(method: string, path: string, body: unknown, ...more: string[]): Promise<string> {
    const fault = proxy.setFault({ kind: "drop_response", times: 1 });
    const { stdout } = await run("curl", [
      ...["-sS", "--retry", "3", "--retry-all-errors", "--retry-delay", "1", "-X", method, proxy.url + path],
      ...["-H", `Authorization: Bearer ${its.owner.key}`, "-H", "Content-Type: application/json"],
      ...["-w", "%{http_code}", "-d", JSON.stringify(body), ...more],
    ]);
    assert.equal(fault.hits(), 1, "the answer was lost");
    return stdout.slice(-3);
  }
  return { proxy, curl };
}

test("curl --retry whose answer was lost makes one upload with the header, and two without it", async (t) => {
  const its = await startKeyedApp(t);
  const { proxy, curl } = await curlThrough(t, its);
  assert.equal(await curl("POST", UPLOADS, FILE, "-H", "Idempotency-Key: one"), "201");
  assert.equal(proxy.requests.length, 2);
  assert.equal(its.count("uploads"), 1);
  assert.equal(await curl("POST", UPLOADS, FILE), "201");
  assert.equal(its.count("uploads"), 3);
});

test("curl --retry whose answer was lost confirms and deletes once, and is answered 200", async (t) => {
  const its = await startKeyedApp(t);
  const { curl } = await curlThrough(t, its);
  const [{ id }, other] = [await its.staged("12345"), await its.confirmedUpload("1")];
  const bind = { context_type: "workspace", context_id: its.owner.workspaceId };
  assert.equal(await curl("POST", `${UPLOADS}/${id}`, bind, "-H", "Idempotency-Key: confirm"), "200");
  assert.equal(await curl("DELETE", `${UPLOADS}/${id}`, {}, "-H", "Idempotency-Key: delete"), "200");
  assert.equal(await curl("DELETE", `${UPLOADS}/${other.id}`, {}), "404", "without the header it cannot know");
  assert.equal(its.count("storage_events"), 4);
  assert.equal(its.usedBytes(), 0);
  its.check();
  await its.checkEnd();
});

const SDK_SCRIPT = `
import sys
from onepin import OnePinClient
base_url, token = sys.argv[1:]
client = OnePinClient(base_url=base_url, token=token)
def once(key):
    return {"additional_headers": {"Idempotency-Key": key}}
made = client.uploads.create(filename="a.txt", category="script", request_options=once("sdk-create"))
client.uploads.delete(made.data.upload.id, request_options=once("sdk-delete"))
plain = client.uploads.create(filename="a.txt", category="script")
print(made.data.upload.id, plain.data.upload.id)
`;

for (const version of ONEPIN_VERSIONS) {
  test(`the SDK ${version} repeats a request whose answer a gateway lost: with the header it is done once`, async (t) => {
    const commands = onepinCommands(t, version);
    if (commands === null) return;
    const its = await startKeyedApp(t);
    const proxy = await startFaultProxy(t, its.app.url);
    // Not a reset: after that this client gives up, after a 502 it asks again.
    const change = () => ({ status: 502, headers: {}, body: Buffer.from("Bad Gateway") });
    const lost = [/^sdk-create$/, /^sdk-delete$/, /^$/].map((value) =>
      proxy.setFault({ kind: "rewrite", change, times: 1, match: { header: ["idempotency-key", value] } }),
    );
    const home = await temporaryFolder(t);
    const args = ["-c", SDK_SCRIPT, proxy.url, its.owner.key];
    const { exitCode, stdout, stderr } = await runClient(join(commands, "python"), args, { home });
    assert.equal(exitCode, 0, stderr);
    assert.deepEqual(
      lost.map(({ hits }) => hits()),
      [1, 1, 1],
    );
    const [made = "", plain = ""] = stdout.trim().split(" ");
    assert.equal(its.statusOf(made), undefined, "deleted, and the repetition of that was no error");
    assert.equal(its.statusOf(plain), "pending");
    assert.equal(its.count("uploads"), 2, "without the header the lost one stays behind");
    const keys = its.sql.prepare("SELECT idempotency_key, upload_id FROM idempotency_keys ORDER BY 1").all();
    assert.deepEqual(keys, [
      { idempotency_key: "sdk-create", upload_id: made },
      { idempotency_key: "sdk-delete", upload_id: made },
    ]);
    its.check();
  });
}
