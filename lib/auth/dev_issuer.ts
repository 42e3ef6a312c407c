import http, { type IncomingMessage, type ServerResponse } from "node:http";
import { isIPv4, isIPv6 } from "node:net";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from "jose";
import * as z from "zod";
import { type Command, UsageError } from "../commands/command_line.ts";
import { runUntilSignal } from "../commands/run.ts";
import { AppError } from "../errors.ts";
import { listenProblem } from "../http/listen_problem.ts";
import { createLog, logTo } from "../log.ts";
import { ALGORITHMS, type Algorithm } from "./jwks.ts";

/** Next to the service's own. Fixed, because it is part of the issuer's name. */
const PORT_DEFAULT = 8001;
const PORT_MAX = 65_535;
const TTL_SECONDS_DEFAULT = 3_600;
const TTL_SECONDS_MAX = 86_400;
const JWKS_PATH = "/.well-known/jwks.json";
const TOKEN_PATH = "/token";

/** What a development token may say. Everything has a default. */
export interface DevClaims {
  sub?: string | undefined;
  email?: string | undefined;
  name?: string | undefined;
  azp?: string | undefined;
  ttlSeconds?: number | undefined;
}

export interface DevIssuerOptions {
  /** An address of this machine's loopback. */
  host?: string;
  /** 0 takes a free one. */
  port?: number;
  algorithm?: Algorithm;
  /** For tokens that are asked for without. */
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
 * A stand-in for the identity provider while developing: publishes a key of its own and mints a token for whoever asks. So
 * it listens on loopback alone, whatever it is told, and its key dies with it. Throws `validation_error` for another host.
 */
export async function startDevIssuer(options: DevIssuerOptions = {}): Promise<DevIssuer> {
  const { port = PORT_DEFAULT, algorithm = "RS256", defaults = {}, now = Date.now } = options;
  const host = loopbackAddress(options.host ?? "127.0.0.1");
  const { publicKey, privateKey } = await generateKeyPair(algorithm);
  const publicJwk = await exportJWK(publicKey);
  // A new key has a new id, so that a service that knows the old one asks again.
  const kid = await calculateJwkThumbprint(publicJwk);
  const jwks = JSON.stringify({ keys: [{ ...publicJwk, kid, alg: algorithm, use: "sig" }] });
  let issuer = "";

  async function mint(claims: DevClaims = {}): Promise<string> {
    const { sub = "dev-user", email, name, azp, ttlSeconds = TTL_SECONDS_DEFAULT } = { ...defaults, ...claims };
    const nowSeconds = Math.floor(now() / 1000);
    return new SignJWT({
      ...(email === undefined ? {} : { email }),
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

  async function answer(req: IncomingMessage): Promise<{ status: number; type?: string; text: string }> {
    // A page on the web can point a name of its own at this address: then the browser names that as the host.
    if (!isLoopbackHost(req.headers.host)) return { status: 403, text: "This issuer is for this machine alone\n" };
    if (req.method !== "GET" && req.method !== "HEAD") return { status: 405, text: "Only GET is known here\n" };
    const url = URL.parse(req.url ?? "", issuer);
    if (url?.pathname === JWKS_PATH) return { status: 200, type: "application/json", text: jwks };
    if (url?.pathname === TOKEN_PATH) return answerToken(url);
    return { status: 404, text: `Known are ${JWKS_PATH} and ${TOKEN_PATH}?sub=…&email=…&name=…&azp=…&ttl=…\n` };
  }

  async function answerToken({ searchParams }: URL): Promise<{ status: number; text: string }> {
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
    answer(req).then(
      ({ status, type = "text/plain; charset=utf-8", text }) => send(res, status, type, text),
      (error: unknown) => send(res, 500, "text/plain; charset=utf-8", `${String(error)}\n`),
    );
  });
  const boundPort = await listen(server, host, port);
  issuer = `http://${isIPv6(host) ? `[${host}]` : host}:${boundPort}`;

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
  // Nothing is kept: a restart brings another key, and a token is nobody else's.
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

/** The same problem with the advice of this command: it has options where the service has settings. */
function withHint({ code, message, cause }: AppError, hint: string): AppError {
  return new AppError(code, message, { hint, cause });
}

/** The address for a host that is typed. A name is never looked up: it could lead elsewhere. */
function loopbackAddress(host: string): string {
  if (host === "localhost") return "127.0.0.1";
  const address = host.replace(/^\[(.*)\]$/, "$1");
  if (isLoopbackAddress(address)) return address;
  throw new AppError("validation_error", `Cannot listen on ${JSON.stringify(host)}: not an address of loopback`, {
    hint: "whoever reaches this issuer gets any token: it listens on 127.0.0.1, on ::1, or nowhere",
  });
}

function isLoopbackAddress(address: string): boolean {
  return address === "::1" || (isIPv4(address) && address.startsWith("127."));
}

function isLoopbackHost(hostHeader: string | undefined): boolean {
  const hostname = URL.parse(`http://${hostHeader ?? ""}`)?.hostname ?? "";
  return hostname === "localhost" || isLoopbackAddress(hostname.replace(/^\[(.*)\]$/, "$1"));
}

/** `stowage dev-issuer`: serves until SIGTERM or SIGINT. */
export const DEV_ISSUER_COMMAND: Command = {
  name: "dev-issuer",
  usage:
    "[--port N] [--host ADDRESS] [--algorithm RS256|ES256] [--subject S] [--email E] [--name N] [--azp ORIGIN] [--ttl SECONDS] [--json]",
  summary: "For development: publish a key and mint session tokens, on this machine alone",
  options: {
    port: "string",
    host: "string",
    algorithm: "string",
    subject: "string",
    email: "string",
    name: "string",
    azp: "string",
    ttl: "string",
    json: "boolean",
  },
  operands: [],
  async run(args, { out }) {
    const log = createLog({
      level: "info",
      pretty: process.stderr.isTTY === true,
      ...logTo(process.stderr),
    });
    const algorithm = oneOf(ALGORITHMS, args.text("algorithm") ?? "RS256");
    const azp = args.text("azp");
    const defaults = {
      sub: args.text("subject"),
      email: args.text("email"),
      name: args.text("name"),
      azp,
      ttlSeconds: atMost("--ttl", TTL_SECONDS_MAX, args.integer("ttl")),
    };
    const host = args.text("host") ?? "127.0.0.1";
    const port = atMost("--port", PORT_MAX, args.integer("port")) ?? PORT_DEFAULT;
    await runUntilSignal(log, async () => {
      const running = await startDevIssuer({ host, port, algorithm, defaults });
      const { issuer, jwksUrl, tokenUrl } = running;
      if (args.flag("json")) {
        out(`${JSON.stringify({ issuer, jwks_url: jwksUrl, token_url: tokenUrl })}\n`);
      } else out(howToUse(running, azp));
      return running;
    });
  },
};

function oneOf(algorithms: readonly Algorithm[], text: string): Algorithm {
  const algorithm = algorithms.find((name) => name === text);
  if (algorithm !== undefined) return algorithm;
  throw wrongUsage(`--algorithm must be ${algorithms.join(" or ")}, not ${JSON.stringify(text)}`);
}

function atMost(option: string, max: number, value: number | undefined): number | undefined {
  if (value === undefined || value <= max) return value;
  throw wrongUsage(`${option} must be at most ${max}, not ${value}`);
}

function wrongUsage(message: string): UsageError {
  return new UsageError(message, `stowage ${DEV_ISSUER_COMMAND.name} ${DEV_ISSUER_COMMAND.usage}`);
}

function howToUse({ issuer, jwksUrl, tokenUrl }: DevIssuer, azp: string | undefined): string {
  const parties = azp === undefined ? "" : `  export STOWAGE_CLERK_AUTHORIZED_PARTIES=${shellQuoted(azp)}\n`;
  return `Issuing session tokens at ${issuer}, to whoever asks on this machine. Never use it in production.

Start the service with:
  export STOWAGE_CLERK_ISSUER=${issuer}
  export STOWAGE_CLERK_JWKS_URL=${jwksUrl}
${parties}
Get a token and use it (sub, email, name, azp and ttl may be given):
  TOKEN=$(curl -sS '${tokenUrl}?sub=alice&email=alice@example.com')
  curl -sS -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/api/v1/auth/whoami
`;
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
