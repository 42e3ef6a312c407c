import { sha256Hex } from "../../ids.ts";
import { checkNewKey, type Keys, type KnownKey, type NewKey, noKey } from "../keys.ts";
import { noSuchWorkspace } from "../workspaces.ts";
import type { Db } from "./db/db.ts";
import type { KeyRows } from "./key_rows.ts";
import type { WorkspaceRows } from "./workspace_rows.ts";

export function createKeys(db: Db, { keys, workspaces }: { keys: KeyRows; workspaces: WorkspaceRows }): Keys {
  return {
    async create(key: NewKey) {
      checkNewKey(key);
      return db.write(() => {
        const userId = key.userId ?? workspaces.find(key.workspaceId)?.createdBy;
        if (userId === undefined) throw noSuchWorkspace(key.workspaceId);
        return keys.insert({ ...key, userId });
      });
    },

    async find(apiKey: string): Promise<KnownKey | undefined> {
      return keys.findByHash(sha256Hex(apiKey));
    },

    async list() {
      return keys.list();
    },

    revoke: (apiKeyId) =>
      db.write(() => {
        const revoked = keys.revoke(apiKeyId);
        if (revoked === undefined) throw noKey(apiKeyId);
        return revoked;
      }),

    recordUses: (usedAtMsById) =>
      db.write(() => {
        for (const [apiKeyId, usedAtMs] of usedAtMsById) keys.setLastUsed(apiKeyId, usedAtMs);
      }),
  };
}
