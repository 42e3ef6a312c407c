import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import type { Books } from "../../../lib/books/books.ts";
import { fileType } from "../../../lib/books/file_types.ts";
import { type RepeatableRequest, repeatable } from "../../../lib/books/idempotency.ts";
import {
  type ApiKeyPrincipal,
  type Principal,
  type Role,
  SCOPES,
  type SessionPrincipal,
} from "../../../lib/books/principals.ts";
import type { ConfirmRequest, NewUpload, Upload } from "../../../lib/books/uploads.ts";
import { AppError, type ErrorCode } from "../../../lib/errors.ts";
import { temporaryFolder, testConfig } from "../../help/app.ts";
import { afterwards } from "../../help/db.ts";
import { BOOKS_ENGINES } from "../../help/engines.ts";

export const LEASE_MS = 60_000;
export const DAY_MS = 86_400_000;

/** A workspace, and the caller that holds its API key. */
export interface TestWorkspace {
  workspaceId: string;
  ownerId: string;
  key: ApiKeyPrincipal;
}

/** Books with a clock that stands still, and short ways to what many tests need. All of it uses the interface alone. */
export interface Its {
  t: TestContext;
  books: Books;
  nowMs: () => number;
  advance: (ms: number) => void;
  /** Closes the books and opens them again. */
  reopen: () => Promise<void>;
  makeWorkspace: (quotaBytes?: number) => Promise<TestWorkspace>;
  /** Signs somebody in; resolves with their user id. */
  signIn: (subject: string) => Promise<string>;
  /** Makes somebody a member; resolves with their session in the workspace. */
  join: (workspaceId: string, subject: string, role: Role) => Promise<SessionPrincipal>;
  create: (principal: Principal, sizeBytes?: number | null) => Promise<Upload>;
  /** Confirms an upload as if a store had copied its object. */
  confirm: (principal: Principal, request: ConfirmRequest, sizeBytes: number) => Promise<Upload>;
  /** Creates an upload in the workspace and confirms it. */
  confirmed: (workspace: TestWorkspace, sizeBytes: number) => Promise<Upload>;
  usedBytes: (workspaceId: string) => Promise<number>;
  /** Takes what is due. Resolves with the keys, which are left taken. */
  takeKeys: () => Promise<string[]>;
  /** Takes and settles what is due now, as if a store had removed all of it. Resolves with the keys. */
  removeDue: () => Promise<string[]>;
  /** Asserts BOOKS: counter, ledger, uploads and last balance of the workspace agree. */
  checkSums: (workspaceId: string) => Promise<void>;
}

/** Tests a promise of the books on each engine. */
export function promise(name: string, work: (its: Its) => Promise<void>, env: Record<string, string> = {}): void {
  for (const engine of BOOKS_ENGINES) {
    test(`${engine.name}: ${name}`, async (t) => {
      const config = testConfig(join(await temporaryFolder(t), "data"), { STOWAGE_STORE: "disk", ...env });
      let nowMs = Date.now();
      const open = (): Promise<Books> => engine.open(config, () => nowMs);
      const its = createIts(t, await open(), {
        nowMs: () => nowMs,
        advance: (ms) => {
          nowMs += ms;
        },
        open,
      });
      afterwards(t, () => its.books.close());
      await work(its);
    });
  }
}

interface Surroundings extends Pick<Its, "nowMs" | "advance"> {
  open: () => Promise<Books>;
}

