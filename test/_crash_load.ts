import assert from "node:assert/strict";
import { Agent, type Dispatcher, request } from "undici";
import type { Json, Owner } from "./_app.ts";
import { bodyOf, newlyTracked, type Tracked } from "./_crash_uploads.ts";
import type { Random } from "./_random.ts";
import { IS_S3, isFolderRace } from "./_test_store.ts";

const WORKERS = 8;
/** Uploads that a worker keeps: enough to choose from, few enough to compare them all after each kill. */
const KEPT_MAX = 14;
/** Deletes that are sent at once. */
const DELETES_MAX = 60;

export type Load = ReturnType<typeof createLoad>;

/** The server went away before it answered. */
class Gone extends Error {}

interface Target {
  url: string;
  dispatcher: Agent;
}

interface Reply {
  status: number;
  bytes: Buffer;
  json: Json;
}

/** Clients that note what they asked and what they were answered. Each upload has one client. */
export function createLoad(owners: readonly Owner[], random: Random) {
  const uploadsOf: Tracked[][] = Array.from({ length: WORKERS }, () => []);
  let [unanswered, answers, bodies] = [0, 0, 0];

  /** Works until the server goes away. Rejects where an answer is not one that may come. */
  function work(url: string): Promise<void> {
    return untilGone(url, (server) =>
      uploadsOf.map(async (uploads) => {
        for (;;) await one(server, uploads);
      }),
    );
  }

  /** Deletes much of what there is, all at once, so that the cleaner has work. */
  function deleteMany(url: string): Promise<void> {
    const there = uploadsOf.flat().filter(({ state }) => state !== "deleted");
    return untilGone(url, (server) => random.some(there, DELETES_MAX).map((upload) => remove(server, upload, [200])));
  }

  async function one(server: Target, uploads: Tracked[]): Promise<unknown> {
    const there = uploads.filter(({ state }) => state !== "deleted");
    const upload = random.pick(there);
    const what = random.integer(1, 100);
    if (upload === undefined || (there.length < KEPT_MAX && what <= 30)) return create(server, uploads);
    if (there.length >= KEPT_MAX || what <= 42) return remove(server, upload, [200]);
    if (what <= 47) return removeTwice(server, upload);
    if (upload.state === "uploaded") return download(server, upload);
    if (upload.mayBeEmpty || what <= 60) return put(server, upload);
    if (what <= 66) return putBesideConfirm(server, upload);
    if (what <= 72) return together([confirm(server, upload, [200, 404]), remove(server, upload, [200])]);
    return confirm(server, upload, [200]);
  }

  async function create(server: Target, uploads: Tracked[]): Promise<void> {
    const owner = random.pick(owners) ?? assert.fail();
    unanswered++;
    const answer = await send(server, "POST", "/api/v1/uploads", owner, { filename: "a.bin", category: "file" });
    unanswered--;
    expectStatus(answer, [201]);
    uploads.push(newlyTracked(answer.json.data.upload.id, owner, answer.json.data.upload_url));
  }

  async function put(server: Target, upload: Tracked): Promise<void> {
    const number = ++bodies;
    upload.bodies.push(number);
    expectStatus(await sendBody(server, upload, number), [200]);
    upload.bodies = [number];
    upload.mayBeEmpty = false;
  }

  /** Which of the two comes first is the server's: a confirm that was answered tells by the bytes. */
  async function putBesideConfirm(server: Target, upload: Tracked): Promise<void> {
    const number = ++bodies;
    upload.bodies.push(number);
    const putting = sendBody(server, upload, number).then((answer) => expectStatus(answer, [200, 404]));
    const confirming = confirm(server, upload, [200, 503]);
    await together([putting, confirming]);
    if ((await confirming) === 200) await download(server, upload);
    else upload.bodies = [number];
  }

  async function confirm(server: Target, upload: Tracked, expected: number[]): Promise<number> {
    upload.mayBeConfirmed = true;
    const context = { context_type: "workspace", context_id: upload.owner.workspaceId };
    const answer = await send(server, "POST", `/api/v1/uploads/${upload.id}`, upload.owner, context);
    expectStatus(answer, expected);
    if (answer.status === 200 && upload.state === "pending") upload.state = "uploaded";
    return answer.status;
  }

  async function remove(server: Target, upload: Tracked, expected: number[]): Promise<number> {
    upload.mayBeDeleted = true;
    const answer = await send(server, "DELETE", `/api/v1/uploads/${upload.id}`, upload.owner);
    expectStatus(answer, expected);
    // A 404 as well: it has seen the other delete, which is thereby answered too.
    upload.state = "deleted";
    return answer.status;
  }

  async function removeTwice(server: Target, upload: Tracked): Promise<void> {
    const both = [remove(server, upload, [200, 404]), remove(server, upload, [200, 404])];
    await together(both);
    assert.deepEqual((await Promise.all(both)).sort(), [200, 404]);
  }

  async function download(server: Target, upload: Tracked): Promise<void> {
    const shown = await send(server, "GET", `/api/v1/uploads/${upload.id}`, upload.owner);
    expectStatus(shown, [200]);
    const file = await send(server, "GET", placeOf(shown.json.data.download_url), null);
    expectStatus(file, [200]);
    assert.equal(file.bytes.length, shown.json.data.size_bytes);
    const number = Number(file.bytes.readBigUInt64BE());
    assert.ok(upload.bodies.includes(number) && file.bytes.equals(bodyOf(number)), `${upload.id} has other bytes`);
    upload.bodies = [number];
  }

  async function sendBody(server: Target, upload: Tracked, number: number): Promise<Reply> {
    for (;;) {
      const reply = await send(server, "PUT", placeOf(upload.uploadUrl), null, bodyOf(number));
      if (!isFolderRace(reply.status, reply.bytes.toString())) return reply;
    }
  }

  /** Where a URL of the embedded store leads now: the port is another after each start, and no part of what is signed. */
  function placeOf(url: string): string {
    const { pathname, search } = new URL(url);
    return IS_S3 ? url : pathname + search;
  }

  async function send(
    { url, dispatcher }: Target,
    method: Dispatcher.HttpMethod,
    path: string,
    owner: Owner | null,
    content?: Buffer | object,
  ): Promise<Reply> {
    const headers: Record<string, string> = {};
    if (owner !== null) headers.Authorization = `Bearer ${owner.key}`;
    if (content !== undefined && !Buffer.isBuffer(content)) headers["Content-Type"] = "application/json";
    const body = content === undefined ? null : Buffer.isBuffer(content) ? content : JSON.stringify(content);
    try {
      const answer = await request(path.startsWith("http") ? path : url + path, { method, dispatcher, headers, body });
      const bytes = Buffer.from(await answer.body.arrayBuffer());
      answers++;
      const isJson = String(answer.headers["content-type"]).includes("json");
      return { status: answer.statusCode, bytes, json: isJson ? JSON.parse(bytes.toString()) : undefined };
    } catch (error) {
      throw new Gone(`${method} ${path}`, { cause: error });
    }
  }

  return {
    work,
    deleteMany,
    uploads: () => uploadsOf.flat(),
    /** How many answers came in all. */
    answers: () => answers,
    /** How many creates were never answered since this was last asked: each may have made a row. */
    unansweredCreates() {
      const count = unanswered;
      unanswered = 0;
      return count;
    },
    forgetDeleted() {
      for (const [i, uploads] of uploadsOf.entries()) uploadsOf[i] = uploads.filter(({ state }) => state !== "deleted");
    },
  };
}

/** That the server goes away is what is wanted; anything else that goes wrong is a failure. */
async function untilGone(url: string, begin: (server: Target) => Promise<unknown>[]): Promise<void> {
  const dispatcher = new Agent({ connections: WORKERS * 8, pipelining: 1 });
  const ends = await Promise.allSettled(begin({ url, dispatcher }));
  await dispatcher.destroy();
  for (const end of ends) if (end.status === "rejected" && !(end.reason instanceof Gone)) throw end.reason;
}

/** Waits for all, also where one fails: nothing may go on when what is known is compared. */
async function together(work: Promise<unknown>[]): Promise<void> {
  const ends = await Promise.allSettled(work);
  const failures = ends.flatMap((end) => (end.status === "rejected" ? [end.reason] : []));
  const failure = failures.find((reason) => !(reason instanceof Gone)) ?? failures[0];
  if (failure !== undefined) throw failure;
}

function expectStatus({ status, bytes }: Reply, expected: number[]): void {
  assert.ok(expected.includes(status), `${status} instead of ${expected.join(" or ")}: ${bytes.toString()}`);
}
