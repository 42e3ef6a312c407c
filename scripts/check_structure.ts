import { readdirSync, readFileSync } from "node:fs";

/**
 * Keeps the rules of structure that the compiler cannot: who may import what. Prints each breach and fails.
 */
interface Rule {
  because: string;
  /** Whether a file is bound by the rule. */
  binds: (file: string) => boolean;
  /** What such a file must not contain. */
  ban: RegExp;
}

/** Files whose operations are SQL in synchronous bodies. */
const CORE = [
  "workspaces.ts",
  "members.ts",
  "users.ts",
  "keys.ts",
  "contexts.ts",
  "uploads.ts",
  "upload_views.ts",
  "permissions.ts",
  "removals.ts",
  "ledger.ts",
  "usage.ts",
  "totals.ts",
  "idempotency.ts",
  "doctor_queries.ts",
];

const RULES: readonly Rule[] = [
  {
    because: "the core knows SQL only: no store, no HTTP",
    binds: (file) => CORE.includes(file),
    ban: /from "(\.\/(objects_|http|routes|confirm|cleaner|app|signed_urls|object_)[^"]*|node:http|node:net|minio|undici)"/,
  },
  {
    because: "only the S3 store speaks to S3",
    binds: (file) => !/^(objects_s3|s3_\w+)\.ts$/.test(file),
    ban: /from "minio[^"]*"/,
  },
  {
    because: "only config.ts reads the environment (a terminal's comes from server.ts)",
    binds: (file) => file !== "config.ts" && file !== "server.ts",
    ban: /process\.env\b/,
  },
  {
    because: "SQL is written in the core, db.ts and the lock only",
    binds: (file) => ![...CORE, "db.ts", "serve_lock.ts"].includes(file),
    ban: /\b(SELECT [\w*(]|INSERT INTO|UPDATE \w+ SET|DELETE FROM|BEGIN IMMEDIATE)/,
  },
  {
    because: "no barrels and no default exports",
    binds: () => true,
    ban: /^export (\*|default)/m,
  },
];

const files = ["server.ts", ...readdirSync("lib").map((file) => `lib/${file}`)];
let breaches = 0;
for (const path of files) {
  const text = readFileSync(path, "utf8");
  const name = path.replace("lib/", "");
  for (const { because, binds, ban } of RULES) {
    const found = binds(name) ? ban.exec(text) : null;
    if (found === null) continue;
    const line = text.slice(0, found.index).split("\n").length;
    console.error(`${path}:${line}: ${found[0]}: ${because}`);
    breaches++;
  }
}
if (breaches > 0) process.exitCode = 1;
else console.log(`${files.length} files keep the rules`);
