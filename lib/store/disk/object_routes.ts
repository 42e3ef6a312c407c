import type { IncomingMessage, ServerResponse } from "node:http";
import { finished, pipeline } from "node:stream/promises";
import { create as contentDisposition } from "content-disposition";
import { AppError, clientGone } from "../../errors.ts";
import { StoreError } from "../objects.ts";
import { isKnownToClient, putCondition, rangeApplies } from "./conditions.ts";
import type { DiskStore, OpenObject } from "./objects_disk.ts";
import { readPutPromises } from "./put_headers.ts";
import { modifiedAtMsOf } from "./stamps.ts";

/** How a stream to a client fails when the client goes away. */
const CLIENT_GONE_CODES: ReadonlySet<string> = new Set([
  "ECONNRESET",
  "EPIPE",
  "ERR_STREAM_DESTROYED",
  "ERR_STREAM_PREMATURE_CLOSE",
  "ERR_STREAM_UNABLE_TO_PIPE",
]);

/** A document of its own, without scripts: the browser's own viewer of images, audio, video and text needs these. */
const INLINE_POLICY = "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'";

/** The request's target below the public URL, as it came: nothing in it is decoded. `search` has no question mark. */
export interface RequestTarget {
  path: string;
  search: string;
  /** Iterating throws an `AppError` if the body cannot be whole. */
  body: AsyncIterable<Buffer>;
}

export interface ObjectRoutesOptions {
  store: Pick<DiskStore, "verifyUrl" | "receive" | "open">;
  now: () => number;
}

export type ObjectHandler = (req: IncomingMessage, res: ServerResponse, target: RequestTarget) => Promise<void>;

export interface ObjectRoutes {
  /** Stores the body. Responds as S3 does: 200 with the ETag and no body. */
  putObject: ObjectHandler;
  /** Sends an object, or part of it; for HEAD the headers alone. Resolves when all is sent or the client is gone. */
  getObject: ObjectHandler;
}

/**
 * Makes the handlers that serve the embedded store to the holders of its signed URLs. Both handlers throw an `AppError` before they have
 * written anything, and leave a body that they refuse unread. With a method other than their own they throw `forbidden`,
 * as for any URL that was not signed for the request at hand.
 */
