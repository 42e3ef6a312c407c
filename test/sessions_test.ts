import assert from "node:assert/strict";
import { createHmac, createPublicKey, generateKeyPairSync } from "node:crypto";
import { test } from "node:test";
import { ISSUED_AHEAD_MS_MAX, LEEWAY_MS, type Sessions, TOKEN_LENGTH_MAX } from "../lib/auth/sessions.ts";
import { AppError } from "../lib/errors.ts";
import { createLog } from "../lib/log.ts";
import { handMade, json, newKey, signed, startIssuer, type TestKey } from "./_issuer.ts";

test("a token of the issuer gives its subject, its end, its e-mail address and its name", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const exp = Math.floor(issuer.now() / 1000) + 60;
  const session = await verify(issuer.token({ exp, email: "ada@example.com", name: "Ada Lovelace" }));
  assert.deepEqual(session, {
    subject: "user_1",
    expiresAtMs: exp * 1000,
    email: "ada@example.com",
    name: "Ada Lovelace",
  });
  assert.deepEqual(await verify(issuer.token({ exp })), { ...session, email: null, name: null });
});

test("RS256 and ES256 are accepted, each with its own kind of key", async (t) => {
  const issuer = await startIssuer(t, "RS256");
  const elliptic = await newKey("key-2", "ES256");
  issuer.publish([issuer.key.publicJwk, elliptic.publicJwk]);
  const { verify } = issuer.sessions();
  assert.equal((await verify(issuer.token())).subject, "user_1");
  assert.equal((await verify(issuer.token({}, {}, elliptic))).subject, "user_1");
  await refuses(verify, issuer.token({}, { alg: "ES256" }), /does not publish/);
  await refuses(verify, issuer.token({}, { alg: "RS256" }, elliptic), /does not publish/);
});

test("whatever is not a JWT is told so, without asking the issuer", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const [header = "", payload = "", signature = ""] = issuer.token().split(".");
  const encrypted = `${header}.${payload}.${signature}.${payload}.${signature}`;
  for (const token of [
    ...["", ".", "..", "...", "hello", "op", "null", "a.b.c", "Ünïcödé.b.c", "\0.\0.\0"],
    `${header}.${payload}`,
    encrypted,
    `.${payload}.${signature}`,
    `${header}..${signature}`,
    `${Buffer.from("[]").toString("base64url")}.${payload}.${signature}`,
    `${header.slice(1)}.${payload}.${signature}`,
    handMade({ alg: "ES256", kid: "key-1" }, "not JSON"),
    handMade({ alg: "ES256", kid: "key-1" }, "[]"),
    handMade({ alg: "ES256", kid: "key-1" }, "null"),
    handMade({ alg: "ES256", kid: "key-1" }, '"text"'),
  ]) {
    await refuses(verify, token, /is not a JWT/);
  }
  assert.equal(issuer.fetches(), 0);
});

test("a token over the length limit is refused before it is looked into", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const padded = (length: number): string => issuer.token({ pad: "x".repeat(length) });
  await refuses(verify, padded(TOKEN_LENGTH_MAX), /is longer than 8192 characters/);
  await refuses(verify, "x".repeat(10_000_000), /is longer than 8192 characters/);
  await verify(padded((TOKEN_LENGTH_MAX * 3) / 4 - 300));
});

