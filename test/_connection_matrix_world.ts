import { join } from "node:path";
import type { TestContext } from "node:test";
import Database from "better-sqlite3";
import { type DevIssuer, startDevIssuer } from "../lib/auth/dev_issuer.ts";
import { DATABASE_FILE } from "../lib/db/db.ts";
import type { Json } from "./_app.ts";
import { type CallResult, type Run, startRun } from "./_connection_matrix_program.ts";
import { afterwards } from "./_db.ts";
import { initProgram } from "./_process.ts";
import type { MatrixScene } from "./_security_matrix.ts";

/** A download that the kernel's buffers cannot hold. */
const BIG_BYTES = 16 * 1024 * 1024;

/** What the cells need: a data directory, whoever calls, and things to ask for. It outlives each run of the program. */
export interface World {
  dataDir: string;
  key: string;
  /** A session's. */
  ownerToken: string;
  /** Things that no request changes. */
  shared: MatrixScene & { bigUpload: string };
  /** A connection of its own to the database: what it reads is committed. */
  sql: Database.Database;
  /** Holds the database's write lock until the returned function is called. */
  holdDatabase: () => () => void;
  /** Starts the program; the next run takes the place of one that has ended. */
  start: () => Promise<Run>;
}

export async function openWorld(t: TestContext, { haste }: { haste?: number } = {}): Promise<World> {
  const issuer = await startDevIssuer({ port: 0 });
  afterwards(t, issuer.close);
  const { dataDir, made } = await initProgram(t);
  const env = { STOWAGE_CLERK_ISSUER: issuer.issuer, STOWAGE_WORKSPACES_PER_OWNER_MAX: "100000" };
  const start = (): Promise<Run> => startRun(t, { dataDir, env, ...(haste === undefined ? {} : { haste }) });
  const run = await start();
  const ownerToken = await signIn(issuer, run, "founder");
  for (const subject of ["member", "newcomer"]) await signIn(issuer, run, subject);

  const { api_key: key, workspace_id: workspace } = made;
  const workflow = (await made201(run, "/api/v1/workflows", key, {})).id;
  const small = await confirmedUpload(run, { key, workspace, bytes: Buffer.alloc(100, "x") });
  const deletedUpload = await confirmedUpload(run, { key, workspace, bytes: Buffer.alloc(100, "x") });
  expectStatus(200, await run.call("DELETE", `/api/v1/uploads/${deletedUpload}`, { token: key }));
  const bigUpload = await confirmedUpload(run, { key, workspace, bytes: Buffer.alloc(BIG_BYTES, "x") });
  run.program.child.kill("SIGTERM");
  await run.program.ended;

  const path = join(dataDir, DATABASE_FILE);
  const sql = new Database(path, { readonly: true });
  const locker = new Database(path, { timeout: 5_000 });
  afterwards(t, () => {
    sql.close();
    locker.close();
  });
  return {
    ...{ dataDir, key, ownerToken, sql, start },
    shared: { workspace, workflow, upload: small, deletedUpload, member: made.user_id, bigUpload },
    holdDatabase() {
      locker.exec("BEGIN IMMEDIATE");
      return () => void locker.exec("ROLLBACK");
    },
  };
}

async function signIn(issuer: DevIssuer, run: Run, subject: string): Promise<string> {
  const token = await issuer.mint({ sub: subject, name: subject, email: `${subject}@example.com` });
  expectStatus(200, await run.call("GET", "/api/v1/auth/whoami", { token }));
  return token;
}

async function confirmedUpload(
  run: Run,
  { key, workspace, bytes }: { key: string; workspace: string; bytes: Buffer },
): Promise<string> {
  const { id } = await stagedUpload(run, key, bytes);
  const body = { context_type: "workspace", context_id: workspace };
  expectStatus(200, await run.call("POST", `/api/v1/uploads/${id}`, { token: key, body }));
  return id;
}

/** Makes a pending upload, with its bytes if some are given. */
export async function stagedUpload(run: Run, key: string, bytes?: Buffer): Promise<{ id: string; url: URL }> {
  const { upload, upload_url } = await made201(run, "/api/v1/uploads", key, { filename: "a.bin", category: "file" });
  if (bytes !== undefined) expectStatus(200, await run.call("PUT", upload_url, { body: bytes }));
  return { id: upload.id, url: new URL(upload_url) };
}

/** Where an upload can be downloaded. */
export async function downloadUrl(run: Run, key: string, id: string): Promise<URL> {
  const { json } = expectStatus(200, await run.call("GET", `/api/v1/uploads/${id}`, { token: key }));
  return new URL(json.data.download_url);
}

/** Makes something, and returns what was answered of it. */
export async function made201(run: Run, path: string, token: string, body: unknown): Promise<Json> {
  return expectStatus(201, await run.call("POST", path, { token, body })).json.data;
}

function expectStatus(status: number, answer: CallResult): CallResult {
  if (answer.status !== status) throw new Error(`Expected ${status}, not ${answer.status}: ${answer.text}`);
  return answer;
}
