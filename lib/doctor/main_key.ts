import type { Config } from "../config/config.ts";
import type { Log } from "../log.ts";
import { makeOf, type ServerMake } from "../store/s3/make.ts";
import { sendRequest } from "./request.ts";

/** A store that has not answered by then is spoken of as any other. */
const ASK_MS_MAX = 2_000;

type S3Config = Pick<Config, "store" | "s3Endpoint" | "s3Region" | "s3Bucket" | "s3AccessKey" | "s3UploadAccessKey">;

/**
 * Says once if upload URLs are signed with the main key, and which settings mend it. On MinIO, whoever has such a URL can make
 * it copy any object that its key may read; a server that is known to refuse that is not complained of. `stowage doctor storage`
 * tries it; here the server is only asked for its name.
 */
export async function warnOfMainKey(config: S3Config, log: Log): Promise<void> {
  const { store, s3AccessKey, s3UploadAccessKey, s3Bucket } = config;
  if (store !== "s3" || (s3UploadAccessKey !== null && s3UploadAccessKey !== s3AccessKey)) return;
  const make = await askMake(config);
  if (make === "versitygw" || make === "Garage") return;

  const whose = make === "MinIO" ? "MinIO lets" : "some servers, MinIO among them, let";
  log.warn("upload_urls_signed_with_main_key", {
    risk: `${whose} whoever has an upload URL and knows another object's key copy that object into an upload of theirs`,
    hint:
      `make a key that may do s3:PutObject on ${s3Bucket}/staging/* and nothing else, and set these two; ` +
      "`stowage doctor storage` tries whether it is so here, and says how such a key is made",
    set: ["STOWAGE_S3_UPLOAD_ACCESS_KEY", "STOWAGE_S3_UPLOAD_SECRET_KEY"],
  });
}

/** Which server it is, as far as it says so within a moment. */
async function askMake({ s3Endpoint, s3Region }: S3Config): Promise<ServerMake> {
  try {
    const { headers } = await sendRequest(s3Endpoint ?? "", { method: "HEAD", timeoutMs: ASK_MS_MAX });
    return makeOf(headers.server?.toString(), s3Region);
  } catch {
    return "another";
  }
}
