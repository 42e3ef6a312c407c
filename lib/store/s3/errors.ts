import { StoreError, type StoreFailure } from "../objects.ts";

/** The most that is kept of a foreign message: `last_error` is a column, and a log line must stay one line. */
const MESSAGE_CHARS_MAX = 300;

/** A response of the store other than the expected one. */
export class S3ResponseError extends Error {
  override readonly name = "S3ResponseError";
  readonly status: number;
  /** S3's own code, such as `NoSuchKey`; empty if the response did not come from an S3 server, or had no body. */
  readonly code: string;
  constructor(status: number, code: string, detail: string) {
    super(
      `the store responded with ${status}${code === "" ? "" : ` ${code}`}${detail === "" ? "" : ` (${clip(detail)})`}`,
    );
    this.status = status;
    this.code = code;
  }
}

/** No response, or none that can be read: the store may or may not have done what was asked. */
export class S3NoResponseError extends Error {
  override readonly name = "S3NoResponseError";
}

/**
 * The cause is known, but not whether the store did what it was asked to: an earlier attempt of the same call had no response,
 * or the response does not tell. Such a call may still take effect much later.
 */
export class UncertainStoreError extends StoreError {
  override get isRefusal(): boolean {
    return false;
  }
}

/** Codes that mean the same for every call. All others are `unavailable`, because they do not tell what was done. */
const FAILURE_BY_CODE: Record<string, StoreFailure> = {
  NoSuchKey: "absent",
  NoSuchBucket: "bucket_missing",
  PreconditionFailed: "changed",
  AccessDenied: "denied",
  AccountProblem: "denied",
  AllAccessDisabled: "denied",
  AuthorizationHeaderMalformed: "denied",
  ExpiredToken: "denied",
  InvalidAccessKeyId: "denied",
  InvalidToken: "denied",
  RequestTimeTooSkewed: "denied",
  SignatureDoesNotMatch: "denied",
};

/** Advice for an administrator on codes that do not explain themselves. */
const HINT_BY_CODE: Record<string, string> = {
  AccessDenied: "allow the key what docs/policies/service.json lists, on this bucket",
  AuthorizationHeaderMalformed: "set STOWAGE_S3_REGION to the store's region",
  InvalidAccessKeyId: "check STOWAGE_S3_ACCESS_KEY",
  RequestTimeTooSkewed: "set this machine's clock or the store's",
  SignatureDoesNotMatch: "check STOWAGE_S3_SECRET_KEY, and that no proxy changes the Host header",
};

/** The same for failures of the connection, by Node's code. */
const HINT_BY_NETWORK_CODE: Record<string, string> = {
  ...Object.fromEntries(
    [
      "DEPTH_ZERO_SELF_SIGNED_CERT",
      "SELF_SIGNED_CERT_IN_CHAIN",
      "UNABLE_TO_GET_ISSUER_CERT",
      "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
      "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    ].map((code) => [
      code,
      "the store's certificate is not trusted: name the file with its authority's certificate in NODE_EXTRA_CA_CERTS and start again",
    ]),
  ),
  CERT_HAS_EXPIRED: "the store's certificate has expired: renew it",
  ERR_TLS_CERT_ALTNAME_INVALID: "the store's certificate must name the host of STOWAGE_S3_ENDPOINT",
};

/**
 * The one place that turns errors of the client library, the network and the server into a `StoreError`. `doing` completes
 * "Cannot ...".
 */
export function toStoreError(doing: string, error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const response = responseOf(error);
  const reason = response === null ? reasonOf(error) : response.message;
  const hint = response === null ? HINT_BY_NETWORK_CODE[textOf(error, "code")] : HINT_BY_CODE[response.code];
  const message = `Cannot ${doing}: ${reason}${hint === undefined ? "" : `; ${hint}`}`;
  return new StoreError(response === null ? "unavailable" : failureOf(response), message, error);
}

/** The store's response behind an error; null if there was none. */
export function responseOf(error: unknown): S3ResponseError | null {
  if (error instanceof S3ResponseError) return error;
  if (error instanceof StoreError) return responseOf(error.cause);
  // The client library rejects with the plain contents of an <Error> document that came with status 200.
  const code = textOf(error, "Code");
  return code === "" ? null : new S3ResponseError(200, code, textOf(error, "Message"));
}

function failureOf(response: S3ResponseError): StoreFailure {
  const failure = FAILURE_BY_CODE[response.code];
  if (failure !== undefined) return failure;
  // HEAD has no body, and so no code. A 404 without one is not `absent`: it may be the bucket, or a proxy's own page.
  if (response.status === 401 || response.status === 403) return "denied";
  if (response.status === 412) return "changed";
  return "unavailable";
}

function reasonOf(error: unknown): string {
  const code = textOf(error, "code");
  const message = clip(error instanceof Error ? error.message : String(error));
  if (message === "") return code === "" ? "no response" : code;
  return code === "" || message.includes(code) ? message : `${code} (${message})`;
}

function textOf(error: unknown, name: string): string {
  const value: unknown = typeof error === "object" && error !== null ? Reflect.get(error, name) : undefined;
  return typeof value === "string" ? value : "";
}

function clip(text: string): string {
  const line = text.replace(/[\s\x00-\x1f\x7f]+/g, " ").trim();
  return line.length <= MESSAGE_CHARS_MAX ? line : `${line.slice(0, MESSAGE_CHARS_MAX)}...`;
}
