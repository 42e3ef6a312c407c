import type { TestContext } from "node:test";
import { type DevClaims, type DevIssuer, startDevIssuer } from "../lib/auth/dev_issuer.ts";
import type { Role } from "../lib/core/principals.ts";
import { type Answer, startTestApp, type TestApp, type TestAppOptions } from "./_app.ts";
import { afterwards } from "./_db.ts";

export interface PersonCall {
  body?: unknown;
  /** What X-Workspace-Id says. */
  workspace?: string;
}

/** Someone who signs in with sessions. */
export interface Person {
  userId: string;
  subject: string;
  email: string;
  token: string;
  call: (method: string, path: string, call?: PersonCall) => Promise<Answer>;
}

export interface PeopleApp extends TestApp {
  issuer: DevIssuer;
  /** Signs someone in for the first time. */
  signIn: (subject: string, claims?: DevClaims) => Promise<Person>;
  /** Sends a request with a session token. */
  callAs: (token: string, method: string, path: string, call?: PersonCall) => Promise<Answer>;
  /** Makes a workspace that the person owns, over the API. */
  makeWorkspace: (owner: Person, quotaBytes?: number) => Promise<string>;
  /** Makes someone a member, as an administrator does. */
  join: (workspaceId: string, person: Person, role: Role) => Promise<void>;
}

/** A real service that accepts the sessions of a real development issuer. */
export async function startPeopleApp(t: TestContext, options: TestAppOptions = {}): Promise<PeopleApp> {
  const issuer = await startDevIssuer({ port: 0 });
  afterwards(t, issuer.close);
  const its = await startTestApp(t, { ...options, env: { STOWAGE_CLERK_ISSUER: issuer.issuer, ...options.env } });

  function callAs(token: string, method: string, path: string, { body, workspace }: PersonCall = {}): Promise<Answer> {
    return its.call(method, path, {
      key: token,
      body,
      ...(workspace === undefined ? {} : { headers: { "X-Workspace-Id": workspace } }),
    });
  }

  async function signIn(subject: string, claims: DevClaims = {}): Promise<Person> {
    const email = claims.email ?? `${subject}@example.com`;
    const token = await issuer.mint({ sub: subject, name: subject, ...claims, email });
    const answer = await callAs(token, "GET", "/api/v1/auth/whoami");
    if (answer.status !== 200) throw new Error(`whoami answered ${answer.status}: ${answer.text}`);
    return {
      ...{ userId: answer.json.data.user_id, subject, email, token },
      call: (method, path, call) => callAs(token, method, path, call),
    };
  }

  async function makeWorkspace(owner: Person, quotaBytes?: number): Promise<string> {
    const answer = await owner.call("POST", "/api/v1/workspaces", { body: { name: `Of ${owner.subject}` } });
    if (answer.status !== 201) throw new Error(`Create answered ${answer.status}: ${answer.text}`);
    const { id } = answer.json.data;
    if (quotaBytes !== undefined) await its.app.core.workspaces.setQuota(id, quotaBytes);
    return id;
  }

  async function join(workspaceId: string, { userId }: Person, role: Role): Promise<void> {
    await its.app.core.members.add("administrator", workspaceId, { userId, role });
  }

  return { ...its, issuer, signIn, callAs, makeWorkspace, join };
}

/** Creates an upload as someone, in the workspace where one is given, and PUTs bytes where some are given. */
export async function uploadAs(
  app: PeopleApp,
  person: Person,
  { workspace, bytes }: { workspace?: string; bytes?: string } = {},
): Promise<string> {
  const body = { filename: "file.bin", category: "file" };
  const answer = await person.call("POST", "/api/v1/uploads", {
    body,
    ...(workspace === undefined ? {} : { workspace }),
  });
  if (answer.status !== 201) throw new Error(`Create answered ${answer.status}: ${answer.text}`);
  const { upload, upload_url } = answer.json.data;
  if (bytes !== undefined) {
    const put = await app.put(upload_url, bytes);
    if (put.status !== 200) throw new Error(`PUT answered ${put.status}: ${put.text}`);
  }
  return upload.id;
}

/** What an answer says but for the request's id and its time. */
export function wordsOf({ status, json }: Answer): unknown {
  return { status, ...json, meta: null };
}
