import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import { networkInterfaces } from "node:os";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { decodeJwt, decodeProtectedHeader } from "jose";
import { DEV_ISSUER_COMMAND, type DevIssuer, type DevIssuerOptions, startDevIssuer } from "../lib/auth/dev_issuer.ts";
import { createSessions } from "../lib/auth/sessions.ts";
import { parseCommand, UsageError } from "../lib/commands/command_line.ts";
import { AppError } from "../lib/errors.ts";
import { silentLog } from "./_app.ts";

const run = promisify(execFile);

for (const algorithm of ["RS256", "ES256"] as const) {
  test(`a token from GET /token is a session, signed with ${algorithm}`, async (t) => {
    const dev = await start(t, { algorithm });
    const answer = await fetch(
      `${dev.tokenUrl}?sub=alice&email=alice@example.com&name=Alice&azp=https://app.example&ttl=60`,
    );
    assert.equal(answer.status, 200);
    const token = (await answer.text()).trim();
    const { verify, close } = createSessions({
      issuer: dev.issuer,
      jwksUrl: dev.jwksUrl,
      authorizedParties: ["https://app.example"],
      now: Date.now,
      log: silentLog,
    });
    t.after(close);
    const { exp } = decodeJwt(token);
    assert.ok(exp !== undefined && exp * 1000 <= Date.now() + 60_000);
    assert.deepEqual(await verify(token), {
      subject: "alice",
      expiresAtMs: exp * 1000,
      email: "alice@example.com",
      name: "Alice",
    });
    assert.equal(decodeProtectedHeader(token).alg, algorithm);
  });
}

test("what is not asked for comes from the defaults", async (t) => {
  const dev = await start(t, { defaults: { sub: "bob", email: "bob@example.com", ttlSeconds: 10 }, now: () => 1e12 });
  const claims = { iss: dev.issuer, sub: "bob", email: "bob@example.com", iat: 1e9, exp: 1e9 + 10 };
  assert.deepEqual(decodeJwt(await (await fetch(dev.tokenUrl)).text()), claims);
  const other = decodeJwt(await (await fetch(`${dev.tokenUrl}?sub=carol&ttl=20`)).text());
  assert.deepEqual(other, { ...claims, sub: "carol", exp: 1e9 + 20 });
});

test("the published key is the public part alone, and no two issuers share one", async (t) => {
  const [one, other] = await Promise.all([start(t, {}), start(t, {})]);
  const [ofOne, ofOther] = await Promise.all([publishedKey(one), publishedKey(other)]);
  assert.deepEqual(Object.keys(ofOne).sort(), ["alg", "e", "kid", "kty", "n", "use"]);
  assert.notEqual(ofOne.kid, ofOther.kid);
});

test("a query that is wrong is told what may be asked for", async (t) => {
  const dev = await start(t, {});
  for (const query of ["ttl=0", "ttl=86401", "ttl=x", "ttl=-1", "sub=", "subject=alice", "ttl=1e3"]) {
    const answer = await fetch(`${dev.tokenUrl}?${query}`);
    assert.equal(answer.status, 400, query);
    assert.match(await answer.text(), /^Known are sub, email, name, azp and ttl \(1 to 86400 s\): /);
  }
  const unknown = await fetch(`${dev.issuer}/`);
  assert.equal(unknown.status, 404);
  assert.match(await unknown.text(), /\/token\?sub=/);
  assert.equal((await fetch(dev.tokenUrl, { method: "POST", body: "x" })).status, 405);
});

test("a page of the web gets no token: neither by a name that points here, nor by CORS", async (t) => {
  const dev = await start(t, {});
  const port = new URL(dev.issuer).port;
  for (const host of [
    "evil.example",
    `evil.example:${port}`,
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "[::2]",
  ]) {
    assert.equal((await getWithHost(dev, host)).statusCode, 403, host);
  }
  for (const host of [`127.0.0.1:${port}`, `localhost:${port}`, "localhost", `[::1]:${port}`]) {
    const answer = await getWithHost(dev, host);
    assert.equal(answer.statusCode, 200, host);
    assert.equal(answer.headers["access-control-allow-origin"], undefined);
  }
});

