// Goal: whatever a message or a page tells people to type is there: commands with their options, scripts, settings, routes.
// Method: what is named is found in the words of the sources and the documentation, and held against the real tables.
import assert from "node:assert/strict";
import { accessSync, constants, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { parseCommand } from "../lib/commands/command_line.ts";
import { COMMANDS } from "../lib/commands/commands.ts";
import { listSettings } from "../lib/config/config.ts";
import { matchRoute, routeTable } from "../lib/http/routes.ts";
import { METRICS_PATH } from "../lib/routes/metrics.ts";
import { createRoutes } from "../lib/routes/routes.ts";
import { startTestApp } from "./_app.ts";

const ROOT = new URL("..", import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, ROOT), "utf8");
const filesIn = (folder: string, ending: string): string[] =>
  readdirSync(new URL(folder, ROOT), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(ending))
    .map((path) => `${folder}/${path}`);

const SOURCES = ["server.ts", ...filesIn("lib", ".ts")];
const PAGES = ["README.md", "CHANGELOG.md", ...filesIn("docs", ".md"), ...filesIn("docs", ".yaml")];
const SCRIPTS = ["scripts/start", "scripts/stowage"];

/** Words after the name of the program that are no command: a file's name, what a key is for, reserved slugs. */
const NO_COMMANDS = /^(doctor( é)?\.txt|object url 1$|support system )/;

