import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import type { TestContext } from "node:test";
import { promisify } from "node:util";
import { PROGRAM } from "./_process.ts";

const PAGE = readFileSync(new URL("../docs/troubleshooting.md", import.meta.url), "utf8");
const run = promisify(execFile);

/** One cure of the page: its name in `<!-- case: NAME -->`, and how an installation is broken for it and then looked at. */
export interface Case {
  name: string;
  /** Breaks something, calls `cure.run` for the block of the page, and checks that all is well. */
  play: (t: TestContext, cure: Cure) => Promise<void>;
}

export interface Where {
  dataDir: string;
  /** The backup that the page speaks of. */
  backup?: string;
  /** What else the block's variables are, and the program's settings. */
  env?: Record<string, string>;
}

export interface Cure {
  /** Runs the page's commands as they stand, in a POSIX shell that ends at the first failure. */
  run: (where: Where) => Promise<Said>;
  /** The same, and it must fail: doctor does while something is wrong. */
  runInVain: (where: Where) => Promise<Said>;
}

export interface Said {
  stdout: string;
  stderr: string;
}

/** The commands under `<!-- setup -->`, with this checkout's program and a test's folders. */
function setup({ dataDir, backup = "/nowhere" }: Where): string {
  const block = /<!-- setup -->\n```sh\n(.*?)```/s.exec(PAGE)?.[1] ?? "";
  const changes = [
    ["DATA=./data ", `DATA='${dataDir}' `],
    ["BACKUP=./backup ", `BACKUP='${backup}' `],
    ['./scripts/stowage "$@"', `'${process.execPath}' '${PROGRAM}' "$@"`],
  ] as const;
  return changes.reduce((text, [from, to]) => {
    assert.ok(text.includes(from), `the page's setup has ${from}`);
    return text.replace(from, to);
  }, block);
}

/** The names of the page's cases, in their order. */
export function casesOfPage(): string[] {
  return [...PAGE.matchAll(/^<!-- case: (\S+) -->\n```sh$/gm)].map(([, name = ""]) => name);
}

/** How many blocks of commands there are on the page, in a case or not. */
export function blocksOfPage(): number {
  return [...PAGE.matchAll(/^```sh$/gm)].length;
}

/** The cure of one case, and whether it was run. */
export function cureOf(name: string): Cure & { wasRun: () => boolean } {
  const block = new RegExp(`<!-- case: ${name} -->\n\`\`\`sh\n(.*?)\`\`\``, "s").exec(PAGE)?.[1];
  assert.ok(block !== undefined, `the page has a case ${name}`);
  let wasRun = false;

  async function play(where: Where): Promise<Said & { exitCode: number }> {
    wasRun = true;
    const inherited = Object.entries(process.env).filter(([key]) => !key.startsWith("STOWAGE_"));
    const env = { ...Object.fromEntries(inherited), STOWAGE_MIN_FREE_BYTES: "0", STOWAGE_PORT: "0", ...where.env };
    try {
      const said = await run("sh", ["-euc", `${setup(where)}\n${block}`], { env });
      return { ...said, exitCode: 0 };
    } catch (error) {
      if (!(error instanceof Error && "stdout" in error && "stderr" in error && "code" in error)) throw error;
      return { stdout: String(error.stdout), stderr: String(error.stderr), exitCode: Number(error.code) };
    }
  }

  return {
    wasRun: () => wasRun,
    async run(where) {
      const { exitCode, ...said } = await play(where);
      assert.equal(exitCode, 0, said.stdout + said.stderr);
      return said;
    },
    async runInVain(where) {
      const { exitCode, ...said } = await play(where);
      assert.notEqual(exitCode, 0, said.stdout + said.stderr);
      return said;
    },
  };
}
