import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { S3NoResponseError, toStoreError } from "./errors.ts";

/** An object's bytes as they come. Destroyed if none comes for too long; every failure on the way is a `StoreError`. */
export function watchedBody(response: IncomingMessage, idleMsMax: number): Readable {
  async function* bytes(): AsyncGenerator<Buffer> {
    let timer: NodeJS.Timeout | undefined;
    // Runs only while we wait for the store: the reader may be slow.
    const arm = () => {
      timer = setTimeout(() => response.destroy(new S3NoResponseError(`no byte within ${idleMsMax} ms`)), idleMsMax);
    };
    try {
      arm();
      for await (const chunk of response) {
        clearTimeout(timer);
        yield chunk;
        arm();
      }
    } catch (error) {
      throw toStoreError("read the object", error);
    } finally {
      clearTimeout(timer);
    }
  }
  const stream = Readable.from(bytes(), { objectMode: false });
  // A generator that was never started runs no `finally`, and the connection would be held for good.
  stream.once("close", () => response.destroy());
  return stream;
}
