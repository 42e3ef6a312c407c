import { type Command, UsageError } from "./command_line.ts";
import { print, table, withCore } from "./command_work.ts";

/** What an administrator does with workspaces. */
export const WORKSPACE_COMMANDS: readonly Command[] = [
  {
    name: "workspaces create",
    usage: "--name NAME [--quota BYTES] [--json]",
    summary: "Make a workspace",
    options: { name: "string", quota: "string", json: "boolean" },
    operands: [],
    run: (args, terminal) => {
      const name = args.required("name");
      const quota = args.integer("quota");
      return withCore(terminal, async ({ workspaces }, config) => {
        const made = await workspaces.create({ name, storageBytesQuota: quota ?? config.defaultQuotaBytes });
        print(args, terminal, { workspace_id: made.workspaceId, user_id: made.userId }, made.workspaceId);
      });
    },
  },
  {
    name: "workspaces list",
    usage: "[--json]",
    summary: "List workspaces with the bytes that they use",
    options: { json: "boolean" },
    operands: [],
    run: (args, terminal) =>
      withCore(terminal, ({ workspaces }) => {
        const rows = workspaces.list().map((workspace) => ({
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
    summary: "Set a workspace's quota; below what is used only further charges are refused",
    options: { json: "boolean" },
    operands: ["WORKSPACE_ID", "BYTES"],
    run: (args, terminal) => {
      const workspaceId = args.operand("WORKSPACE_ID");
      const quota = args.integerOperand("BYTES");
      return withCore(terminal, async ({ workspaces }) => {
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
      "Delete a workspace with all its uploads: it is refused at once, the server removes the uploads in the background",
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
      return withCore(terminal, async ({ workspaces }) => {
        await workspaces.removeAny(workspaceId);
        print(args, terminal, { workspace_id: workspaceId }, `${workspaceId} is deleted`);
      });
    },
  },
];
