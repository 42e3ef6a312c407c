import type { Member } from "../books/members.ts";
import { ROLES, type Role } from "../books/principals.ts";
import { type Arguments, type Command, UsageError } from "./command_line.ts";
import { findWorkspaceId, isoTime, print, table, withBooks } from "./work.ts";

/** Managing the members of a workspace. */
export const MEMBER_COMMANDS: readonly Command[] = [
  {
    name: "workspaces members list",
    example: "workspaces members list film-club",
    usage: "WORKSPACE [--json]",
    summary: "List a workspace's members",
    options: { json: "boolean" },
    operands: ["WORKSPACE"],
    run: (args, terminal) =>
      withBooks(terminal, async ({ workspaces, members }) => {
        const workspaceId = await findWorkspaceId(workspaces, args.operand("WORKSPACE"));
        const rows = (await members.list("administrator", workspaceId)).map(presentRow);
        print(args, terminal, rows, table(rows));
      }),
  },
  {
    name: "workspaces members add",
    example: "workspaces members add film-club --email ann@example.com --role editor",
    usage: "WORKSPACE [--user USER_ID] [--email ADDRESS] --role ROLE [--json]",
    summary: `Add someone who has signed in before. Roles: ${ROLES.join(", ")}`,
    options: { user: "string", email: "string", role: "string", json: "boolean" },
    operands: ["WORKSPACE"],
    run: (args, terminal) => {
      const role = roleOf(args.required("role"), "workspaces members add");
      const [userId, email] = [args.text("user"), args.text("email")];
      if ((userId === undefined) === (email === undefined)) {
        throw wrong("Either --user or --email must be given", "workspaces members add");
      }
      return withBooks(terminal, async ({ workspaces, members }) => {
        const workspaceId = await findWorkspaceId(workspaces, args.operand("WORKSPACE"));
        const member = await members.add("administrator", workspaceId, { userId, email, role });
        printMember(args, terminal, member);
      });
    },
  },
  {
    name: "workspaces members set-role",
    example: "workspaces members set-role film-club 019f2a4e-7c3d-7b1a-8e21-2d6b5f0c9a11 admin",
    usage: "WORKSPACE USER_ID ROLE [--json]",
    summary: "Change a member's role",
    options: { json: "boolean" },
    operands: ["WORKSPACE", "USER_ID", "ROLE"],
    run: (args, terminal) => {
      const role = roleOf(args.operand("ROLE"), "workspaces members set-role");
      const change = { userId: args.operand("USER_ID"), role };
      return withBooks(terminal, async ({ workspaces, members }) => {
        const workspaceId = await findWorkspaceId(workspaces, args.operand("WORKSPACE"));
        const member = await members.setRole("administrator", workspaceId, change);
        printMember(args, terminal, member);
      });
    },
  },
  {
    name: "workspaces members remove",
    example: "workspaces members remove film-club 019f2a4e-7c3d-7b1a-8e21-2d6b5f0c9a11",
    usage: "WORKSPACE USER_ID [--json]",
    summary: "Remove a member; their uploads stay with the workspace",
    options: { json: "boolean" },
    operands: ["WORKSPACE", "USER_ID"],
    run: (args, terminal) => {
      const userId = args.operand("USER_ID");
      return withBooks(terminal, async ({ workspaces, members }) => {
        const workspaceId = await findWorkspaceId(workspaces, args.operand("WORKSPACE"));
        await members.remove("administrator", workspaceId, userId);
        print(args, terminal, { workspace_id: workspaceId, user_id: userId }, `${userId} is no longer a member`);
      });
    },
  },
];

function printMember(args: Arguments, terminal: Parameters<typeof print>[1], member: Member): void {
  print(args, terminal, presentRow(member), `${member.userId} is ${member.role}`);
}

function presentRow({ userId, email, name, role, createdAtMs }: Member): Record<string, string | null> {
  return { user_id: userId, email, name, role, added_at: isoTime(createdAtMs) };
}

function roleOf(text: string, command: string): Role {
  const role = ROLES.find((known) => known === text);
  if (role !== undefined) return role;
  throw wrong(`A role is one of ${ROLES.join(", ")}, not ${JSON.stringify(text)}`, command);
}

function wrong(message: string, command: string): UsageError {
  const usage = MEMBER_COMMANDS.find(({ name }) => name === command)?.usage ?? "";
  return new UsageError(message, `stowage ${command} ${usage}`);
}
