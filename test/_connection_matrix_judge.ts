import { checkBooks } from "./_books.ts";
import { type Cell, otherIds, ownResponse } from "./_connection_matrix_cells.ts";
import { halfSent, type Run, soon } from "./_connection_matrix_program.ts";
import type { World } from "./_connection_matrix_world.ts";

/** A line of the log that tells of one request. */
interface Line {
  level: string;
  msg: string;
  method: string;
  route: string;
  status: number;
  request_id: string;
}

const LOGGED_WITHIN_MS = 3_000;

/**
 * Compares what the log says since `from` with what the cells did: each request once, with the status that it must have.
 * Returns what is wrong and no cell's alone.
 */
export async function judgeLog(run: Run, cells: readonly Cell[], from: number): Promise<string[]> {
  const strangers = (): Line[] =>
    run
      .lines()
      .slice(from)
      .filter(({ msg, request_id }) => msg === "request" && !run.controlIds.has(request_id));
  const byCells = (): Line[] => {
    const others = new Set(cells.flatMap(otherIds));
    return strangers().filter(({ request_id }) => !others.has(request_id));
  };
  await soon(() => byCells().length >= cells.length || !run.isAlive(), LOGGED_WITHIN_MS);

  const left = new Set(byCells());
  const unseen: Cell[] = [];
  for (const cell of cells) {
    const own = ownResponse(cell);
    const line = [...left].find(({ request_id }) => request_id === own?.headers.get("x-request-id"));
    if (own === undefined) unseen.push(cell);
    else if (line === undefined) cell.problems.push(`answered with ${own.status}, and not in the log`);
    else {
      left.delete(line);
      checkStatus(cell, line);
    }
  }
  // Those that got no response are known by their route alone. Those that may have few statuses choose first.
  for (const cell of unseen.sort((a, b) => a.plan.statuses.length - b.plan.statuses.length)) {
    const fitting = [...left].filter(({ method, route }) => method === cell.lane.method && route === cell.lane.route);
    const line = fitting.find(({ status }) => cell.plan.statuses.includes(status)) ?? fitting[0];
    if (line === undefined) cell.problems.push("not in the log");
    else {
      left.delete(line);
      checkStatus(cell, line);
    }
  }
  const errors = run
    .lines()
    .slice(from)
    .filter(({ level }) => level === "error" || level === "fatal")
    .map((line) => `an error in the log: ${JSON.stringify(line).slice(0, 400)}`);
  return [
    ...errors,
    ...[...left].map(({ method, route, status }) => `one more in the log: ${method} ${route} ${status}`),
  ];
}

function checkStatus({ plan, problems }: Cell, { status, level }: Line): void {
  if (!plan.statuses.includes(status)) problems.push(`logged as ${status}, not ${plan.statuses.join(" or ")}`);
  if (level !== "info") problems.push(`logged as ${level}`);
}

/** Looks at the process and what it keeps, once nothing is under way: what is wrong with them. */
export async function judgeProcess(run: Run, { dataDir, sql }: World, openFilesBefore: number): Promise<string[]> {
  const problems: string[] = [];
  const health = await run.call("GET", "/health");
  if (health.status !== 200) problems.push(`/health answers ${health.status}`);
  const isBack = (): boolean => run.openFiles() <= openFilesBefore && halfSent(dataDir).length === 0;
  if (!(await soon(isBack))) {
    problems.push(`${run.openFiles() - openFilesBefore} more open files, and half sent: ${halfSent(dataDir).length}`);
  }
  try {
    checkBooks(sql);
  } catch (error) {
    problems.push(`the books: ${String(error)}`);
  }
  return problems;
}
