import type { IncomingMessage, ServerResponse } from "node:http";
import { AppError } from "../errors.ts";

/** A JSON body may have this many bytes. */
const JSON_BYTES_MAX = 64 * 1024;
/** Arrays and objects in one another. Deeper nesting only serves to exhaust a stack somewhere. */
const JSON_DEPTH_MAX = 64;

const utf8 = new TextDecoder("utf-8", { fatal: true });

/**
 * Reads a request's JSON body. A byte order mark is tolerated. Throws `unsupported_media_type`, `payload_too_large`,
 * `request_timeout`, or `bad_request` where the bytes are not JSON in UTF-8.
 */
export async function readJson(req: IncomingMessage, res: ServerResponse, timeoutMs: number): Promise<unknown> {
  checkContentType(req.headers["content-type"]);
  if (Number(req.headers["content-length"] ?? 0) > JSON_BYTES_MAX) throw tooLarge();
  // HTTP/1.0 knows no interim answers.
  if (req.headers.expect !== undefined && req.httpVersion !== "1.0") res.writeContinue();

  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => fail(timedOut(timeoutMs)), timeoutMs);
    const fail = (error: Error): void => {
      clearTimeout(timer);
      req.removeAllListeners("data");
      reject(error);
    };
    req.on("data", (chunk: Buffer) => {
      sizeBytes += chunk.length;
      if (sizeBytes > JSON_BYTES_MAX) fail(tooLarge());
      else chunks.push(chunk);
    });
    const onClose = (): void => fail(cutOff());
    req.once("end", () => {
      clearTimeout(timer);
      // Every request is closed in the end: after a whole body no error, with its costly stack, is made for that.
      req.off("close", onClose);
      resolve();
    });
    req.once("error", fail);
    req.once("close", onClose);
  });
  return parseJson(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks));
}

/** Whether what is still to come of a body is so little that node:http may read it away and keep the connection. */
export function isSoonRead({ headers }: IncomingMessage): boolean {
  if (headers["transfer-encoding"] !== undefined) return false;
  const sizeBytes = Number(headers["content-length"] ?? 0);
  // Who waits for leave to send the body gets none: what comes next is then not known.
  return sizeBytes === 0 || (sizeBytes <= JSON_BYTES_MAX && headers.expect === undefined);
}

/**
 * Answers while the client still sends a body that nobody wants. Closing at once would make the kernel reset the
 * connection, and the client would never see why: so the whole answer goes out, and the rest is read and thrown away for
 * a moment.
 */
export function lingerThenEnd(req: IncomingMessage, res: ServerResponse, text: string, lingerMs: number): void {
  if (req.method !== "HEAD") res.write(text);
  else res.flushHeaders();
  const end = (): void => {
    clearTimeout(timer);
    res.end();
  };
  const timer = setTimeout(end, lingerMs);
  req.once("end", end).once("close", end);
  // The client has closed its side: nothing more comes.
  if (req.socket.readableEnded) end();
  else req.socket.once("end", end);
  req.resume();
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

/** Looked at before parsing: whoever walks or prints a parsed value later may do so by recursion. */
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

function tooLarge(): AppError {
  return new AppError("payload_too_large", `The body is too large: ${JSON_BYTES_MAX} bytes of JSON are allowed`);
}

function timedOut(timeoutMs: number): AppError {
  return new AppError("request_timeout", `The body did not arrive within ${timeoutMs / 1000} seconds`);
}

function cutOff(): AppError {
  return new AppError("bad_request", "The body was cut off");
}
