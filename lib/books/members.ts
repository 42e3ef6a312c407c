import { AppError, invalidField } from "../errors.ts";
import type { Manager, Role } from "./principals.ts";

/** The most members of one workspace. Clients expect the whole list in one response, so it must end. */
export const MEMBERS_MAX = 1_000;

export interface Member {
  userId: string;
  email: string | null;
  name: string | null;
  role: Role;
  /** When they joined. */
  createdAtMs: number;
}

/** Someone who has signed in before, by user id or by address. */
export interface NewMember {
  userId?: string | undefined;
  email?: string | undefined;
  role: Role;
}

/**
 * The members of workspaces and their roles. Every rule is checked inside the transaction that makes the change. The one
 * who manages is a person with a role in the workspace, or an administrator.
 */
export interface Members {
  /**
   * Returns a user's role in a workspace; undefined if they are no member, or the workspace is unknown or deleted. A change
   * that was committed before the call is seen.
   */
  findRole(workspaceId: string, userId: string): Promise<Role | undefined>;

  /**
   * Lists all members: the manager first, then the admins, then the others, each group in the order of joining. Throws
   * `not_found` if there is no such workspace or the manager is no member.
   */
  list(manager: Manager, workspaceId: string): Promise<Member[]>;

  /**
   * Adds someone who has signed in before. Throws `not_found` (workspace or user), `forbidden` (the manager is no admin),
   * `conflict` if they are a member already, `validation_error` if several users have the address or the workspace has
   * `MEMBERS_MAX` members; for a person also `insufficient_storage` if the disk is nearly full.
   */
  add(manager: Manager, workspaceId: string, member: NewMember): Promise<Member>;

  /**
   * Changes a member's role. Throws `not_found` (workspace or member), `forbidden` (the manager is no admin), `conflict` for
   * the last admin, and for the owner, whom only the owner and an administrator may demote.
   */
  setRole(manager: Manager, workspaceId: string, change: { userId: string; role: Role }): Promise<Member>;

  /** Removes a member; everyone may leave. Their uploads stay with the workspace. Throws the same errors as `setRole`. */
  remove(manager: Manager, workspaceId: string, userId: string): Promise<void>;
}

/** Sorts members as `list` promises. Those who joined in the same millisecond keep their order. */
export function sortMembers(members: Member[], manager: Manager): Member[] {
  const rank = ({ userId, role }: Member): number => {
    if (manager !== "administrator" && userId === manager.userId) return 0;
    return role === "admin" ? 1 : 2;
  };
  return members.sort((a, b) => rank(a) - rank(b) || a.createdAtMs - b.createdAtMs);
}

export function noMember(): AppError {
  return new AppError("not_found", "There is no such member of this workspace");
}

export function alreadyMember(): AppError {
  return new AppError("conflict", "This user is a member already: change the role instead");
}

export function tooManyMembers(): AppError {
  return invalidField("workspace_id", `the workspace has ${MEMBERS_MAX} members, which is the most allowed`);
}

export function lastAdmin(): AppError {
  return new AppError("conflict", "This is the last admin of the workspace: make another member admin first");
}

export function ownerStaysAdmin(): AppError {
  return new AppError("conflict", "The owner of a workspace stays its admin: only the owner can step back");
}

export function ambiguousEmail(): AppError {
  return invalidField("email", "is the address of more than one user: give the user_id instead");
}

/** For an id or address that belongs to nobody: users come into being by signing in. */
export function noUser(field: "user_id" | "email"): AppError {
  const message = `No user with this ${field} has signed in yet`;
  return new AppError("not_found", message, { details: [{ field, message }] });
}