/** A comment, a redirection, or another program: what the shell keeps for itself of a line in a script. */
const REST_FOR_THE_SHELL = /\s+(#|<|>|\|\||&&|\| (sed|grep|head)\b).*$/;

interface Named {
  where: string;
  command: string;
}

/** What follows the program's name, as far as it belongs to it: to the end of the quoted text, or of the line. */
function namedIn(path: string): Named[] {
  const text = read(path).replaceAll("\\`", "`").replaceAll("\\n", "\n");
  const found: Named[] = [];
  for (const pattern of [
    /(?<![-\w/])stowage ([a-z][^`"'\n]*)/g,
    /(?<=scripts\/)stowage ([a-z][^`"'\n]*)/g,
    /run -s stowage -- ([^`"'\n]*)/g,
  ]) {
    for (const { 1: command = "", index } of text.matchAll(pattern)) {
      const line = text.slice(0, index).split("\n").length;
      if (NO_COMMANDS.test(command)) continue;
      found.push({ where: `${path}:${line}`, command: command.replace(REST_FOR_THE_SHELL, "").trim() });
    }
  }
  return found;
}

/** A command in a span of code that leaves the program's name out, such as `doctor --fix`. */
function shortlyNamedIn(path: string): Named[] {
  const firsts = new Set(COMMANDS.map(({ name }) => name.split(" ")[0]));
  return [...read(path).matchAll(/(?<!`)`([a-z][^`\n]* \[?--[^`\n]*)`/g)]
    .map(({ 1: command = "" }) => ({ where: path, command }))
    .filter(({ command }) => firsts.has(command.split(" ")[0]));
}

/** What is wrong with a command, or null. Placeholders count as what they stand for. */
function faultOf(command: string): string | null {
  // Alternatives and what may be left out are there all the same; "…" stands for any of a group.
  const words = command
    .replaceAll(/\$\{[^}]*\}|[[\]]| \| |[.,;:)]+$/g, " ")
    .split(/\s+/)
    .filter((word) => word !== "");
  if (words.at(-1) === "…") {
    const group = words.slice(0, -1).join(" ");
    return COMMANDS.some(({ name }) => name.startsWith(`${group} `)) ? null : `there is no group "${group}"`;
  }
  // Named alone, as in a table or in "`keys revoke` takes the id", it may go without what it needs.
  if (COMMANDS.some(({ name }) => name === words.join(" ")) || words.join(" ") === "COMMAND") return null;
  try {
    parseCommand(COMMANDS, words);
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function faultsOf(named: readonly Named[]): string[] {
  return named.flatMap(({ where, command }) => {
    const fault = faultOf(command);
    return fault === null ? [] : [`${where}: stowage ${command}: ${fault}`];
  });
}

test("a command or an option that is not there is found", () => {
  for (const command of [
    "backup",
    "doctor --mend",
    "keys create --workspce ID",
    "workspaces remove ID",
    "keys revoke ID more",
  ]) {
    assert.notEqual(faultOf(command), null, command);
  }
  for (const command of [
    "doctor --fix",
    "doctor [--fix | --yes] [--json]",
    "keys create --workspace ID",
    "workspaces members …",
  ]) {
    assert.equal(faultOf(command), null, command);
  }
});

test("every command that a message names is one, with these options", () => {
  const named = SOURCES.flatMap(namedIn);
  assert.ok(named.length > 30, `${named.length} were found`);
  assert.deepEqual(faultsOf(named), []);
});

test("so is every command that a page or a script names", () => {
  const named = [...PAGES, ...SCRIPTS].flatMap(namedIn);
  const shortly = PAGES.flatMap(shortlyNamedIn);
  assert.ok(named.length > 5 && shortly.length > 5, `${named.length} and ${shortly.length} were found`);
  assert.deepEqual(faultsOf([...named, ...shortly]), []);
});

test("the help of each command names its options and operands, and no others", () => {
  for (const { name, usage, options, operands } of COMMANDS) {
    const told = [...new Set([...usage.matchAll(/--([a-z-]+)/g)].map(([, option]) => option))].sort();
    assert.deepEqual(told, Object.keys(options).sort(), name);
    const words = usage.replaceAll(/\[[^\]]*\]+|--[a-z-]+ [A-Z]+|--[a-z-]+/g, " ").split(/\s+/);
    assert.deepEqual(
      words.filter((word) => /^[A-Z_]+$/.test(word)),
      operands,
      name,
    );
  }
});

test("every script that is named is there and can be run, with options that it knows", () => {
  const { scripts } = JSON.parse(read("package.json"));
  const bench = read("scripts/bench.ts");
  const parts = /PARTS = \[(.*?)\]/.exec(bench)?.[1] ?? "";
  for (const path of [...SOURCES, ...PAGES, ...SCRIPTS]) {
    const text = read(path);
    for (const [, name = ""] of text.matchAll(/(?:\.\/|`|\s)scripts\/([a-z][a-z0-9_.]*)/g)) {
      accessSync(new URL(`scripts/${name}`, ROOT), name.includes(".") ? constants.R_OK : constants.X_OK);
    }
    for (const [, name = ""] of text.matchAll(/npm run (?:-s )?([a-z][\w-]*)/g)) {
      assert.ok(name in scripts, `${path}: npm run ${name}`);
    }
    for (const [command] of text.matchAll(/npm run bench -- [^`\n)]*/g)) {
      for (const [, option = ""] of command.matchAll(/ --([a-z-]+)/g)) {
        assert.match(bench, new RegExp(`^ {4}"?${option}"?: \\{ type: `, "m"), `${path}: ${command}`);
      }
      for (const part of /--only (\S+)/.exec(command)?.[1]?.split(",") ?? []) {
        assert.ok(parts.includes(`"${part}"`), `${path}: ${command}`);
      }
    }
  }
});

test("every setting that is named is one", () => {
  const known = listSettings().map(({ name }) => name);
  const isKnown = (name: string): boolean =>
    known.includes(name) || (name.endsWith("_") && known.some((other) => other.startsWith(name)));
  for (const path of [...SOURCES, ...PAGES]) {
    const named = [...read(path).matchAll(/\bSTOWAGE_[A-Z0-9_]*/g)].map(([name]) => name);
    // Those of the tests are no settings of the program.
    const unknown = named.filter((name) => !isKnown(name) && !name.startsWith("STOWAGE_TEST_"));
    assert.deepEqual(unknown, [], path);
  }
});

test("every route that a message names is one", async (t) => {
  const { app, config } = await startTestApp(t);
  const unused = () => Promise.reject(new Error("Nothing is called here"));
  const table = routeTable(createRoutes({ ...app, config, confirm: unused, objectRoutes: null }));
  for (const path of SOURCES) {
    for (const [named, method = "", route = ""] of read(path).matchAll(
      /\b(GET|POST|PUT|PATCH|DELETE) (\/[\w/{}-]+)/g,
    )) {
      const isThere = route === METRICS_PATH || matchRoute(table, method, route).kind === "route";
      assert.ok(isThere, `${path}: ${named}`);
    }
  }
});
