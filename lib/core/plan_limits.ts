import type { Config } from "../config/config.ts";
import type { Workspace } from "./workspaces.ts";

/** The limits as a plan's object. Nothing is run or generated here; `workspace` null: those of one that is yet to be made. */
export function presentLimits(config: Config, workspace: Workspace | null): Record<string, unknown> {
  return {
    monthly_credits: 0,
    workspaces_per_owner: config.workspacesPerOwnerMax,
    concurrent_runs_per_user: 0,
    storage_bytes_per_workspace: workspace?.storageBytesQuota ?? config.defaultQuotaBytes,
    retention_days: null,
    byok_enabled: false,
    auto_fix_enabled: false,
    credits_renewal: null,
    downloads_enabled: true,
    overage_rate_cents_per_credit: null,
  };
}
