import type { ApiKey } from "../books/keys.ts";
import { SCOPES } from "../books/principals.ts";
import type { Workspaces } from "../books/workspaces.ts";
import { AppError } from "../errors.ts";
import { timestamp } from "../timestamp.ts";
import type { Command } from "./command_line.ts";
import { findWorkspaceId, isoTime, listSlugs, print, table, withBooks } from "./work.ts";

/** Characters of a name in a list for people. */
const CELL_CHARS_MAX = 13;

/** Managing API keys. */
export const KEY_COMMANDS: readonly Command[] = [
  {
    name: "keys create",
    example: "keys create --workspace film-club --name ci --scopes uploads:write,workflows:read --expires 90",
    usage: "[--workspace WORKSPACE] [--name NAME] [--scopes A,B] [--expires DAYS] [--rate-limit N] [--json]",
    summary: `Create an API key and print it; it cannot be shown again. --workspace: its id, slug or name, needed only if there are several. --rate-limit: requests per minute. Scopes (default: all): ${SCOPES.join(", ")}`,
    options: {
      ...{ workspace: "string", name: "string", scopes: "string", expires: "string" },
      ...{ "rate-limit": "string", json: "boolean" },
    },
    operands: [],
    run: (args, terminal) => {
      const name = args.text("name");
      const scopes = args
        .text("scopes")
        ?.split(",")
        .map((scope) => scope.trim());
      const expiresInDays = args.integer("expires");
      const rateLimitPerMin = args.integer("rate-limit");
      return withBooks(terminal, async ({ workspaces, keys }) => {
        const workspaceId = await workspaceOfKey(workspaces, args.text("workspace"));
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
    example: "keys list",
    usage: "[--json]",
    summary: "List API keys; the keys themselves are not stored. --json shows scopes, limits and all times too",
    options: { json: "boolean" },
    operands: [],
    run: (args, terminal) =>
      withBooks(terminal, async ({ workspaces, keys }) => {
        const all = await keys.list();
        const rows = all.map((key) => ({
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
        const slugs = new Map((await workspaces.list()).map(({ workspaceId, slug }) => [workspaceId, slug]));
        const nowMs = Date.now();
        print(args, terminal, rows, table(all.map((key) => presentRow(key, slugs.get(key.workspaceId), nowMs))));
      }),
  },
  {
    name: "keys revoke",
    example: "keys revoke 019f2a4e-7c3d-7b1a-8e21-2d6b5f0c9a11",
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

async function workspaceOfKey(workspaces: Workspaces, named: string | undefined): Promise<string> {
  if (named !== undefined) return await findWorkspaceId(workspaces, named);
  const all = await workspaces.list();
  const [only] = all;
  if (only !== undefined && all.length === 1) return only.workspaceId;
  const message =
    only === undefined
      ? "There is no workspace to create a key for"
      : `There are ${all.length} workspaces: name one with --workspace`;
  const hint = only === undefined ? "`stowage workspaces create` makes one" : `their slugs: ${listSlugs(all)}`;
  throw new AppError("conflict", message, { hint });
}

/** A row that fits into 100 columns with the others. */
function presentRow(key: ApiKey, slug: string | undefined, nowMs: number): Record<string, string | null> {
  const isExpired = key.expiresAtMs !== null && key.expiresAtMs <= nowMs;
  const end = key.revokedAtMs !== null ? "revoked" : isExpired ? "expired" : day(key.expiresAtMs);
  return {
    api_key_id: key.apiKeyId,
    workspace: shorten(slug ?? "(deleted)"),
    name: shorten(key.name),
    ends_in: key.keySuffix,
    expires: end,
    last_used: day(key.lastUsedAtMs),
  };
}

function day(atMs: number | null): string | null {
  return atMs === null ? null : timestamp(atMs).slice(0, 10);
}

function shorten(text: string): string {
  const characters = [...text];
  return characters.length <= CELL_CHARS_MAX ? text : `${characters.slice(0, CELL_CHARS_MAX - 1).join("")}…`;
}
