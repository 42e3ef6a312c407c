import { type DevIssuer, PORT_DEFAULT, startDevIssuer, TTL_SECONDS_MAX } from "../auth/dev_issuer.ts";
import { ALGORITHMS, type Algorithm } from "../auth/jwks.ts";
import { createLog, logTo } from "../log.ts";
import { type Command, UsageError } from "./command_line.ts";
import { runUntilSignal } from "./run.ts";

const PORT_MAX = 65_535;

/** `stowage dev-issuer`: serves until SIGTERM or SIGINT. */
export const DEV_ISSUER_COMMAND: Command = {
  name: "dev-issuer",
  example: "dev-issuer --email ann@example.com",
  usage:
    "[--port N] [--host ADDRESS] [--algorithm RS256|ES256|EdDSA] [--subject S] [--email E] [--name N] [--azp ORIGIN] [--ttl SECONDS] [--json]",
  summary: "For development: publish a key and mint session tokens, on this machine only",
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
  return `Issuing session tokens at ${issuer}, to anyone on this machine. Never use it in production.

Start the service with:
  export STOWAGE_CLERK_ISSUER=${issuer}
  export STOWAGE_CLERK_JWKS_URL=${jwksUrl}
${parties}
Get a token and use it (the parameters sub, email, name, azp and ttl are optional):
  TOKEN=$(curl -sS '${tokenUrl}?sub=alice&email=alice@example.com')
  curl -sS -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8000/api/v1/auth/whoami
`;
}

function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
