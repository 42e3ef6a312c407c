import * as z from "zod";
import type { Principal } from "../../books/principals.ts";
import type { Workspace } from "../../books/workspaces.ts";
import type { Config } from "../../config/config.ts";
import { id } from "./common.ts";

export const WhoamiOut = z.strictObject({
  auth_kind: z.enum(["api_key", "clerk"]),
  user_id: id,
  /** The API key's, or the one that a session selects; null if it selects none. */
  workspace_id: id.nullable(),
  /** Null for a session. */
  api_key_id: id.nullable(),
  scopes: z.array(z.string()),
});

const none = z.literal(0);

/** The limits as the object of a plan, which is what clients expect. Nothing is run or generated here. */
export const PlanLimitsOut = z.strictObject({
  monthly_credits: none,
  workspaces_per_owner: z.int().min(0),
  concurrent_runs_per_user: none,
  storage_bytes_per_workspace: z.int().min(0),
  retention_days: z.null(),
  byok_enabled: z.literal(false),
  auto_fix_enabled: z.literal(false),
  credits_renewal: z.null(),
  downloads_enabled: z.literal(true),
  overage_rate_cents_per_credit: z.null(),
});

export const CreditsOut = z.strictObject({
  balance: none,
  monthly_balance: none,
  free_balance: none,
  free_grant: none,
  used: none,
  remaining: none,
  quota: z.null(),
  percent: z.null(),
  period_start: z.null(),
  period_end: z.null(),
  plan_grant: none,
  plan_tier: z.literal("custom"),
  overage_rate_cents_per_credit: z.null(),
  overage_cents: z.null(),
  credits_absorbed: z.null(),
});

/** Presents the caller. */
export function presentPrincipal(principal: Principal): z.infer<typeof WhoamiOut> {
  return {
    auth_kind: principal.authKind,
    user_id: principal.userId,
    workspace_id: principal.workspaceId,
    api_key_id: principal.apiKeyId,
    scopes: [...principal.scopes],
  };
}

/** Presents the limits of a workspace; null: of one that is yet to be made. */
export function presentLimits(
  { workspacesPerOwnerMax, defaultQuotaBytes }: Pick<Config, "workspacesPerOwnerMax" | "defaultQuotaBytes">,
  workspace: Workspace | null,
): z.infer<typeof PlanLimitsOut> {
  return {
    monthly_credits: 0,
    workspaces_per_owner: workspacesPerOwnerMax,
    concurrent_runs_per_user: 0,
    storage_bytes_per_workspace: workspace?.storageBytesQuota ?? defaultQuotaBytes,
    retention_days: null,
    byok_enabled: false,
    auto_fix_enabled: false,
    credits_renewal: null,
    downloads_enabled: true,
    overage_rate_cents_per_credit: null,
  };
}

/** There are no credits here, and nothing costs any. */
export const NO_CREDITS: z.infer<typeof CreditsOut> = {
  balance: 0,
  monthly_balance: 0,
  free_balance: 0,
  free_grant: 0,
  used: 0,
  remaining: 0,
  quota: null,
  percent: null,
  period_start: null,
  period_end: null,
  plan_grant: 0,
  plan_tier: "custom",
  overage_rate_cents_per_credit: null,
  overage_cents: null,
  credits_absorbed: null,
};