function createIts(t: TestContext, books: Books, { nowMs, advance, open }: Surroundings): Its {
  const its: Its = {
    t,
    books,
    nowMs,
    advance,
    async reopen() {
      await its.books.close();
      its.books = await open();
    },
    async makeWorkspace(storageBytesQuota = 1_000_000) {
      const { workspaceId, createdBy } = await its.books.workspaces.create("administrator", {
        name: "Test",
        storageBytesQuota,
      });
      const { apiKeyId } = await its.books.keys.create({ workspaceId });
      return { workspaceId, ownerId: createdBy, key: keyOf({ workspaceId, apiKeyId, userId: createdBy }) };
    },
    signIn: (subject) =>
      its.books.users.findOrCreate({
        subject,
        email: `${subject}@example.com`,
        name: subject,
        expiresAtMs: nowMs() + DAY_MS,
      }),
    async join(workspaceId, subject, role) {
      const userId = await its.signIn(subject);
      await its.books.members.add("administrator", workspaceId, { userId, role });
      return sessionOf(userId, { workspaceId, role });
    },
    create: async (principal, sizeBytes = null) => (await its.books.uploads.create(principal, file(sizeBytes))).upload,
    async confirm(principal, request, sizeBytes) {
      const found = await its.books.uploads.findToConfirm(principal, request);
      if (found.isConfirmed) return found.upload;
      const { workspaceId } = found;
      const reservation = { workspaceId, sizeBytes, leaseMs: LEASE_MS };
      const finalKey = await its.books.uploads.reserveFinalKey(request.uploadId, reservation);
      return its.books.uploads.settleConfirm(principal, request, objectOf(finalKey, sizeBytes));
    },
    async confirmed({ key, workspaceId }, sizeBytes) {
      const { uploadId } = await its.create(key);
      return its.confirm(key, toWorkspace(uploadId, workspaceId), sizeBytes);
    },
    usedBytes: async (workspaceId) => (await its.books.workspaces.find(workspaceId))?.storageBytesUsed ?? Number.NaN,
    async takeKeys() {
      const taken = await its.books.removals.takeDue(nowMs(), 100);
      return taken.map(({ objectKey }) => objectKey);
    },
    async removeDue() {
      const taken = await its.books.removals.takeDue(nowMs(), 100);
      await its.books.removals.settle(taken, new Map(), nowMs());
      return taken.map(({ objectKey }) => objectKey);
    },
    async checkSums(workspaceId) {
      const sums = await its.books.ledger.sumsOf(workspaceId);
      const counterBytes = sums?.counterBytes;
      assert.ok(counterBytes !== undefined && counterBytes >= 0);
      const equal = { ledgerBytes: counterBytes, uploadsBytes: counterBytes, balanceBytes: counterBytes };
      assert.deepEqual(sums, { workspaceId, counterBytes, ...equal }, "BOOKS");
    },
  };
  return its;
}

/** The caller that holds an API key with every scope. Its rights are old enough to be checked again by each write. */
export function keyOf(ids: { workspaceId: string; apiKeyId: string; userId: string }): ApiKeyPrincipal {
  return { ...ids, authKind: "api_key", scopes: SCOPES, checkedAtMs: Number.NEGATIVE_INFINITY };
}

/** Somebody's session, in a workspace if one is given. Its rights are old enough to be checked again by each write. */
export function sessionOf(userId: string, selected?: { workspaceId: string; role: Role }): SessionPrincipal {
  const { workspaceId = null, role = null } = selected ?? {};
  const fixed = { authKind: "clerk", apiKeyId: null, scopes: SCOPES, checkedAtMs: Number.NEGATIVE_INFINITY } as const;
  return { ...fixed, userId, workspaceId, role };
}

export function file(statedSizeBytes: number | null = null): NewUpload {
  return { type: fileType("notes.bin", "file"), category: "file", statedSizeBytes, checksumSha256: null };
}

/** A request to confirm an upload in a workspace. */
export function toWorkspace(
  uploadId: string,
  workspaceId: string,
  repeatable: RepeatableRequest | null = null,
): ConfirmRequest {
  return { uploadId, contextType: "workspace", contextId: workspaceId, repeatable };
}

export function objectOf(finalKey: string, sizeBytes: number) {
  return { finalKey, sizeBytes, etag: '"e"', checksumSha256: null, counts: null };
}

/** A request with an Idempotency-Key; `words` are what it asks for. */
export function keyed(principal: Principal, idempotencyKey: string, ...words: string[]): RepeatableRequest {
  return repeatable(principal, idempotencyKey, words) ?? assert.fail();
}

/** Asserts that the verb refuses with this code, and with this text if one is given. */
export async function refuses(code: ErrorCode, outcome: Promise<unknown>, text = /(?:)/): Promise<void> {
  await assert.rejects(outcome, (error) => {
    assert.ok(error instanceof AppError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, text);
    return true;
  });
}