test("no algorithm but the two is accepted: not none, not HMAC with the public key, not another curve", async (t) => {
  const issuer = await startIssuer(t, "RS256");
  const { verify } = issuer.sessions();
  await verify(issuer.token());
  const claims = claimsOf(issuer.token());

  for (const alg of ["none", "None", "NONE", "nOnE", "", null, undefined, 256, ["RS256"], { RS256: 1 }]) {
    await refuses(
      verify,
      handMade({ alg, kid: "key-1" }, claims),
      /names the algorithm .*: accepted are RS256 and ES256/,
    );
    await refuses(verify, handMade({ alg, kid: "key-1" }, claims, "x"), /names the algorithm/);
  }

  const publicKey = createPublicKey({ key: issuer.key.publicJwk, format: "jwk" });
  const secrets = [
    publicKey.export({ type: "spki", format: "pem" }),
    publicKey.export({ type: "spki", format: "der" }),
    publicKey.export({ type: "pkcs1", format: "pem" }),
    JSON.stringify(issuer.key.publicJwk),
    String(issuer.key.publicJwk.n),
    "",
  ];
  for (const secret of secrets) {
    for (const [alg, digest] of [
      ["HS256", "sha256"],
      ["HS512", "sha512"],
      ["RS256", "sha256"],
    ] as const) {
      const unsigned = handMade({ alg, kid: "key-1" }, claims).slice(0, -1);
      const forged = `${unsigned}.${createHmac(digest, secret).update(unsigned).digest("base64url")}`;
      await refuses(verify, forged, alg === "RS256" ? /signature that does not hold/ : /names the algorithm "HS/);
    }
  }
  for (const alg of ["PS256", "RS384", "RS512", "ES384", "EdDSA", "Ed25519", "ES256K", "dir", "rs256", "RS256 "]) {
    await refuses(verify, issuer.token({}, { alg }), /names the algorithm/);
  }
  assert.equal(issuer.fetches(), 1);
});

test("an HMAC key that the issuer publishes is never used", async (t) => {
  const issuer = await startIssuer(t);
  const k = Buffer.from("a secret that everybody can read");
  issuer.publish([{ kty: "oct", kid: "shared", k: k.toString("base64url"), alg: "HS256", use: "sig" }]);
  const { verify } = issuer.sessions();
  for (const alg of ["HS256", "ES256"]) {
    const unsigned = handMade({ alg, kid: "shared" }, claimsOf(issuer.token())).slice(0, -1);
    const forged = `${unsigned}.${createHmac("sha256", k).update(unsigned).digest("base64url")}`;
    await refuses(verify, forged, alg === "HS256" ? /names the algorithm "HS256"/ : /does not publish/);
  }
});

test("a signature holds only for what was signed, with the key that is named", async (t) => {
  const issuer = await startIssuer(t);
  const stranger = await newKey("key-1");
  const other = await newKey("key-2");
  issuer.publish([issuer.key.publicJwk, other.publicJwk]);
  const { verify } = issuer.sessions();
  const token = issuer.token();
  const [header = "", payload = "", signature = ""] = token.split(".");
  await verify(token);

  const altered = Buffer.from(JSON.stringify({ ...claimsOf(token), sub: "user_2" })).toString("base64url");
  const bytes = Buffer.from(signature, "base64url");
  const flipped = Buffer.from(bytes.map((byte, i) => (i === 0 ? byte ^ 1 : byte)));
  for (const forged of [
    `${header}.${altered}.${signature}`,
    `${header}.${payload}.${flipped.toString("base64url")}`,
    `${header}.${payload}.${bytes.subarray(0, 32).toString("base64url")}`,
    `${header}.${payload}.${Buffer.alloc(64).toString("base64url")}`,
    `${header}.${payload}.`,
    issuer.token({}, {}, stranger),
    issuer.token({}, { kid: "key-2" }),
    issuer.token({}, { kid: "key-1" }, other),
  ]) {
    await refuses(verify, forged, /has a signature that does not hold/);
  }
  assert.equal((await verify(token)).subject, "user_1");
});

test("a key id is a name and nothing else", async (t) => {
  const issuer = await startIssuer(t);
  const stranger = await newKey("key-1");
  const { verify } = issuer.sessions();
  for (const kid of [
    "../../../../dev/null",
    "/etc/passwd",
    "file:///dev/null",
    `${issuer.issuer}/evil.json`,
    "key-1' OR '1'='1",
    "x'; DROP TABLE users; --",
    "key-1\0",
    " key-1",
    "KEY-1",
    "ES256 key-1",
    "__proto__",
    "constructor",
    "*",
    "k".repeat(4000),
  ]) {
    await refuses(verify, issuer.token({}, { kid }, stranger), /does not publish/);
    await refuses(verify, handMade({ alg: "ES256", kid }, claimsOf(issuer.token())), /does not publish/);
  }
  for (const kid of [undefined, null, "", 0, 1, true, [], ["key-1"], {}, { $ne: "" }]) {
    await refuses(verify, issuer.token({}, { kid }), /names no key/);
  }
  assert.deepEqual(issuer.paths, ["/.well-known/jwks.json"]);
});

test("a key that the token brings along, or an address of one, is never used", async (t) => {
  const issuer = await startIssuer(t);
  const stranger = await newKey("evil");
  issuer.answerWith((req, res) =>
    json({ keys: [req.url === "/.well-known/jwks.json" ? issuer.key.publicJwk : stranger.publicJwk] })(req, res),
  );
  const { verify } = issuer.sessions();
  const url = `${issuer.issuer}/evil.json`;
  for (const extra of [{ jku: url }, { x5u: url }, { jwk: stranger.publicJwk }, { x5c: ["MIIB"] }, { x5t: "AAAA" }]) {
    await refuses(verify, issuer.token({}, extra, stranger), /does not publish/);
    await refuses(verify, issuer.token({}, { ...extra, kid: "key-1" }, stranger), /signature that does not hold/);
    assert.equal((await verify(issuer.token({}, extra))).subject, "user_1");
  }
  assert.deepEqual(issuer.paths, ["/.well-known/jwks.json"]);
});

test("a token that asks for extensions is refused, also for one that jose knows", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  for (const extra of [
    { crit: ["exp"], exp: 1 },
    { crit: ["b64"], b64: false },
    { crit: ["b64"], b64: true },
    { crit: ["x"] },
    { crit: [] },
    { crit: null },
  ]) {
    await refuses(verify, issuer.token({}, extra), /asks for extensions/);
  }
});

