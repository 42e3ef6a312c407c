import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

// Checks the rules of structure that the compiler cannot. Prints each breach and fails.

/**
 * The layers, lowest first. A file imports from layers below its own and from its own room, types included; never from a
 * higher layer, and never from another room of the same layer. A layer is a list of rooms: a folder without the parts that
 * other rooms claim, the files directly in a folder (`/*`), or one file.
 */
const LAYERS: readonly (readonly string[])[] = [
  // Everything that belongs to no noun: errors, the log, ids, files, waiting in turn.
  ["lib/*"],
  // The nouns: their types, rules and verbs.
  ["lib/books/*"],
  // What lies in a data directory, and who may use it.
  ["lib/data_dir/"],
  // What every SQLite file needs, whatever it holds: group commit, checkpoints, the meaning of errors.
  ["lib/sqlite/"],
  ["lib/config/"],
  // The interface of every store.
  ["lib/store/*"],
  ["lib/books/sqlite/db/", "lib/store/disk/", "lib/store/s3/", "lib/http/"],
  ["lib/books/sqlite/", "lib/store/open_store.ts", "lib/auth/", "lib/metrics/"],
  ["lib/operations/"],
  ["lib/api/wire/"],
  ["lib/api/"],
  ["lib/doctor/"],
  ["lib/app.ts"],
  ["lib/commands/"],
  ["server.ts"],
];

/** Text that only some files may contain. */
interface Ban {
  because: string;
  mayContain: (path: string) => boolean;
  pattern: RegExp;
}

const BANS: readonly Ban[] = [
  {
    because: "only the S3 store speaks to S3",
    mayContain: (path) => path.startsWith("lib/store/s3/"),
    pattern: /from "minio[^"]*"/,
  },
  {
    because: "only the engine knows which database keeps the books, and only the small objects' own file is another",
    mayContain: (path) => /^lib\/(books\/)?sqlite\/|^lib\/store\/disk\/(small_\w+|vacuum)\.ts$/.test(path),
    pattern: /from "better-sqlite3"|\bDatabase\.Statement\b|\bisSqliteError\b|\bdb\.write(Statement)?\b/,
  },
  {
    because: "SQL is written in an engine, or for the small objects' own file",
    mayContain: (path) => /^lib\/(books\/\w+|sqlite)\/|^lib\/store\/disk\/small_\w+\.ts$/.test(path),
    pattern: /\b(SELECT [\w*(]|INSERT INTO|UPDATE \w+ SET|DELETE FROM|BEGIN IMMEDIATE)/,
  },
  {
    because: "only config.ts reads the environment (a terminal's comes from server.ts)",
    mayContain: (path) => path === "lib/config/config.ts" || path === "server.ts",
    pattern: /process\.env\b/,
  },
  {
    because: "no barrels and no default exports",
    mayContain: () => false,
    pattern: /^export (\*|default)/m,
  },
];

