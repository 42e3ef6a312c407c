import type { Db } from "../db/db.ts";
import type { Log } from "../log.ts";

/** Until a note is written. Most uploads are confirmed within this time, and then nothing has to be. */
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
 * What is known to be staged for pending uploads and is not written to their rows yet. A PUT does not wait for a commit of
 * the database: a crash loses the last notes, and the next look through staging finds what they said.
 */
export function createStagedNotes(db: Db, log: Log) {
  const writeNote = db.prepare<{ uploadId: string; sizeBytes: number }>(`
    UPDATE uploads SET staged_size_bytes = :sizeBytes WHERE id = :uploadId AND status = 'pending'`);
  const updateEntry = db.prepare<{ objectKey: string; sizeBytes: number }>(`
    UPDATE object_removals SET size_bytes = :sizeBytes WHERE object_key = :objectKey`);
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
   * An upload was deleted: what its row did not know yet, the entry in the outbox that took its place does not know either.
   * Runs inside the write that deletes it. Most deleted uploads have no note, and then this costs nothing.
   */
  function writeToEntry(uploadId: string): void {
    const note = notes.get(uploadId);
    if (note !== undefined) updateEntry.run({ objectKey: note.objectKey, sizeBytes: note.sizeBytes });
  }

  /** Writes all notes. One that cannot be written stays, and is written with the next. */
  async function flush(): Promise<void> {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    const all = [...notes];
    for (let start = 0; start < all.length; start += NOTES_PER_WRITE) {
      const part = all.slice(start, start + NOTES_PER_WRITE);
      await db.write(() => {
        for (const [uploadId, { sizeBytes }] of part) writeNote.run({ uploadId, sizeBytes });
      });
      // A later PUT may have left a newer note meanwhile.
      for (const [uploadId, note] of part) if (notes.get(uploadId) === note) notes.delete(uploadId);
    }
  }

  return {
    ...{ add, writeToEntry, flush },
    /** The bytes that are staged for this upload; undefined if the row has the last word. */
    of: (uploadId: string): number | undefined => notes.get(uploadId)?.sizeBytes,
    drop: (uploadId: string): void => void notes.delete(uploadId),
    idsOf: (ownerId: string): string[] => [...notes].filter(([, note]) => note.ownerId === ownerId).map(([id]) => id),
  };
}
