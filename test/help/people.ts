import type { TestContext } from "node:test";
import { type DevClaims, type DevIssuer, startDevIssuer } from "../../lib/auth/dev_issuer.ts";
import type { Role } from "../../lib/books/principals.ts";
import { type ApiResponse, startTestApp, type TestApp, type TestAppOptions } from "./app.ts";
import { afterwards } from "./db.ts";

export interface PersonCall {
  body?: unknown;
  /** The value of X-Workspace-Id. */
  workspace?: string;
}

/** Someone who signs in with sessions. */
export interface Person {
  userId: string;
  subject: string;
  email: string;
  token: string;
  call: (method: string, path: string, call?: PersonCall) => Promise<ApiResponse>;
}

export interface PeopleApp extends TestApp {
  issuer: DevIssuer;
  /** Signs someone in for the first time. */
  signIn: (subject: string, claims?: DevClaims) => Promise<Person>;
  /** Sends a request with a session token. */
  callAs: (token: string, method: string, path: string, call?: PersonCall) => Promise<ApiResponse>;
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

  function callAs(
    token: string,
    method: string,
    path: string,
    { body, workspace }: PersonCall = {},
  ): Promise<ApiResponse> {
    return its.call(method, path, {
      key: token,
      body,
      ...(workspace === undefined ? {} : { headers: { "X-Workspace-Id": workspace } }),
    });
  }

  async function signIn(subject: string, claims: DevClaims = {}): Promise<Person> {
    const email = claims.email ?? `${subject}@example.com`;
    const token = await issuer.mint({ sub: subject, name: subject, ...claims, email });
    const response = await callAs(token, "GET", "/api/v1/auth/whoami");
    if (response.status !== 200) throw new Error(`whoami answered ${response.status}: ${response.text}`);
    return {
      ...{ userId: response.json.data.user_id, subject, email, token },
      call: (method, path, call) => callAs(token, method, path, call),
    };
  }

  async function makeWorkspace(owner: Person, quotaBytes?: number): Promise<string> {
    const response = await owner.call("POST", "/api/v1/workspaces", { body: { name: `Of ${owner.subject}` } });
    if (response.status !== 201) throw new Error(`Create answered ${response.status}: ${response.text}`);
    const { id } = response.json.data;
    if (quotaBytes !== undefined) await its.app.books.workspaces.setQuota(id, quotaBytes);
    return id;
  }

  async function join(workspaceId: string, { userId }: Person, role: Role): Promise<void> {
    await its.app.books.members.add("administrator", workspaceId, { userId, role });
  }

  return { ...its, issuer, signIn, callAs, makeWorkspace, join };
}

/** Creates an upload as someone, in the workspace if one is given, and PUTs bytes if some are given. */
export async function uploadAs(
  app: PeopleApp,
  person: Person,
  { workspace, bytes }: { workspace?: string; bytes?: string } = {},
): Promise<string> {
  const body = { filename: "file.bin", category: "file" };
  const response = await person.call("POST", "/api/v1/uploads", {
    body,
    ...(workspace === undefined ? {} : { workspace }),
  });
  if (response.status !== 201) throw new Error(`Create answered ${response.status}: ${response.text}`);
  const { upload, upload_url } = response.json.data;
  if (bytes !== undefined) {
    const put = await app.put(upload_url, bytes);
    if (put.status !== 200) throw new Error(`PUT answered ${put.status}: ${put.text}`);
  }
  return upload.id;
}

/** A response without the request's id and the time. */
export function wordsOf({ status, json }: ApiResponse): unknown {
  return { status, ...json, meta: null };
}
