// A process that holds the write lock of a database file, as a command or a person with a SQLite shell might: says "held",
// lets go when its input ends, and says "released". With "exclusive" nobody else can read either;
// with "read" it only keeps what it has read in sight. Usage: node test/_hold_lock.ts FILE [exclusive | read]
import Database from "better-sqlite3";

const [, , path = "", kind = ""] = process.argv;
const db = new Database(path, { timeout: 5_000 });
if (kind === "exclusive") db.pragma("locking_mode = EXCLUSIVE");
if (kind === "read") db.exec("BEGIN; SELECT count(*) FROM users");
else db.exec("BEGIN IMMEDIATE");
process.stdout.write("held\n");
process.stdin.resume();
process.stdin.on("end", () => {
  db.exec("COMMIT");
  db.close();
  process.stdout.write("released\n");
});
