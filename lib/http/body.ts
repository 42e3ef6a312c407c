import type { IncomingMessage, ServerResponse } from "node:http";
import { promisedChecksums, refuseCodings } from "../body_headers.ts";
import { AppError } from "../errors.ts";
import type { Connection } from "./connections.ts";
import { wholeBody } from "./request_body.ts";

/** How deep arrays and objects may be nested. More only serves to exhaust a stack somewhere. */
const JSON_DEPTH_MAX = 64;

const utf8 = new TextDecoder("utf-8", { fatal: true });

export interface JsonLimits {
  /** Bytes that a JSON body may have. */
  jsonBytesMax: number;
  /** How long it may take to arrive. */
  bodyMs: number;
}

/**
 * Reads a request's JSON body. A byte order mark is tolerated. Throws `unsupported_media_type`, `payload_too_large`,
 * `request_timeout`, `client_closed_request`, or `bad_request` if the bytes are not JSON in UTF-8, break off, or are not
 * those that the headers promise.
 */
export async function readJson(
  req: IncomingMessage,
  res: ServerResponse,
  connection: Connection,
  { jsonBytesMax, bodyMs }: JsonLimits,
): Promise<unknown> {
  const { headers } = req;
  checkContentType(headers["content-type"]);
  refuseCodings(headers);
  const checksums = promisedChecksums(headers);
  const tooLarge = (): AppError =>
    new AppError("payload_too_large", `The body is too large: ${jsonBytesMax} bytes of JSON are allowed`);
  if (Number(headers["content-length"] ?? 0) > jsonBytesMax) throw tooLarge();
  // HTTP/1.0 has no interim responses.
  if (headers.expect !== undefined && req.httpVersion !== "1.0") res.writeContinue();
  const bytes = await wholeBody(req, connection, { bytesMax: jsonBytesMax, timeoutMs: bodyMs, tooLarge });
  checksums?.update(bytes);
  checksums?.finish();
  return parseJson(bytes);
}

function checkContentType(contentType: string | undefined): void {
  const [type = "", ...parameters] = (contentType ?? "").toLowerCase().split(";");
  if (!/^application\/(json|[\w.-]+\+json)$/.test(type.trim())) {
    throw new AppError(
      "unsupported_media_type",
      'The body must be JSON: send the header "Content-Type: application/json"',
    );
  }
  const charset = parameters.map((parameter) => parameter.trim()).find((parameter) => parameter.startsWith("charset="));
  if (charset !== undefined && !/^charset="?(utf-?8|us-ascii)"?$/.test(charset)) {
    throw new AppError("bad_request", "The body must be JSON in UTF-8: send no other charset");
  }
}

function parseJson(bytes: Buffer): unknown {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw new AppError("bad_request", "The body is not valid UTF-8");
  }
  if (isTooDeep(text)) {
    throw new AppError("bad_request", `The body's arrays and objects are nested more than ${JSON_DEPTH_MAX} deep`);
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new AppError(
      "bad_request",
      text === "" ? "The body is empty: send a JSON object" : "The body is not valid JSON",
    );
  }
}

/** Checked before parsing: code that walks or prints the parsed value later may do so by recursion. */
function isTooDeep(text: string): boolean {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (inString) {
      if (char === 0x5c /* \ */) i++;
      else if (char === 0x22 /* " */) inString = false;
    } else if (char === 0x22) inString = true;
    else if (char === 0x5b /* [ */ || char === 0x7b /* { */) {
      if (++depth > JSON_DEPTH_MAX) return true;
    } else if (char === 0x5d || char === 0x7d) depth--;
  }
  return false;
}
