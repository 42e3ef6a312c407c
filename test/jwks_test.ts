import assert from "node:assert/strict";
import { pipeline, Readable } from "node:stream";
import { test } from "node:test";
import {
  JWKS_BYTES_MAX,
  JWKS_COOLDOWN_MS,
  JWKS_FRESH_MS,
  JWKS_KEYS_MAX,
  JWKS_RETRY_MS,
  JWKS_STALE_MAX_MS,
} from "../lib/auth/jwks.ts";
import { AppError } from "../lib/errors.ts";
import { createLog } from "../lib/log.ts";
import { json, newKey, startIssuer, type TestIssuer, text } from "./_issuer.ts";
import { until } from "./_until.ts";

/** Longer than a test may take: what waits for the issuer in spite of all then fails the test. */
const FOR_EVER_MS = 600_000;
const TEST_LIMIT = { timeout: 60_000 };

test("keys are asked for once, however many tokens come at once", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const tokens = Array.from({ length: 100 }, (_, i) => issuer.token({ sub: `user_${i}` }));
  await Promise.all(tokens.map(verify));
  await verify(issuer.token({ sub: "later" }));
  assert.equal(issuer.fetches(), 1);
});

test("a flood of unknown keys makes one question in each cool-down, and disturbs nobody", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const flood = async (name: string): Promise<void> => {
    const tokens = Array.from({ length: 300 }, (_, i) => issuer.token({}, { kid: `${name}-${i}` }));
    const outcomes = await Promise.all([
      ...tokens.map((token) => codeOf(verify(token))),
      codeOf(verify(issuer.token())),
    ]);
    assert.deepEqual(outcomes, [...tokens.map(() => "unauthorized"), "ok"]);
  };
  await flood("first");
  assert.equal(issuer.fetches(), 1, "the set that was asked for is the answer for all");
  issuer.advance(JWKS_COOLDOWN_MS - 1);
  await flood("second");
  assert.equal(issuer.fetches(), 1);
  issuer.advance(1);
  await flood("third");
  assert.equal(issuer.fetches(), 2);
});

test("a new key is known as soon as the cool-down is over", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  await verify(issuer.token());
  const next = await newKey("key-2");
  issuer.publish([issuer.key.publicJwk, next.publicJwk]);
  assert.equal(await codeOf(verify(issuer.token({}, {}, next))), "unauthorized");
  issuer.advance(JWKS_COOLDOWN_MS);
  assert.equal((await verify(issuer.token({}, {}, next))).subject, "user_1");
  await verify(issuer.token());
  assert.equal(issuer.fetches(), 2);
});

test("a clock that is set back does not keep the issuer unasked", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  await verify(issuer.token());
  issuer.advance(-3_600_000);
  const next = await newKey("key-2");
  issuer.publish([next.publicJwk]);
  await verify(issuer.token({}, {}, next));

  issuer.advance(-3_600_000);
  await verify(issuer.token({}, {}, next));
  await until(() => issuer.fetches() === 3, "the renewal of an answer from the future");
});

test("a withdrawn key is forgotten once the set is no longer fresh, with the tokens that it signed", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const token = issuer.token({ exp: issuer.now() / 1000 + 86_400 });
  const session = await verify(token);
  const next = await newKey("key-2");
  issuer.publish([next.publicJwk]);
  issuer.advance(JWKS_FRESH_MS);
  assert.equal(await verify(token), session);
  assert.equal(issuer.fetches(), 1);

  issuer.advance(1);
  assert.equal(await verify(token), session, "nobody waits for the renewal");
  await verify(issuer.token({}, {}, next)); // Joins the question that is open.
  assert.equal(issuer.fetches(), 2);
  assert.equal(await codeOf(verify(token)), "unauthorized");
});

test("a renewal that changes nothing forgets nothing", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const token = issuer.token({ exp: issuer.now() / 1000 + 86_400 });
  const session = await verify(token);
  issuer.advance(JWKS_FRESH_MS + 1);
  await verify(token);
  assert.equal(await codeOf(verify(issuer.token({}, { kid: "unknown" }))), "unauthorized");
  assert.equal(issuer.fetches(), 2);
  assert.equal(await verify(token), session);
});