test("the issuer is compared character by character, and a foreign one is not looked up", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const evil = "https://evil.example";
  for (const iss of [
    `${issuer.issuer}/`,
    ` ${issuer.issuer}`,
    issuer.issuer.toUpperCase(),
    `${issuer.issuer}.evil.example`,
    evil,
    "",
    null,
    undefined,
    1,
    [issuer.issuer],
    { toString: issuer.issuer },
  ]) {
    await refuses(verify, issuer.token({ iss }), /was issued by .*, not by "http:\/\/127/);
  }
  await refuses(verify, issuer.token({ iss: "x".repeat(4000) }), /was issued by "x{100}…", not by/);
  assert.equal(issuer.fetches(), 0);
  await refuses(verify, issuer.token({ iss: evil }), new RegExp(`was issued by "${evil}", not by "${issuer.issuer}"$`));
});

test("exp is asked for, and holds with a few seconds of leeway", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const nowSeconds = issuer.now() / 1000;
  const leeway = LEEWAY_MS / 1000;
  await refuses(verify, issuer.token({ exp: undefined }), /never expires: it lacks the claim "exp"/);
  for (const exp of [null, "9999999999", -1, 1e300, [], {}, true]) {
    await refuses(verify, issuer.token({ exp }), /the claim "exp" must be a time in seconds/);
  }
  for (const exp of [0, nowSeconds - 3600, nowSeconds - leeway]) {
    await refuses(verify, issuer.token({ exp }), /has expired: get a new one/);
  }
  await verify(issuer.token({ exp: nowSeconds - leeway + 1 }));
});

test("nbf and iat must not lie ahead by more than their leeway", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const nowSeconds = issuer.now() / 1000;
  const [leeway, ahead] = [LEEWAY_MS / 1000, ISSUED_AHEAD_MS_MAX / 1000];
  await refuses(verify, issuer.token({ nbf: nowSeconds + leeway + 1 }), /is not valid yet/);
  await verify(issuer.token({ nbf: nowSeconds + leeway }));
  await refuses(verify, issuer.token({ iat: nowSeconds + ahead + 1 }), /was issued in the future/);
  await verify(issuer.token({ iat: nowSeconds + ahead }));
  await verify(issuer.token({ iat: undefined, nbf: undefined }));
  for (const claim of ["nbf", "iat"]) {
    await refuses(verify, issuer.token({ [claim]: "0" }), new RegExp(`"${claim}" must be a time in seconds`));
  }
});

test("azp is checked where authorized parties are set, and then it must be there", async (t) => {
  const issuer = await startIssuer(t);
  const free = issuer.sessions();
  await free.verify(issuer.token());
  await free.verify(issuer.token({ azp: "https://anyone.example" }));

  const { verify } = issuer.sessions({ authorizedParties: ["https://app.example", "https://other.example"] });
  await verify(issuer.token({ azp: "https://other.example" }));
  await refuses(verify, issuer.token(), /lacks the claim "azp"/);
  for (const azp of ["https://evil.example", "https://app.example/", "", null, 0, ["https://app.example"]]) {
    await refuses(verify, issuer.token({ azp }), /not among this server's authorized parties/);
  }
});

test("sub is asked for and bounded; a session that is pending is none", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  for (const sub of [undefined, null, "", " ", " user", 1, ["user_1"], {}, "ü", "a\nb", "a\0", "x".repeat(256)]) {
    await refuses(verify, issuer.token({ sub }), /names nobody/);
  }
  const longest = "x".repeat(255);
  assert.equal((await verify(issuer.token({ sub: longest }))).subject, longest);
  await refuses(verify, issuer.token({ sts: "pending" }), /still pending/);
  await verify(issuer.token({ sts: "active" }));
});

test("an e-mail address that is malformed or not verified is not taken over, nor a name that could mislead", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  for (const claims of [
    ...["", "ada", "a@b@c", "a b@example.com", "ada@example.com\n", `${"x".repeat(65)}@a.b`, 7, null, ["a@b.c"]].map(
      (email) => ({ email }),
    ),
    ...[false, "true", null, 1].map((verified) => ({ email: "ada@example.com", email_verified: verified })),
  ]) {
    assert.equal((await verify(issuer.token(claims))).email, null, JSON.stringify(claims));
  }
  const verified = issuer.token({ email: "ada@example.com", email_verified: true });
  assert.equal((await verify(verified)).email, "ada@example.com");
  for (const name of ["", " ", "a\nb", "a\u202eb", "x".repeat(201), 7, {}]) {
    assert.equal((await verify(issuer.token({ name }))).name, null, JSON.stringify(name));
  }
});

