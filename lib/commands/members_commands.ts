import type { Member } from "../core/members.ts";
import { ROLES, type Role } from "../core/principals.ts";
import { type Arguments, type Command, UsageError } from "./command_line.ts";
import { isoTime, print, table, withCore } from "./command_work.ts";

/** What an administrator does with the members of a workspace. */
export const MEMBER_COMMANDS: readonly Command[] = [
  {
    name: "workspaces members list",
    usage: "WORKSPACE_ID [--json]",
    summary: "List a workspace's members",
    options: { json: "boolean" },
    operands: ["WORKSPACE_ID"],
    run: (args, terminal) =>
      withCore(terminal, async ({ members }) => {
        const rows = (await members.list("administrator", args.operand("WORKSPACE_ID"))).map(shown);
        print(args, terminal, rows, table(rows));
      }),
  },
  {
    name: "workspaces members add",
    usage: "WORKSPACE_ID [--user USER_ID] [--email ADDRESS] --role ROLE [--json]",
    summary: `Add someone who has signed in before. Roles: ${ROLES.join(", ")}`,
    options: { user: "string", email: "string", role: "string", json: "boolean" },
    operands: ["WORKSPACE_ID"],
    run: (args, terminal) => {
      const role = roleOf(args.required("role"), "workspaces members add");
      const [userId, email] = [args.text("user"), args.text("email")];
      if ((userId === undefined) === (email === undefined)) {
        throw wrong("Either --user or --email must be given", "workspaces members add");
      }
      return withCore(terminal, async ({ members }) => {
        const member = await members.add("administrator", args.operand("WORKSPACE_ID"), { userId, email, role });
        printMember(args, terminal, member);
      });
    },
  },
  {
    name: "workspaces members set-role",
    usage: "WORKSPACE_ID USER_ID ROLE [--json]",
    summary: "Change a member's role",
    options: { json: "boolean" },
    operands: ["WORKSPACE_ID", "USER_ID", "ROLE"],
    run: (args, terminal) => {
      const role = roleOf(args.operand("ROLE"), "workspaces members set-role");
      const change = { userId: args.operand("USER_ID"), role };
      return withCore(terminal, async ({ members }) => {
        const member = await members.setRole("administrator", args.operand("WORKSPACE_ID"), change);
        printMember(args, terminal, member);
      });
    },
  },
  {
    name: "workspaces members remove",
    usage: "WORKSPACE_ID USER_ID [--json]",
    summary: "Remove a member; what they uploaded to the workspace stays",
    options: { json: "boolean" },
    operands: ["WORKSPACE_ID", "USER_ID"],
    run: (args, terminal) => {
      const [workspaceId, userId] = [args.operand("WORKSPACE_ID"), args.operand("USER_ID")];
      return withCore(terminal, async ({ members }) => {
        await members.remove("administrator", workspaceId, userId);
        print(args, terminal, { workspace_id: workspaceId, user_id: userId }, `${userId} is no longer a member`);
      });
    },
  },
];

function printMember(args: Arguments, terminal: Parameters<typeof print>[1], member: Member): void {
  print(args, terminal, shown(member), `${member.userId} is ${member.role}`);
}

function shown({ userId, email, name, role, createdAtMs }: Member): Record<string, string | null> {
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
