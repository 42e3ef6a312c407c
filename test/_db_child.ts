// A process that opens a data directory as the service does. Usage: node test/_db_child.ts MODE DATA_DIR
//   open          opens and migrates, says what it got
//   write         inserts a hundred users, one write after the other
//   until_fatal   writes until onFatal is called, and says what the writes of that group were answered
import { openDb } from "../lib/db/db.ts";
import { AppError } from "../lib/errors.ts";
import { newId } from "../lib/ids.ts";
import { createLog } from "../lib/log.ts";

const [, , mode = "", dataDir = ""] = process.argv;
const answers: string[] = [];
const log = createLog({ level: "error", write: (text) => void process.stderr.write(text) });
const say = (text: string) => void process.stdout.write(`${text}\n`);
say("opening");
const db = openDb({
  dataDir,
  log,
  migrate: true,
  onFatal: (error) => {
    // The group's promises are rejected before this call; their handlers run right after it.
    setImmediate(() => {
      say(JSON.stringify({ fatal: error instanceof Error && "code" in error ? error.code : String(error), answers }));
      process.exit(7);
    });
  },
});
say("open");
const insert = db.prepare<[string, string]>("INSERT INTO users (id, name, created_at_ms) VALUES (?, ?, 1)");
const note = (error: unknown) => void answers.push(error instanceof AppError ? error.code : String(error));

if (mode === "write") {
  for (let i = 0; i < 100; i++) await db.writeStatement(() => insert.run(newId(), "child"));
}
if (mode === "until_fatal") {
  for (;;) {
    const group = [0, 1, 2].map(() => db.write(() => insert.run(newId(), "x".repeat(50_000))));
    for (const result of await Promise.allSettled(group)) if (result.status === "rejected") note(result.reason);
    if (answers.length > 0) break;
  }
  // onFatal ends the process; if it is never called, the test sees another exit code.
  setTimeout(() => process.exit(8), 5_000);
} else {
  await db.close();
  say("closed");
}
