import { formatSize } from "../units.ts";
import { type Command, UsageError } from "./command_line.ts";
import { findWorkspaceId, print, table, withBooks } from "./work.ts";

/** Managing workspaces. */
export const WORKSPACE_COMMANDS: readonly Command[] = [
  {
    name: "workspaces create",
    example: 'workspaces create --name "Film club" --quota 50GiB',
    usage: "--name NAME [--quota SIZE] [--json]",
    summary: "Create a workspace",
    options: { name: "string", quota: "string", json: "boolean" },
    operands: [],
    run: (args, terminal) => {
      const name = args.required("name");
      const quota = args.size("quota");
      return withBooks(terminal, async ({ workspaces }, config) => {
        const storageBytesQuota = quota ?? config.defaultQuotaBytes;
        const { workspaceId, createdBy } = await workspaces.create("administrator", { name, storageBytesQuota });
        print(args, terminal, { workspace_id: workspaceId, user_id: createdBy }, workspaceId);
      });
    },
  },
  {
    name: "workspaces list",
    example: "workspaces list",
    usage: "[--json]",
    summary: "List workspaces with their storage use",
    options: { json: "boolean" },
    operands: [],
    run: (args, terminal) =>
      withBooks(terminal, async ({ workspaces }) => {
        const rows = (await workspaces.list()).map((workspace) => ({
          workspace_id: workspace.workspaceId,
          slug: workspace.slug,
          name: workspace.name,
          storage_bytes_used: workspace.storageBytesUsed,
          storage_bytes_quota: workspace.storageBytesQuota,
        }));
        const shown = rows.map(({ storage_bytes_used: used, storage_bytes_quota: quota, ...row }) => ({
          ...row,
          used: formatSize(used),
          quota: formatSize(quota),
        }));
        print(args, terminal, rows, table(shown));
      }),
  },
  {
    name: "workspaces set-quota",
    example: "workspaces set-quota film-club 100GiB",
    usage: "WORKSPACE SIZE [--json]",
    summary: "Set a workspace's quota; if it is below what is used, only further charges are refused",
    options: { json: "boolean" },
    operands: ["WORKSPACE", "SIZE"],
    run: (args, terminal) => {
      const quota = args.sizeOperand("SIZE");
      return withBooks(terminal, async ({ workspaces }) => {
        const workspaceId = await findWorkspaceId(workspaces, args.operand("WORKSPACE"));
        const workspace = await workspaces.setQuota(workspaceId, quota);
        const row = { workspace_id: workspaceId, storage_bytes_quota: workspace.storageBytesQuota };
        print(args, terminal, row, `${workspaceId} may use ${formatSize(workspace.storageBytesQuota)}`);
      });
    },
  },
  {
    name: "workspaces delete",
    example: "workspaces delete film-club --yes",
    usage: "WORKSPACE --yes [--json]",
    summary:
      "Delete a workspace with all its uploads: access ends at once, the server removes the uploads in the background",
    options: { yes: "boolean", json: "boolean" },
    operands: ["WORKSPACE"],
    run: (args, terminal) => {
      if (!args.flag("yes")) {
        throw new UsageError(
          "--yes is missing: this cannot be undone",
          "stowage workspaces delete WORKSPACE --yes [--json]",
        );
      }
      return withBooks(terminal, async ({ workspaces }) => {
        const workspaceId = await findWorkspaceId(workspaces, args.operand("WORKSPACE"));
        await workspaces.remove("administrator", workspaceId);
        print(args, terminal, { workspace_id: workspaceId }, `${workspaceId} is deleted`);
      });
    },
  },
];