test("while the issuer fails its last keys are used, for a day; then nobody can tell", TEST_LIMIT, async (t) => {
  const issuer = await startIssuer(t);
  let asked = 0;
  const counting: typeof fetch = (input, init) => {
    asked++;
    return fetch(input, init);
  };
  const { verify } = issuer.sessions({ fetch: counting });
  await verify(issuer.token());
  const answeredAtMs = issuer.now();
  issuer.answerWith((_req, res) => res.destroy());
  for (const ageMs of [JWKS_FRESH_MS + 1, 60 * 60_000, JWKS_STALE_MAX_MS]) {
    issuer.advance(answeredAtMs + ageMs - issuer.now());
    const askedBefore = asked;
    await verify(issuer.token());
    assert.equal(asked, askedBefore + 1, "renewed in the background");
    // A key that is not at hand may be a new one. Joins the question that is open.
    await unavailable(verify(issuer.token({}, { kid: "unknown" })), issuer);
    await verify(issuer.token({ sub: "in the pause after the failure" }));
    assert.equal(asked, askedBefore + 1);
  }
  issuer.advance(1);
  await unavailable(verify(issuer.token()), issuer);
  issuer.publish([issuer.key.publicJwk]);
  issuer.advance(JWKS_RETRY_MS);
  await verify(issuer.token());
});

test("a renewal that hangs holds nobody up whose key is at hand", TEST_LIMIT, async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions({ timeoutMs: FOR_EVER_MS });
  await verify(issuer.token());
  issuer.answerWith(() => {});
  issuer.advance(JWKS_FRESH_MS + 1);
  for (const sub of ["a", "b", "c"]) assert.equal((await verify(issuer.token({ sub }))).subject, sub);
  await until(() => issuer.fetches() === 2, "the renewal in the background");
});

test("without keys and without an issuer the answer is 503, from one question in each pause", TEST_LIMIT, async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions({ timeoutMs: 100 });
  issuer.answerWith(() => {});
  await Promise.all(Array.from({ length: 50 }, () => unavailable(verify(issuer.token()), issuer)));
  assert.equal(issuer.fetches(), 1);
  issuer.advance(JWKS_RETRY_MS - 1);
  await unavailable(verify(issuer.token()), issuer);
  assert.equal(issuer.fetches(), 1);

  // What is wrong with a token by itself is told all the same.
  assert.equal(await codeOf(verify(issuer.token({ exp: 1 }))), "unauthorized");
  assert.equal(await codeOf(verify(issuer.token({ iss: "https://evil.example" }))), "unauthorized");
  assert.equal(await codeOf(verify(issuer.token({}, { alg: "none" }))), "unauthorized");

  issuer.publish([issuer.key.publicJwk]);
  issuer.advance(1);
  await verify(issuer.token());
  assert.equal(issuer.fetches(), 2);
});

test("an issuer that refuses connections, or has no address, is unavailable", async (t) => {
  const issuer = await startIssuer(t);
  for (const jwksUrl of ["http://127.0.0.1:1/jwks.json", "http://no-such-host.invalid/jwks.json"]) {
    const { verify } = issuer.sessions({ jwksUrl });
    await unavailable(verify(issuer.token()), issuer);
  }
});

test("an answer that is no JWKS is a failure, whatever it is", TEST_LIMIT, async (t) => {
  const issuer = await startIssuer(t);
  const good = JSON.stringify({ keys: [issuer.key.publicJwk] });
  const answers = {
    html: text("<!doctype html><h1>It works</h1>", 200, { "Content-Type": "text/html" }),
    empty: text(""),
    array: json([issuer.key.publicJwk]),
    "no keys": json({}),
    "keys that are an object": json({ keys: { "key-1": issuer.key.publicJwk } }),
    null: json(null),
    "not UTF-8": (_req, res) =>
      res.end(
        Buffer.concat([Buffer.from(good.slice(0, -1)), Buffer.from(',"x":"'), Buffer.from([0xff]), Buffer.from('"}')]),
      ),
    "cut off": text(good.slice(0, -1)),
    "a reset connection": (_req, res) => {
      res.writeHead(200, { "Content-Length": good.length + 1 }).write(good);
      setImmediate(() => res.destroy());
    },
    "a body that never ends": (_req, res) => res.writeHead(200).write(good),
    ...Object.fromEntries(
      [201, 204, 304, 400, 404, 429, 500, 503].map((status) => [
        status,
        text(status === 204 || status === 304 ? "" : good, status),
      ]),
    ),
  } satisfies Record<string, Parameters<TestIssuer["answerWith"]>[0]>;
  for (const [name, answer] of Object.entries(answers)) {
    const { verify } = issuer.sessions({ timeoutMs: name === "a body that never ends" ? 100 : 5_000 });
    issuer.answerWith(answer);
    await unavailable(verify(issuer.token()), issuer);

    issuer.publish([issuer.key.publicJwk]);
    issuer.advance(JWKS_RETRY_MS);
    await verify(issuer.token());
    issuer.answerWith(answer);
    issuer.advance(JWKS_FRESH_MS + 1);
    await unavailable(verify(issuer.token({}, { kid: "unknown" })), issuer);
    assert.equal(await codeOf(verify(issuer.token())), "ok", `${name}: the keys at hand are used on`);
  }
});

