/** The names of everything in a data directory. */

/** The books. SQLite keeps its log and that log's index beside it. */
export const DATABASE_FILE = "stowage.db";
export const DATABASE_LOG_FILE = `${DATABASE_FILE}-wal`;
export const DATABASE_LOG_INDEX_FILE = `${DATABASE_FILE}-shm`;
const DATABASE_JOURNAL_FILE = `${DATABASE_FILE}-journal`;

/** Locked by the process that serves the directory. */
export const SERVE_LOCK_FILE = "serve.lock";
const SERVE_LOCK_JOURNAL_FILE = `${SERVE_LOCK_FILE}-journal`;
/** Locked while a process checks the database and opens it. */
export const CHECK_LOCK_FILE = "check.lock";
/** Room on the disk that is given to the database once the disk is full. */
export const RESERVE_FILE = "stowage.reserve";
/** Signs the embedded store's URLs. Anybody who has it can read and write any object. */
export const SIGNING_KEY_FILE = "url_signing.key";

/** The embedded store's folder. */
export const OBJECTS_FOLDER = "objects";
/** In the embedded store's folder: the ledger's marker, and uploads that are still being received. */
export const MARKER_FILE = "ledger-marker";
export const TEMPORARY_FOLDER = "tmp";
/** In the embedded store's folder: a SQLite file with the small objects. */
export const SMALL_OBJECTS_FILE = "small.db";
/** Its log and that log's index, as paths in the data directory. */
export const SMALL_OBJECTS_LOG_FILE = `${OBJECTS_FOLDER}/${SMALL_OBJECTS_FILE}-wal`;
export const SMALL_OBJECTS_LOG_INDEX_FILE = `${OBJECTS_FOLDER}/${SMALL_OBJECTS_FILE}-shm`;
/** All three, as paths in the data directory. */
export const SMALL_OBJECTS_FILES: readonly string[] = [
  `${OBJECTS_FOLDER}/${SMALL_OBJECTS_FILE}`,
  SMALL_OBJECTS_LOG_FILE,
  SMALL_OBJECTS_LOG_INDEX_FILE,
];

/** Files that whoever uses the directory must be able to read and write. */
export const WRITTEN_FILES: readonly string[] = [
  DATABASE_FILE,
  DATABASE_LOG_FILE,
  DATABASE_LOG_INDEX_FILE,
  DATABASE_JOURNAL_FILE,
  RESERVE_FILE,
  SERVE_LOCK_FILE,
  SERVE_LOCK_JOURNAL_FILE,
  CHECK_LOCK_FILE,
  ...SMALL_OBJECTS_FILES,
];
/** Files that are written once, when they are made. After that they may be read-only. */
export const READ_FILES: readonly string[] = [SIGNING_KEY_FILE];
