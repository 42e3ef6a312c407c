import http from "node:http";
import https from "node:https";

/** A store, or a proxy in front of one, that needs longer for a few bytes is not usable by clients either. */
const TIMEOUT_MS = 15_000;
/** As much of an answer as is kept; what doctor sends and fetches is far smaller. */
const BODY_BYTES_MAX = 64 * 1024;

export interface Sent {
  method: string;
  headers?: Record<string, string>;
  body?: string;
  /** Sends the body without saying how long it is. */
  chunked?: boolean;
  /** How long the whole answer may take. */
  timeoutMs?: number;
}

export interface Got {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/**
 * Sends one request exactly as it is told, on a connection of its own: unlike a client library it does not mind a request
 * that no honest client would send. Rejects with a plain `Error` where no answer came.
 */
export function sendRequest(url: string, sent: Sent): Promise<Got> {
  const { method, headers = {}, body = "", chunked = false, timeoutMs = TIMEOUT_MS } = sent;
  const module = url.startsWith("https:") ? https : http;
  const length: Record<string, string> = chunked ? {} : { "Content-Length": String(Buffer.byteLength(body)) };
  const withBody = method === "PUT";
  return new Promise((resolve, reject) => {
    const request = module.request(url, {
      method,
      agent: false,
      headers: { ...(withBody ? length : {}), ...headers },
      signal: AbortSignal.timeout(timeoutMs),
    });
    request.on("error", reject);
    request.on("response", (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (piece: string) => {
        if (text.length < BODY_BYTES_MAX) text += piece;
      });
      answer.on("error", reject);
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text }));
    });
    request.end(withBody ? body : undefined);
  });
}

/**
 * Sends the beginning of a body that is announced to be longer, and closes its side of the connection, as a client does that
 * was stopped. Resolves once the server has answered or closed as well. Rejects where nothing could be sent.
 */
export function sendCut(
  url: string,
  { announcedBytes, sent }: { announcedBytes: number; sent: Buffer },
): Promise<void> {
  const module = url.startsWith("https:") ? https : http;
  return new Promise((resolve, reject) => {
    let isSent = false;
    const request = module.request(url, {
      method: "PUT",
      agent: false,
      headers: { "Content-Length": announcedBytes },
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    // Once all is sent, a connection that the server closes or resets is as good as an answer.
    request.on("error", (error) => (isSent ? resolve() : reject(error)));
    request.on("response", (answer) => {
      answer.on("error", () => resolve());
      answer.on("close", () => resolve());
      answer.resume();
    });
    request.write(sent, () => {
      isSent = true;
      request.socket?.end();
    });
  });
}

/** What an answer says in a few words: its status, and the code of S3's or our own error. */
export function describeAnswer({ status, body }: Got): string {
  const code = codeOf(body);
  return code === "" ? String(status) : `${status} ${code}`;
}

/** The error code in an answer of S3 or of ours, or empty. */
export function codeOf(body: string): string {
  return /<Code>([\w.]{1,64})<\/Code>/.exec(body)?.[1] ?? /"code":"(\w{1,64})"/.exec(body)?.[1] ?? "";
}

/** Why no answer came. */
export function describeNoAnswer(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError" || error.name === "AbortError") return `no answer within ${TIMEOUT_MS} ms`;
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return error.message === "" ? code : error.message;
}

/** Whether a page of this origin may read the answer. */
export function allows({ headers }: Got, origin: string): boolean {
  const allowed = headers["access-control-allow-origin"];
  return allowed === "*" || allowed === origin;
}

/** Whether the answer to a preflight lets a page of this origin PUT. */
export function allowsPut(preflight: Got, origin: string): boolean {
  const methods = (preflight.headers["access-control-allow-methods"] ?? "").split(",").map((method) => method.trim());
  return preflight.status < 300 && allows(preflight, origin) && (methods.includes("PUT") || methods.includes("*"));
}
