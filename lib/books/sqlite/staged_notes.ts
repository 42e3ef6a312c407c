import type { Log } from "../../log.ts";
import type { Db } from "./db/db.ts";
import type { RemovalEntries } from "./removals.ts";
import type { UploadRows } from "./upload_rows.ts";

/** How long a note waits to be written. Most uploads are confirmed within this time, and then nothing has to be. */
const WRITE_AFTER_MS = 100;
/** Notes in one write: about 2 ms. */
const NOTES_PER_WRITE = 100;

interface Note {
  ownerId: string;
  objectKey: string;
  sizeBytes: number;
}

export type StagedNotes = ReturnType<typeof createStagedNotes>;

/**
 * The sizes of staged objects that are not written to their pending uploads' rows yet. A PUT does not wait for a commit of
 * the database: a crash loses the last notes, and the next scan of staging finds the objects again.
 */
export function createStagedNotes(
  db: Db,
  {
    rows,
    entries,
    log,
  }: { rows: Pick<UploadRows, "setStagedSize">; entries: Pick<RemovalEntries, "setSize">; log: Log },
) {
  const notes = new Map<string, Note>();
  let timer: NodeJS.Timeout | null = null;

  function add(uploadId: string, note: Note): void {
    notes.set(uploadId, note);
    timer ??= setTimeout(() => {
      timer = null;
      flush().catch((error: unknown) => log.warn("staged_sizes_not_written", { error }));
    }, WRITE_AFTER_MS).unref();
  }

  /**
   * An upload was deleted: if its row did not know the size, neither does the entry in the outbox that took its place. Runs
   * inside the write that deletes it. Most deleted uploads have no note, and then this costs nothing.
   */
  function writeToEntry(uploadId: string): void {
    const note = notes.get(uploadId);
    if (note !== undefined) entries.setSize(note.objectKey, note.sizeBytes);
  }

  /** Writes all notes. A note that cannot be written stays, and is written with the next. */
  async function flush(): Promise<void> {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    const all = [...notes];
    for (let start = 0; start < all.length; start += NOTES_PER_WRITE) {
      const part = all.slice(start, start + NOTES_PER_WRITE);
      await db.write(() => {
        for (const [uploadId, { sizeBytes }] of part) rows.setStagedSize(uploadId, sizeBytes);
      });
      // A later PUT may have left a newer note meanwhile.
      for (const [uploadId, note] of part) if (notes.get(uploadId) === note) notes.delete(uploadId);
    }
  }

  return {
    ...{ add, writeToEntry, flush },
    /** The bytes that are staged for this upload; undefined if its row knows them. */
    of: (uploadId: string): number | undefined => notes.get(uploadId)?.sizeBytes,
    drop: (uploadId: string): void => void notes.delete(uploadId),
    idsOf: (ownerId: string): string[] => [...notes].filter(([, note]) => note.ownerId === ownerId).map(([id]) => id),
  };
}
