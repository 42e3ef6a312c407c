import { StoreError, type StorePart } from "../objects.ts";
import { openSmallFile, type SmallFileOptions } from "./small_file.ts";
import { type OpenRows, openRows } from "./small_rows.ts";

/** The file of small objects at its path, which may go, come back, or be another one while the service runs. */
export interface SmallPlace {
  /**
   * Opens the file, and makes it with `makes` if it is missing. From then on a file that is missing, or another store's, is
   * lost: whatever asks for an object throws `unavailable` until it is back.
   */
  prepare: (options: { makes: boolean }) => void;
  /** Throws if the file cannot be read, or is lost. */
  probe: () => void;
  isLost: () => boolean;
  /** The file as the part of the store that can be lost by itself. */
  part: StorePart;
  /** The rows of the file that counts; null if none was made yet. Throws `unavailable` if it is lost. */
  rows: () => OpenRows | null;
  close: () => Promise<void>;
}

export function createSmallPlace(options: SmallFileOptions): SmallPlace {
  const { log } = options;
  let opened: OpenRows | null = null;

  /** The store that the file belongs to, null if it was not marked yet; undefined before `prepare`. */
  let owner: string | null | undefined;

  function rows(): OpenRows | null {
    const open = rowsAtPath();
    if (isAnother(open)) throw lost();
    return open;
  }

  function isAnother(open: OpenRows | null): boolean {
    return owner !== undefined && open?.ownerId !== owner;
  }

  /** The rows of whichever file lies at the path; null if there is none. A disk that was mounted again has another. */
  function rowsAtPath({ makes = false } = {}): OpenRows | null {
    if (opened?.file.isInPlace() === true) return opened;
    if (opened !== null) {
      const { file } = opened;
      opened = null;
      log.warn("small_objects_reopened", {
        why: "the file, or the log beside it, was moved, removed or replaced while the service was running, or a write to it failed",
        effect: "it is opened again",
        hint: "leave the files in the objects folder alone while the service runs",
      });
      file.abandon();
    }
    const file = openSmallFile(options, { makes });
    opened = file === null ? null : openRows(file);
    return opened;
  }

  return {
    rows,
    prepare({ makes }) {
      const open = rowsAtPath({ makes });
      if (open === null) throw lost();
      owner = open.ownerId;
    },
    probe: () => void rows()?.readMark.get(),
    isLost: () => isAnother(rowsAtPath()),
    part: {
      async readMark() {
        const open = rowsAtPath();
        if (open === null) return null;
        // Another process may have accepted the file for this store.
        const mark = open.readMark.get() ?? null;
        open.ownerId = mark?.storeId ?? null;
        return mark;
      },
      async writeMark(mark) {
        const open = rowsAtPath();
        if (open === null) return false;
        await open.file.writeStatement(() => void open.writeMark.run(mark));
        open.ownerId = mark.storeId;
        if (owner !== undefined) owner = mark.storeId;
        return true;
      },
    },
    async close() {
      const last = opened;
      opened = null;
      await last?.file.close();
    },
  };
}

function lost(): StoreError {
  return new StoreError("unavailable", "The file of small objects is not in the objects folder, or is another store's");
}
