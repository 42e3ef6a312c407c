import { countText, type TextCounts } from "../books/text_counts.ts";
import type { Upload } from "../books/uploads.ts";
import { createGate, type GateOptions } from "../gate.ts";
import { giveWay } from "../pacer.ts";
import { type ObjectStat, type ObjectStore, StoreError } from "../store/objects.ts";

/** Only a few texts longer than this are counted at once: 1 GiB keeps the process busy for seconds. */
const HUGE_TEXT_BYTES = 4 * 1024 * 1024;
const HUGE_TEXTS_AT_ONCE = 2;
/** Other texts that are counted at once. */
const TEXTS_AT_ONCE = 16;
/** This much of a text is counted without a break, which takes about 2 ms. */
const LONG_TEXT_BYTES = 256 * 1024;

/** Whether the characters and lines of an upload are counted: only scripts in plain text. */
export function isCounted({ category, format }: Upload): boolean {
  return category === "script" && format === "txt";
}

export type ScriptCounts = ReturnType<typeof createScriptCounts>;

/** Counts the characters and lines of confirmed scripts, a few at a time. */
export function createScriptCounts(objects: ObjectStore, waiting: Pick<GateOptions, "waitMsMax" | "refusal">) {
  const texts = createGate({ places: TEXTS_AT_ONCE, ...waiting });
  const hugeTexts = createGate({ places: HUGE_TEXTS_AT_ONCE, ...waiting });

  return {
    /** Runs `work` once one of its owner's texts of this size may be counted. Throws `storage_unavailable` if none may in time. */
    inTurn: <T>(sizeBytes: number, ownerId: string, work: () => Promise<T>): Promise<T> =>
      (sizeBytes > HUGE_TEXT_BYTES ? hugeTexts : texts)(ownerId, work),

    /**
     * The counts of an object; null if it is no text. The caller makes sure that no PUT replaces the object, or notices if one
     * does. Rejects with a `StoreError`.
     */
    async count(objectKey: string, { sizeBytes }: ObjectStat, ownerId: string): Promise<TextCounts | null> {
      if (sizeBytes === 0) return { charCount: 0, lineCount: 0 };
      return await countText(wholeBody(await objects.read(objectKey), sizeBytes, ownerId));
    },
  };
}

/**
 * Passes the bytes on as they come, and lets other requests through during a long text. Rejects at the end if there were fewer
 * or more bytes than are charged, so that a part is never counted as the whole.
 */
async function* wholeBody(
  bytes: AsyncIterable<Uint8Array>,
  sizeBytes: number,
  ownerId: string,
): AsyncGenerator<Uint8Array> {
  let readBytes = 0;
  for await (const chunk of bytes) {
    if (readBytes >= LONG_TEXT_BYTES) await giveWay(ownerId);
    readBytes += chunk.length;
    yield chunk;
  }
  if (readBytes !== sizeBytes) {
    throw new StoreError("unavailable", `Cannot read the object: ${readBytes} of ${sizeBytes} bytes came`);
  }
}
