import { type Command, UsageError } from "./command_line.ts";
import { print, table, withBooks } from "./work.ts";

/** Managing workspaces. */
export const WORKSPACE_COMMANDS: readonly Command[] = [
  {
    name: "workspaces create",
    usage: "--name NAME [--quota BYTES] [--json]",
    summary: "Create a workspace",
    options: { name: "string", quota: "string", json: "boolean" },
    operands: [],
    run: (args, terminal) => {
      const name = args.required("name");
      const quota = args.integer("quota");
      return withBooks(terminal, async ({ workspaces }, config) => {
        const storageBytesQuota = quota ?? config.defaultQuotaBytes;
        const { workspaceId, createdBy } = await workspaces.create("administrator", { name, storageBytesQuota });
        print(args, terminal, { workspace_id: workspaceId, user_id: createdBy }, workspaceId);
      });
    },
  },
  {
    name: "workspaces list",
    usage: "[--json]",
    summary: "List workspaces with their storage use",
    options: { json: "boolean" },
    operands: [],
    run: (args, terminal) =>
      withBooks(terminal, async ({ workspaces }) => {
        const rows = (await workspaces.list()).map((workspace) => ({
          workspace_id: workspace.workspaceId,
          name: workspace.name,
          storage_bytes_used: workspace.storageBytesUsed,
          storage_bytes_quota: workspace.storageBytesQuota,
        }));
        print(args, terminal, rows, table(rows));
      }),
  },
  {
    name: "workspaces set-quota",
    usage: "WORKSPACE_ID BYTES [--json]",
    summary: "Set a workspace's quota; if it is below what is used, only further charges are refused",
    options: { json: "boolean" },
    operands: ["WORKSPACE_ID", "BYTES"],
    run: (args, terminal) => {
      const workspaceId = args.operand("WORKSPACE_ID");
      const quota = args.integerOperand("BYTES");
      return withBooks(terminal, async ({ workspaces }) => {
        const workspace = await workspaces.setQuota(workspaceId, quota);
        const row = { workspace_id: workspaceId, storage_bytes_quota: workspace.storageBytesQuota };
        print(args, terminal, row, `${workspaceId} may use ${workspace.storageBytesQuota} bytes`);
      });
    },
  },
  {
    name: "workspaces delete",
    usage: "WORKSPACE_ID --yes [--json]",
    summary:
      "Delete a workspace with all its uploads: access ends at once, the server removes the uploads in the background",
    options: { yes: "boolean", json: "boolean" },
    operands: ["WORKSPACE_ID"],
    run: (args, terminal) => {
      const workspaceId = args.operand("WORKSPACE_ID");
      if (!args.flag("yes")) {
        throw new UsageError(
          "--yes is missing: this cannot be undone",
          "stowage workspaces delete WORKSPACE_ID --yes [--json]",
        );
      }
      return withBooks(terminal, async ({ workspaces }) => {
        await workspaces.remove("administrator", workspaceId);
        print(args, terminal, { workspace_id: workspaceId }, `${workspaceId} is deleted`);
      });
    },
  },
];
