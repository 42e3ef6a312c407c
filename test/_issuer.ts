import { createPrivateKey, sign } from "node:crypto";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import type { TestContext } from "node:test";
import { exportJWK, generateKeyPair, type JWK } from "jose";
import type { Algorithm } from "../lib/auth/jwks.ts";
import { createSessions, type Sessions, type SessionsOptions } from "../lib/auth/sessions.ts";
import { silentLog } from "./_app.ts";

type Answer = (req: IncomingMessage, res: ServerResponse) => void;

export interface TestKey {
  algorithm: Algorithm;
  kid: string;
  publicJwk: JWK;
  privateJwk: JWK;
}

/** A key pair as an issuer has it. */
export async function newKey(kid: string, algorithm: Algorithm = "ES256"): Promise<TestKey> {
  const { publicKey, privateKey } = await generateKeyPair(algorithm, { extractable: true });
  const publicJwk = { ...(await exportJWK(publicKey)), kid, alg: algorithm, use: "sig" };
  return { algorithm, kid, publicJwk, privateJwk: await exportJWK(privateKey) };
}

export interface TestIssuer {
  issuer: string;
  jwksUrl: string;
  key: TestKey;
  /** How often the JWKS was asked for. */
  fetches: () => number;
  /** Every path that was asked for. */
  paths: readonly string[];
  /** What is answered from now on. */
  answerWith: (answer: Answer) => void;
  publish: (keys: readonly unknown[]) => void;
  /** A token that holds but for what is given: undefined takes a claim or a header away. */
  token: (claims?: Record<string, unknown>, header?: Record<string, unknown>, signer?: TestKey) => string;
  sessions: (options?: Partial<SessionsOptions>) => Sessions;
  /** The clock of `token` and of `sessions`. */
  now: () => number;
  advance: (ms: number) => void;
}

/** An issuer whose JWKS is served by real HTTP, as a test wants it, with a clock of its own. */
export async function startIssuer(t: TestContext, algorithm: Algorithm = "ES256"): Promise<TestIssuer> {
  let nowMs = Date.UTC(2026, 10, 5, 12);
  const now = (): number => nowMs;
  const key = await newKey("key-1", algorithm);
  let answer: Answer = json({ keys: [key.publicJwk] });
  const paths: string[] = [];
  const server = http.createServer((req, res) => {
    paths.push(req.url ?? "");
    answer(req, res);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("Expected an address");
  const issuer = `http://127.0.0.1:${address.port}`;
  const jwksUrl = `${issuer}/.well-known/jwks.json`;

  return {
    issuer,
    jwksUrl,
    key,
    fetches: () => paths.filter((path) => path === "/.well-known/jwks.json").length,
    paths,
    answerWith: (next) => {
      answer = next;
    },
    publish: (keys) => {
      answer = json({ keys });
    },
    token(claims = {}, header = {}, signer = key) {
      const seconds = Math.floor(nowMs / 1000);
      const payload = { iss: issuer, sub: "user_1", iat: seconds, exp: seconds + 60, ...claims };
      return signed({ alg: signer.algorithm, kid: signer.kid, typ: "JWT", ...header }, payload, signer);
    },
    sessions(options = {}) {
      const sessions = createSessions({ issuer, jwksUrl, authorizedParties: [], now, log: silentLog, ...options });
      t.after(() => sessions.close());
      return sessions;
    },
    now,
    advance: (ms) => {
      nowMs += ms;
    },
  };
}

/** Answers with JSON. */
export function json(value: unknown): Answer {
  return text(JSON.stringify(value), 200, { "Content-Type": "application/json" });
}

/** Answers with a text as it is. */
export function text(body: string, status = 200, headers: Record<string, string> = {}): Answer {
  return (_req, res) => res.writeHead(status, headers).end(body);
}

/** A token with whatever header, payload and signature; a text is taken as it is. */
export function handMade(header: unknown, payload: unknown, signature: Uint8Array | string = ""): string {
  return `${encoded(header)}.${encoded(payload)}.${Buffer.from(signature).toString("base64url")}`;
}

/** As `handMade`, signed as the key's algorithm says. By node's own crypto: jose would refuse to sign most of it. */
export function signed(header: unknown, payload: unknown, { privateJwk }: TestKey): string {
  const key = createPrivateKey({ key: privateJwk, format: "jwk" });
  const bytes = Buffer.from(`${encoded(header)}.${encoded(payload)}`);
  return handMade(header, payload, sign("sha256", bytes, { key, dsaEncoding: "ieee-p1363" }));
}

function encoded(value: unknown): string {
  return Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
}
