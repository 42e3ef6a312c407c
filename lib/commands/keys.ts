import { SCOPES } from "../books/principals.ts";
import type { Command } from "./command_line.ts";
import { isoTime, print, table, withBooks } from "./work.ts";

/** Managing API keys. */
export const KEY_COMMANDS: readonly Command[] = [
  {
    name: "keys create",
    usage: "--workspace ID [--name NAME] [--scopes A,B] [--expires DAYS] [--rate-limit N] [--json]",
    summary: `Create an API key and print it; it cannot be shown again. --rate-limit: requests per minute. Scopes (default: all): ${SCOPES.join(", ")}`,
    options: {
      ...{ workspace: "string", name: "string", scopes: "string", expires: "string" },
      ...{ "rate-limit": "string", json: "boolean" },
    },
    operands: [],
    run: (args, terminal) => {
      const workspaceId = args.required("workspace");
      const name = args.text("name");
      const scopes = args
        .text("scopes")
        ?.split(",")
        .map((scope) => scope.trim());
      const expiresInDays = args.integer("expires");
      const rateLimitPerMin = args.integer("rate-limit");
      return withBooks(terminal, async ({ keys }) => {
        const created = await keys.create({
          workspaceId,
          ...(name === undefined ? {} : { name }),
          ...(scopes === undefined ? {} : { scopes }),
          ...(expiresInDays === undefined ? {} : { expiresInDays }),
          ...(rateLimitPerMin === undefined ? {} : { rateLimitPerMin }),
        });
        const { apiKeyId: api_key_id, apiKey: api_key } = created;
        print(args, terminal, { workspace_id: workspaceId, api_key_id, api_key }, api_key);
      });
    },
  },
  {
    name: "keys list",
    usage: "[--json]",
    summary: "List API keys; the keys themselves are not stored",
    options: { json: "boolean" },
    operands: [],
    run: (args, terminal) =>
      withBooks(terminal, async ({ keys }) => {
        const rows = (await keys.list()).map((key) => ({
          api_key_id: key.apiKeyId,
          workspace_id: key.workspaceId,
          name: key.name,
          ends_in: key.keySuffix,
          scopes: key.scopes.join(","),
          rate_limit_per_min: key.rateLimitPerMin,
          created_at: isoTime(key.createdAtMs),
          expires_at: isoTime(key.expiresAtMs),
          revoked_at: isoTime(key.revokedAtMs),
          last_used_at: isoTime(key.lastUsedAtMs),
        }));
        print(args, terminal, rows, table(rows));
      }),
  },
  {
    name: "keys revoke",
    usage: "API_KEY_ID [--json]",
    summary: "Revoke an API key: it is refused from now on, by a running server too",
    options: { json: "boolean" },
    operands: ["API_KEY_ID"],
    run: (args, terminal) =>
      withBooks(terminal, async ({ keys }) => {
        const revoked = await keys.revoke(args.operand("API_KEY_ID"));
        const row = { workspace_id: revoked.workspaceId, api_key_id: revoked.apiKeyId };
        print(args, terminal, row, `${revoked.apiKeyId} is revoked`);
      }),
  },
];