test("it listens on loopback or not at all", async (t) => {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));
  const outside = addresses.filter((address) => !address.startsWith("127.") && address !== "::1");
  for (const host of [
    ...["0.0.0.0", "::", "[::]", "", "*", "127.1", "0", "127.0.0.1.evil.example", "127.0.0.256", "example.com"],
    "::ffff:0.0.0.0",
    ...outside,
  ]) {
    await assert.rejects(startDevIssuer({ host, port: 0 }), (error) => {
      assert.ok(error instanceof AppError, host);
      assert.match(error.message, /^Cannot listen on ".*": not an address of loopback$/);
      return true;
    });
  }
  for (const host of ["127.0.0.1", "localhost"]) {
    assert.match((await start(t, { host })).issuer, /^http:\/\/127\.0\.0\.1:\d+$/);
  }
});

test("a port that is taken is told, with the option to change", async (t) => {
  const dev = await start(t, {});
  await assert.rejects(startDevIssuer({ port: Number(new URL(dev.issuer).port) }), (error) => {
    assert.ok(error instanceof AppError);
    assert.match(error.message, /another process uses this port/);
    assert.equal(error.hint, "choose another with --port or --host");
    return true;
  });
});

test("the command prints what to export and how to get a token, and both work", { timeout: 60_000 }, async (t) => {
  const { child, printed } = await startCommand(t, [
    "--port",
    "0",
    "--azp",
    "https://app.example",
    "--subject",
    "dora",
  ]);
  const setting = (name: string): string => new RegExp(`export STOWAGE_CLERK_${name}=(.*)`).exec(printed)?.[1] ?? "";
  assert.match(setting("ISSUER"), /^http:\/\/127\.0\.0\.1:\d+$/);
  assert.equal(setting("JWKS_URL"), `${setting("ISSUER")}/.well-known/jwks.json`);
  assert.equal(setting("AUTHORIZED_PARTIES"), "'https://app.example'");

  const getToken = /TOKEN=\$\((.*)\)/.exec(printed)?.[1] ?? "";
  const { stdout: token } = await run("sh", ["-c", getToken]);
  const { verify, close } = createSessions({
    issuer: setting("ISSUER"),
    jwksUrl: setting("JWKS_URL"),
    authorizedParties: ["https://app.example"],
    now: Date.now,
    log: silentLog,
  });
  t.after(close);
  const { subject, email } = await verify(token.trim());
  assert.deepEqual({ subject, email }, { subject: "alice", email: "alice@example.com" });

  child.kill("SIGTERM");
  assert.deepEqual(await once(child, "exit"), [0, null]);
});

test("with --json the command prints the addresses alone", { timeout: 60_000 }, async (t) => {
  const { printed } = await startCommand(t, ["--port", "0", "--json", "--subject", "dora", "--algorithm", "ES256"]);
  const { issuer, jwks_url, token_url } = JSON.parse(printed);
  assert.deepEqual([jwks_url, token_url], [`${issuer}/.well-known/jwks.json`, `${issuer}/token`]);
  assert.equal(decodeJwt(await (await fetch(token_url)).text()).sub, "dora");
});

test("options that are out of range are wrong usage", async () => {
  for (const options of [
    ["--port", "65536"],
    ["--ttl", "86401"],
    ["--algorithm", "HS256"],
  ]) {
    const typed = parseCommand([DEV_ISSUER_COMMAND], ["dev-issuer", ...options]);
    assert.ok(typed.kind === "run");
    const { command, args } = typed;
    await assert.rejects(async () => command.run(args, { env: {}, out: () => {} }), UsageError);
  }
});

async function start(t: TestContext, options: DevIssuerOptions): Promise<DevIssuer> {
  const dev = await startDevIssuer({ port: 0, ...options });
  t.after(() => dev.close());
  return dev;
}

async function publishedKey({ jwksUrl }: DevIssuer): Promise<Record<string, unknown>> {
  const { keys } = JSON.parse(await (await fetch(jwksUrl)).text());
  assert.equal(keys.length, 1);
  return keys[0];
}

/** The command in a process of its own, as it stands in the table of commands. */
async function startCommand(
  t: TestContext,
  options: readonly string[],
): Promise<{ child: ChildProcess; printed: string }> {
  const child = spawn(process.execPath, ["server.ts", "dev-issuer", ...options], {
    stdio: ["ignore", "pipe", "inherit"],
    cwd: new URL("..", import.meta.url),
  });
  t.after(() => child.kill("SIGKILL"));
  const [printed] = await once(child.stdout, "data");
  return { child, printed: String(printed) };
}

async function getWithHost(dev: DevIssuer, host: string): Promise<http.IncomingMessage> {
  const request = http.get(dev.tokenUrl, { headers: { Host: host }, agent: false });
  const [answer]: http.IncomingMessage[] = await once(request, "response");
  assert.ok(answer);
  answer.resume();
  return answer;
}