test("keys that are weak, private or of another use do not lock the others out", async (t) => {
  const issuer = await startIssuer(t);
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
  const weakJwk = privateKey.export({ format: "jwk" });
  const weak: TestKey = { algorithm: "RS256", kid: "weak", publicJwk: weakJwk, privateJwk: weakJwk };
  const [leaked, sealing, wrapping] = await Promise.all(["leaked", "sealing", "wrapping"].map((kid) => newKey(kid)));
  assert.ok(leaked && sealing && wrapping);
  issuer.publish([
    null,
    "text",
    { kty: "EC", kid: "broken", crv: "P-256", x: "AA", y: "AA" },
    { kty: "RSA", n: weakJwk.n, e: weakJwk.e, kid: "weak" },
    { ...leaked.privateJwk, kid: "leaked" },
    { ...sealing.publicJwk, use: "enc" },
    { ...wrapping.publicJwk, key_ops: ["wrapKey"] },
    issuer.key.publicJwk,
  ]);
  const { verify } = issuer.sessions();
  await verify(issuer.token());
  await verify(issuer.token({}, {}, leaked));
  for (const key of [weak, sealing, wrapping]) {
    await refuses(verify, issuer.token({}, {}, key), /does not publish/);
  }
});

test("a verified token is remembered until it expires, and no longer", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const token = issuer.token();
  const session = await verify(token);
  issuer.advance(59_999);
  assert.equal(await verify(token), session, "remembered");
  issuer.advance(1);
  const again = await verify(token);
  assert.notEqual(again, session, "verified again in the leeway");
  assert.notEqual(await verify(token), again, "and each time");
  issuer.advance(LEEWAY_MS);
  await refuses(verify, token, /has expired/);
});

test("remembered are the tokens used last, up to a number", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions({ rememberedMax: 2 });
  const [first, second, third] = ["a", "b", "c"].map((sub) => issuer.token({ sub }));
  assert.ok(first && second && third);
  const [ofFirst, ofSecond] = [await verify(first), await verify(second)];
  assert.equal(await verify(first), ofFirst);
  const ofThird = await verify(third);
  assert.equal(await verify(first), ofFirst);
  assert.equal(await verify(third), ofThird);
  assert.notEqual(await verify(second), ofSecond, "the least recently used was forgotten");
});

test("a refusal is not remembered: nothing of a bad token stays", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  const early = issuer.token({ nbf: issuer.now() / 1000 + 30 });
  await refuses(verify, early, /is not valid yet/);
  issuer.advance(30_000);
  await verify(early);
});

test("no token, and no part of one, enters the log", async (t) => {
  const issuer = await startIssuer(t);
  let logged = "";
  const log = createLog({ level: "debug", write: (text) => (logged += text) });
  const { verify } = issuer.sessions({ log });
  const tokens = [issuer.token(), issuer.token({}, { kid: "unknown" }), handMade({ alg: "none" }, { sub: "x" })];
  issuer.answerWith((_req, res) => res.destroy());
  await Promise.allSettled(tokens.map(verify));
  log.flush();
  assert.match(logged, /jwks_failed/);
  for (const part of tokens.flatMap((token) => token.split(".")).filter((text) => text !== "")) {
    assert.ok(!logged.includes(part));
  }
});

test("a payload that is signed but is no object of JSON is no session", async (t) => {
  const issuer = await startIssuer(t);
  const { verify } = issuer.sessions();
  for (const payload of ["[]", "1", "", "{", '{"iss":"\ud800"'] as const) {
    await refuses(verify, signed({ alg: "ES256", kid: "key-1" }, payload, issuer.key), /is not a JWT/);
  }
});

function claimsOf(token: string): Record<string, unknown> {
  const claims: unknown = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
  assert.ok(typeof claims === "object" && claims !== null);
  return { ...claims };
}

async function refuses(verify: Sessions["verify"], token: string, message: RegExp): Promise<void> {
  await assert.rejects(verify(token), (error) => {
    assert.ok(error instanceof AppError, `expected a refusal of ${token.slice(0, 200)}, not ${String(error)}`);
    assert.equal(error.code, "unauthorized");
    assert.match(error.message, /^This session token /);
    assert.match(error.message, message);
    assert.ok(error.message.length < 500);
    return true;
  });
}
