import { readdirSync, readFileSync } from "node:fs";

/** Keeps the rules of structure that the compiler cannot: who may import what. Prints each breach and fails. */
interface Rule {
  because: string;
  /** Whether a file, by its path, is bound by the rule. */
  binds: (path: string) => boolean;
  /** What such a file must not contain. */
  ban: RegExp;
}

const inFolder = (folder: string) => (path: string) => path.startsWith(folder);

const RULES: readonly Rule[] = [
  {
    because: "the core knows SQL only: no store, no HTTP, nothing that uses it",
    binds: inFolder("lib/core/"),
    // Types alone bind nothing at run time.
    ban: /^import (?!type )[^;]*from "(\.\.\/(http|routes|auth|operations|commands|doctor|metrics|app)[^"]*|\.\.\/store\/(disk|s3|open)[^"]*|node:http|node:net|minio|undici)"/m,
  },
  {
    because: "HTTP knows no product noun",
    binds: inFolder("lib/http/"),
    ban: /from "\.\.\/(routes|operations|store|db|core\/(uploads|workspaces|contexts|keys|removals))[^"]*"/,
  },
  {
    because: "only the S3 store speaks to S3",
    binds: (path) => !path.startsWith("lib/store/s3/"),
    ban: /from "minio[^"]*"/,
  },
  {
    because: "only config.ts reads the environment (a terminal's comes from server.ts)",
    binds: (path) => path !== "lib/config/config.ts" && path !== "server.ts",
    ban: /process\.env\b/,
  },
  {
    because: "SQL is written in the core, in db/ and for doctor's questions only",
    binds: (path) => !/^lib\/(core\/|db\/|doctor\/queries\.ts$)/.test(path),
    ban: /\b(SELECT [\w*(]|INSERT INTO|UPDATE \w+ SET|DELETE FROM|BEGIN IMMEDIATE)/,
  },
  {
    because: "no barrels and no default exports",
    binds: () => true,
    ban: /^export (\*|default)/m,
  },
];

const paths = [
  "server.ts",
  ...readdirSync("lib", { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .map((path) => `lib/${path}`),
];
let breaches = 0;
for (const path of paths) {
  const text = readFileSync(path, "utf8");
  for (const { because, binds, ban } of RULES) {
    const found = binds(path) ? ban.exec(text) : null;
    if (found === null) continue;
    const line = text.slice(0, found.index).split("\n").length;
    console.error(`${path}:${line}: ${found[0]}: ${because}`);
    breaches++;
  }
}
if (breaches > 0) process.exitCode = 1;
else console.log(`${paths.length} files keep the rules`);
