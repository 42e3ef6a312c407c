// A process that holds the write lock of a database file, as a command or a person with a SQLite shell might: says "held",
// lets go when its input ends, and says "released". Usage: node test/_hold_lock.ts FILE
import Database from "better-sqlite3";

const [, , path = ""] = process.argv;
const db = new Database(path, { timeout: 5_000 });
db.exec("BEGIN IMMEDIATE");
process.stdout.write("held\n");
process.stdin.resume();
process.stdin.on("end", () => {
  db.exec("COMMIT");
  db.close();
  process.stdout.write("released\n");
});
