import http, { type IncomingMessage, type ServerResponse } from "node:http";
import { isIPv4 } from "node:net";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from "jose";
import * as z from "zod";
import { hostInUrl, withoutBrackets } from "../addresses.ts";
import { AppError } from "../errors.ts";
import { listenProblem } from "../http/listen_problem.ts";
import type { Algorithm } from "./jwks.ts";

/** Next to the service's own. Fixed, because it is part of the issuer's name. */
export const PORT_DEFAULT = 8001;
const TTL_SECONDS_DEFAULT = 3_600;
export const TTL_SECONDS_MAX = 86_400;
const JWKS_PATH = "/.well-known/jwks.json";
const TOKEN_PATH = "/token";

/** The claims of a development token. All have defaults. */
export interface DevClaims {
  sub?: string | undefined;
  email?: string | undefined;
  name?: string | undefined;
  azp?: string | undefined;
  ttlSeconds?: number | undefined;
}

export interface DevIssuerOptions {
  /** A loopback address. */
  host?: string;
  /** 0 takes a free one. */
  port?: number;
  algorithm?: Algorithm;
  /** Claims of tokens that are requested without them. */
  defaults?: DevClaims;
  now?: () => number;
}

export interface DevIssuer {
  issuer: string;
  jwksUrl: string;
  tokenUrl: string;
  mint: (claims?: DevClaims) => Promise<string>;
  close: () => Promise<void>;
}

const tokenQuery = z.strictObject({
  sub: z.string().min(1).optional(),
  email: z.string().optional(),
  name: z.string().optional(),
  azp: z.string().optional(),
  ttl: z.string().regex(/^\d+$/).transform(Number).pipe(z.number().min(1).max(TTL_SECONDS_MAX)).optional(),
});

/**
 * Starts a stand-in for the identity provider, for development: it publishes a key of its own and mints a token for anyone who
 * asks. So it listens on loopback only, and its key dies with it. Throws `validation_error` for any other host.
 */
export async function startDevIssuer(options: DevIssuerOptions = {}): Promise<DevIssuer> {
  const { port = PORT_DEFAULT, algorithm = "RS256", defaults = {}, now = Date.now } = options;
  const host = loopbackAddress(options.host ?? "127.0.0.1");
  const { publicKey, privateKey } = await generateKeyPair(algorithm);
  const publicJwk = await exportJWK(publicKey);
  // A new key gets a new id, so that a service that has the old one fetches the set again.
  const kid = await calculateJwkThumbprint(publicJwk);
  const jwks = JSON.stringify({ keys: [{ ...publicJwk, kid, alg: algorithm, use: "sig" }] });
  let issuer = "";

  async function mint(claims: DevClaims = {}): Promise<string> {
    const { sub = "dev-user", email, name, azp, ttlSeconds = TTL_SECONDS_DEFAULT } = { ...defaults, ...claims };
    const nowSeconds = Math.floor(now() / 1000);
    return new SignJWT({
      ...(email === undefined ? {} : { email, email_verified: true }),
      ...(name === undefined ? {} : { name }),
      ...(azp === undefined ? {} : { azp }),
    })
      .setProtectedHeader({ alg: algorithm, kid, typ: "JWT" })
      .setIssuer(issuer)
      .setSubject(sub)
      .setIssuedAt(nowSeconds)
      .setExpirationTime(nowSeconds + ttlSeconds)
      .sign(privateKey);
  }

  async function respond(req: IncomingMessage): Promise<{ status: number; type?: string; text: string }> {
    // A web page can point a name of its own at this address: then the browser sends that name as the host.
    if (!isLoopbackHost(req.headers.host)) return { status: 403, text: "This issuer is for this machine alone\n" };
    if (req.method !== "GET" && req.method !== "HEAD") return { status: 405, text: "Only GET is known here\n" };
    const url = URL.parse(req.url ?? "", issuer);
    if (url?.pathname === JWKS_PATH) return { status: 200, type: "application/json", text: jwks };
    if (url?.pathname === TOKEN_PATH) return respondWithToken(url);
    return { status: 404, text: `Known are ${JWKS_PATH} and ${TOKEN_PATH}?sub=…&email=…&name=…&azp=…&ttl=…\n` };
  }

  async function respondWithToken({ searchParams }: URL): Promise<{ status: number; text: string }> {
    const query = tokenQuery.safeParse(Object.fromEntries(searchParams));
    if (!query.success) {
      const why = query.error.issues.map(({ path, message }) => `${path.join(".")} ${message}`.trim()).join("; ");
      return { status: 400, text: `Known are sub, email, name, azp and ttl (1 to ${TTL_SECONDS_MAX} s): ${why}\n` };
    }
    const { ttl, ...claims } = query.data;
    return { status: 200, text: `${await mint(ttl === undefined ? claims : { ...claims, ttlSeconds: ttl })}\n` };
  }

  const server = http.createServer((req, res) => {
    req.resume();
    respond(req).then(
      ({ status, type = "text/plain; charset=utf-8", text }) => send(res, status, type, text),
      (error: unknown) => send(res, 500, "text/plain; charset=utf-8", `${String(error)}\n`),
    );
  });
  const boundPort = await listen(server, host, port);
  issuer = `http://${hostInUrl(host)}:${boundPort}`;

  return {
    issuer,
    jwksUrl: `${issuer}${JWKS_PATH}`,
    tokenUrl: `${issuer}${TOKEN_PATH}`,
    mint,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function send(res: ServerResponse, status: number, type: string, text: string): void {
  // Nothing may be cached: a restart brings another key, and a token belongs to one caller.
  res.writeHead(status, { "Content-Type": type, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff" });
  res.end(text);
}

function listen(server: http.Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) => {
      const problem = listenProblem(error, { host, port });
      reject(problem instanceof AppError ? withHint(problem, "choose another with --port or --host") : problem);
    });
    server.listen({ host, port }, () => {
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : port);
    });
  });
}

/** The same problem with advice for this command, which has options instead of settings. */
function withHint({ code, message, cause }: AppError, hint: string): AppError {
  return new AppError(code, message, { hint, cause });
}

/** The address of a typed host. Names are never resolved: they could lead elsewhere. */
function loopbackAddress(host: string): string {
  if (host === "localhost") return "127.0.0.1";
  const address = withoutBrackets(host);
  if (isLoopbackAddress(address)) return address;
  throw new AppError("validation_error", `Cannot listen on ${JSON.stringify(host)}: not an address of loopback`, {
    hint: "anyone who reaches this issuer gets any token: it listens only on 127.0.0.1 or ::1",
  });
}

function isLoopbackAddress(address: string): boolean {
  return address === "::1" || (isIPv4(address) && address.startsWith("127."));
}

function isLoopbackHost(hostHeader: string | undefined): boolean {
  const hostname = URL.parse(`http://${hostHeader ?? ""}`)?.hostname ?? "";
  return hostname === "localhost" || isLoopbackAddress(withoutBrackets(hostname));
}