test("a redirect is not followed", async (t) => {
  const issuer = await startIssuer(t);
  for (const status of [301, 302, 303, 307, 308]) {
    issuer.answerWith((req, res) => {
      if (req.url === "/elsewhere") json({ keys: [issuer.key.publicJwk] })(req, res);
      else res.writeHead(status, { Location: "/elsewhere" }).end();
    });
    const { verify } = issuer.sessions();
    await unavailable(verify(issuer.token()), issuer);
  }
  assert.ok(!issuer.paths.includes("/elsewhere"));
});

test("a JWKS of 10,000 keys is not read to its end", TEST_LIMIT, async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const keys = Array.from({ length: 10_000 }, (_, i) => ({ ...issuer.key.publicJwk, kid: `key-${i}` }));
  assert.ok(JSON.stringify({ keys }).length > JWKS_BYTES_MAX);
  issuer.publish(keys);
  await unavailable(verify(issuer.token()), issuer);
});

test("a JWKS without an end is given up, and its connection closed", TEST_LIMIT, async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions({ timeoutMs: FOR_EVER_MS });
  function* endless(): Generator<string> {
    yield '{"keys":[';
    while (true) yield "{},".repeat(10_000);
  }
  const closed = new Promise<unknown>((resolve) => {
    issuer.answerWith((_req, res) => pipeline(Readable.from(endless()), res.writeHead(200), resolve));
  });
  await unavailable(verify(issuer.token()), issuer);
  assert.ok((await closed) instanceof Error);
});

test("of many small keys only the first are looked at", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const beyond = await newKey("beyond");
  const filler = (length: number) => Array.from({ length }, () => ({}));
  issuer.publish([...filler(JWKS_KEYS_MAX - 1), issuer.key.publicJwk, beyond.publicJwk, ...filler(10_000)]);
  await verify(issuer.token());
  assert.equal(await codeOf(verify(issuer.token({}, {}, beyond))), "unauthorized");
});

test("an issuer that publishes no key any more is believed", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const token = issuer.token({ exp: issuer.now() / 1000 + 86_400 });
  await verify(token);
  issuer.publish([]);
  issuer.advance(JWKS_FRESH_MS + 1);
  assert.equal(await codeOf(verify(issuer.token({}, { kid: "unknown" }))), "unauthorized");
  assert.equal(await codeOf(verify(token)), "unauthorized");
});

test("an outage is logged once, and its end", async (t) => {
  const issuer = await startIssuer(t);
  let logged = "";
  const log = createLog({ level: "info", write: (line) => (logged += line) });
  const { verify } = issuer.sessions({ log });
  const good = issuer.token({ exp: issuer.now() / 1000 + 86_400 });
  await verify(good);
  issuer.answerWith(text("", 500));
  issuer.advance(JWKS_COOLDOWN_MS);
  for (let i = 0; i < 5; i++) {
    await unavailable(verify(issuer.token({}, { kid: "unknown" })), issuer);
    issuer.advance(JWKS_RETRY_MS);
  }
  issuer.publish([issuer.key.publicJwk]);
  assert.equal(await codeOf(verify(issuer.token({}, { kid: "unknown" }))), "unauthorized");
  log.flush();
  const events = logged
    .trim()
    .split("\n")
    .map((line): { msg?: unknown } => JSON.parse(line));
  assert.deepEqual(
    events.map(({ msg }) => msg),
    ["jwks_loaded", "jwks_failed", "jwks_loaded"],
  );
  assert.equal(issuer.fetches(), 7);
});

test("closing gives up a question that is open", TEST_LIMIT, async (t) => {
  const issuer = await startIssuer(t);
  const { verify, close } = issuer.sessions({ timeoutMs: FOR_EVER_MS });
  issuer.answerWith(() => {});
  const outcome = codeOf(verify(issuer.token()));
  await until(() => issuer.fetches() === 1, "the question");
  close();
  assert.equal(await outcome, "storage_unavailable");
});

async function codeOf(outcome: Promise<unknown>): Promise<string> {
  try {
    await outcome;
    return "ok";
  } catch (error) {
    if (error instanceof AppError) return error.code;
    throw error;
  }
}

/** Nobody can tell: the message names the issuer, and says nothing of where its keys are or of what went wrong. */
async function unavailable(outcome: Promise<unknown>, { issuer }: TestIssuer): Promise<void> {
  await assert.rejects(outcome, (error) => {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, "storage_unavailable");
    assert.equal(
      error.message,
      `Cannot check this session token: the identity provider "${issuer}" does not give its keys; ask again`,
    );
    assert.ok(error.retryAfterSeconds !== null && error.retryAfterSeconds >= 1);
    assert.ok(error.retryAfterSeconds <= JWKS_COOLDOWN_MS / 1000);
    return true;
  });
}