export function createObjectRoutes({ store, now }: ObjectRoutesOptions): ObjectRoutes {
  async function putObject(req: IncomingMessage, res: ServerResponse, target: RequestTarget): Promise<void> {
    const { path, search, body } = target;
    const grant = store.verifyUrl(req.method ?? "", path, search, now());
    if (grant.method !== "PUT") throw wrongMethod(grant.method);
    const { headers } = req;
    const checkReplaced = putCondition(headers);
    const promises = readPutPromises(headers, grant.checksumSha256);
    const announced = headers["content-length"];
    const { etag } = await store.receive(grant.objectKey, body, {
      sizeBytes: grant.sizeBytes,
      maxBytes: grant.maxBytes,
      ...promises,
      ...(checkReplaced === null ? {} : { checkReplaced }),
      contentLength: announced === undefined ? null : Number(announced),
      ownsChunks: true,
      // Only now: a client that asked first does not send the bytes of an upload that is refused.
      onAccept: () => {
        // HTTP/1.0 knows no interim responses. node:http has refused every expectation that is another.
        if (headers.expect !== undefined && req.httpVersion !== "1.0") res.writeContinue();
      },
    });
    res.writeHead(200, { ETag: etag, "Content-Length": 0 });
    res.end();
  }

  async function getObject(req: IncomingMessage, res: ServerResponse, { path, search }: RequestTarget): Promise<void> {
    const grant = store.verifyUrl(req.method ?? "", path, search, now());
    if (grant.method !== "GET") throw wrongMethod(grant.method);
    const object = await openOrThrow(grant.objectKey);
    const { sizeBytes, etag } = object;
    const modifiedAtMs = modifiedAtMsOf(object);
    const headers = {
      ETag: etag,
      "Last-Modified": new Date(modifiedAtMs).toUTCString(),
      "Accept-Ranges": "bytes",
      "Cache-Control": "private, no-store",
      "Content-Type": grant.contentType,
      // Never shown by a browser as part of this origin, whatever the file holds.
      "Content-Disposition": contentDisposition(grant.filename === "" ? undefined : grant.filename, {
        type: grant.disposition,
      }),
      "Content-Security-Policy": grant.disposition === "inline" ? INLINE_POLICY : "sandbox; default-src 'none'",
      "X-Content-Type-Options": "nosniff",
    };
    try {
      if (isKnownToClient(req.headers, object, modifiedAtMs)) {
        const { ETag, "Last-Modified": lastModified, "Cache-Control": cacheControl } = headers;
        res.writeHead(304, { ETag, "Last-Modified": lastModified, "Cache-Control": cacheControl });
        return void res.end();
      }
      const takesRange = req.method === "GET" && rangeApplies(req.headers, object, modifiedAtMs);
      const range = takesRange ? parseRange(req.headers.range, sizeBytes) : null;
      if (range === "unsatisfiable") {
        throw new AppError("range_not_satisfiable", `Cannot send this range: the file has ${sizeBytes} bytes`, {
          headers: { "Content-Range": `bytes */${sizeBytes}` },
        });
      }
      if (range === null) res.writeHead(200, { ...headers, "Content-Length": sizeBytes });
      else {
        const { start, end } = range;
        res.writeHead(206, {
          ...headers,
          "Content-Length": end - start + 1,
          "Content-Range": `bytes ${start}-${end}/${sizeBytes}`,
        });
      }
      if (req.method === "HEAD" || sizeBytes === 0) return void res.end();
      await send(object, res, range ?? undefined);
    } finally {
      await object.close();
    }
  }

  async function openOrThrow(objectKey: string): Promise<OpenObject> {
    try {
      return await store.open(objectKey);
    } catch (error) {
      if (error instanceof StoreError && error.failure === "absent") {
        throw new AppError("not_found", "There is no file at this URL any more: it was deleted", { cause: error });
      }
      throw new AppError("storage_unavailable", "Cannot read the file at the moment: try again in a while", {
        retryAfterSeconds: 10,
        cause: error,
      });
    }
  }

  return { putObject, getObject };
}

/** Throws `client_closed_request` if the client goes away in mid-file. A failure of the disk ends the connection: the status is out. */
async function send(object: OpenObject, res: ServerResponse, range?: { start: number; end: number }): Promise<void> {
  const { bytes } = object;
  try {
    if (bytes === null) await pipeline(object.stream(range), res);
    else {
      res.end(range === undefined ? bytes : bytes.subarray(range.start, range.end + 1));
      await finished(res);
    }
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    throw CLIENT_GONE_CODES.has(code) ? clientGone(error) : error;
  }
}

function wrongMethod(signedMethod: string): AppError {
  return new AppError("forbidden", `This URL is signed for ${signedMethod}`);
}

/**
 * The one range that is asked for. Null means the whole file, which HTTP allows as the response to any Range: here to
 * several ranges, to what is no range, and for an empty file.
 */
function parseRange(
  header: string | undefined,
  sizeBytes: number,
): { start: number; end: number } | "unsatisfiable" | null {
  const [, first, last] = /^bytes=\s*(\d*)-(\d*)\s*$/i.exec(header ?? "") ?? [];
  if (first === undefined || last === undefined || sizeBytes === 0 || (first === "" && last === "")) return null;
  if (first === "") {
    // The last so many bytes, or as many as there are.
    return Number(last) === 0 ? "unsatisfiable" : { start: Math.max(0, sizeBytes - Number(last)), end: sizeBytes - 1 };
  }
  const start = Number(first);
  const end = last === "" ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1);
  if (last !== "" && start > Number(last)) return null;
  return start >= sizeBytes ? "unsatisfiable" : { start, end };
}