const IMPORT = /^(?:import|export) [^"]*?from "(\.[^"]+)"|\bimport\("(\.[^"]+)"\)/gm;

interface SourceFile {
  path: string;
  text: string;
  imports: { path: string; line: number }[];
}

function readSource(path: string): SourceFile {
  const text = readFileSync(path, "utf8");
  const imports = [...text.matchAll(IMPORT)].map((match) => ({
    path: join(dirname(path), match[1] ?? match[2] ?? ""),
    line: lineOf(text, match.index),
  }));
  return { path, text, imports };
}

function lineOf(text: string, index: number): number {
  return text.slice(0, index).split("\n").length;
}

/** The most specific room that claims a file, with the number of its layer. */
function roomOf(path: string): { room: string; layer: number } | null {
  let best: { room: string; layer: number } | null = null;
  for (const [layer, rooms] of LAYERS.entries()) {
    for (const room of rooms) {
      if (claims(room, path) && room.length > (best?.room.length ?? 0)) best = { room, layer };
    }
  }
  return best;
}

function claims(room: string, path: string): boolean {
  if (room.endsWith("/*")) return `${dirname(path)}/*` === room;
  return room.endsWith("/") ? path.startsWith(room) : path === room;
}

/** Imports that run up or sideways. */
function* wrongWays({ path, imports }: SourceFile): Generator<string> {
  const own = roomOf(path);
  if (own === null) yield `${path}: give its folder a layer in scripts/check_structure.ts`;
  for (const { path: target, line } of imports) {
    const other = roomOf(target);
    if (own === null || other === null || other.room === own.room || other.layer < own.layer) continue;
    yield `${path}:${line}: imports ${target}: ${other.room} is not below ${own.room}`;
  }
}

function* banned({ path, text }: SourceFile): Generator<string> {
  for (const { because, mayContain, pattern } of BANS) {
    const match = mayContain(path) ? null : pattern.exec(text);
    if (match !== null) yield `${path}:${lineOf(text, match.index)}: ${match[0]}: ${because}`;
  }
}

/** Each circle of imports, once. */
function* circles(files: ReadonlyMap<string, SourceFile>): Generator<string> {
  const done = new Set<string>();
  function* visit(path: string, way: readonly string[]): Generator<string> {
    const start = way.indexOf(path);
    if (start !== -1) yield `a circle of imports: ${[...way.slice(start), path].join(" -> ")}`;
    if (start !== -1 || done.has(path)) return;
    for (const target of files.get(path)?.imports ?? []) yield* visit(target.path, [...way, path]);
    done.add(path);
  }
  for (const path of files.keys()) yield* visit(path, []);
}

/** Each table has one file of an engine that writes it, but for these: [table, file, why]. */
const MORE_WRITERS: readonly (readonly [string, string, string])[] = [
  ["installation", "lib/books/sqlite/db/log_start.ts", "the log's beginning is written before any book is opened"],
];

const WRITE = /\b(?:INSERT (?:OR \w+ )?INTO|UPDATE|DELETE FROM) (\w+)/g;

/** Tables that more than one file of an engine writes. The schema's triggers do not count. */
function* tablesWithSeveralWriters(engine: string, sources: readonly SourceFile[]): Generator<string> {
  const tables = [...readFileSync("schema.sql", "utf8").matchAll(/^CREATE TABLE (\w+)/gm)].map(
    ([, table]) => table ?? "",
  );
  for (const table of tables) {
    const writers = sources
      .filter(
        ({ path, text }) => path.startsWith(engine) && [...text.matchAll(WRITE)].some((match) => match[1] === table),
      )
      .map(({ path }) => path)
      .filter((path) => !MORE_WRITERS.some(([of, writer]) => of === table && writer === path));
    if (writers.length > 1) yield `the table ${table} has more than one writer: ${writers.join(", ")}`;
  }
}

const INTERFACE = /^export interface (\w+)[^{]*\{\n(.*?)^\}/gms;
/** A method, or a property that is a function. */
const METHOD = /^ {2}(\w+)(?:: )?(?:<[^>]*>)?\(/;

/** Methods of the books' interfaces that nobody has documented: hovering over a call would show nothing. */
function* undocumented({ path, text }: SourceFile): Generator<string> {
  for (const [, name, body = ""] of text.matchAll(INTERFACE)) {
    const lines = body.split("\n");
    for (const [i, line] of lines.entries()) {
      const method = METHOD.exec(line)?.[1];
      if (method !== undefined && !lines[i - 1]?.endsWith("*/")) yield `${path}: ${name}.${method} has no docstring`;
    }
  }
}

/** Nouns of the books that an engine does not implement in the file of the same name. */
function* unimplemented(engine: string, sources: ReadonlyMap<string, SourceFile>): Generator<string> {
  for (const { path } of sources.get("lib/books/books.ts")?.imports ?? []) {
    const file = `${engine}${path.slice("lib/books/".length)}`;
    const isImplemented = sources.get(file)?.imports.some((imported) => imported.path === path);
    if (!isImplemented) yield `${path} must be implemented in ${file}`;
  }
}

/** Folders of tests that drive the whole program. The others are named like the folder of `lib` whose promises they hold. */
const WHOLE_PROGRAM = ["browser", "crash", "matrix", "model"];
/** Folders of tests that run over every implementation of an interface. */
const CONTRACTS = ["books/contract"];

/** Tests in a folder whose name says neither what they test nor that it is everything. */
function* misplacedTests(): Generator<string> {
  for (const path of readdirSync("test", { recursive: true, encoding: "utf8" })) {
    const folder = dirname(path);
    const isPlaced =
      existsSync(join("lib", folder)) ||
      WHOLE_PROGRAM.includes(folder.split("/")[0] ?? "") ||
      CONTRACTS.includes(folder);
    if (path.endsWith("_test.ts") && !isPlaced) yield `test/${path}: there is no folder lib/${folder}`;
  }
}

const paths = [
  "server.ts",
  ...readdirSync("lib", { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .map((path) => `lib/${path}`),
];
const files = new Map(paths.map((path) => [path, readSource(path)]));
const books = [...files.values()].filter(({ path }) => dirname(path) === "lib/books");
/** An engine is a folder in `lib/books`. */
const engines = readdirSync("lib/books", { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => `lib/books/${name}/`);
const breaches = [
  ...[...files.values()].flatMap((file) => [...wrongWays(file), ...banned(file)]),
  ...books.flatMap((file) => [...undocumented(file)]),
  ...engines.flatMap((engine) => [
    ...tablesWithSeveralWriters(engine, [...files.values()]),
    ...unimplemented(engine, files),
  ]),
  ...circles(files),
  ...misplacedTests(),
];
for (const breach of breaches) console.error(breach);
if (breaches.length > 0) process.exitCode = 1;
else console.log(`${paths.length} files keep the rules`);
