import { setTimeout as delay } from "node:timers/promises";
import { act, type Cell, checkClient, checkHeld, finish, openCell, sendBefore } from "./_connection_matrix_cells.ts";
import { judgeLog, judgeProcess } from "./_connection_matrix_judge.ts";
import type { Lane } from "./_connection_matrix_lanes.ts";
import { type Run, soon } from "./_connection_matrix_program.ts";
import type { MatrixReport } from "./_connection_matrix_report.ts";
import { type Action, holdOf, type Moment } from "./_connection_matrix_rules.ts";
import type { World } from "./_connection_matrix_world.ts";

/** Only the cells whose `route: moment: action` this matches are run. */
const CELLS = new RegExp(process.env.STOWAGE_TEST_CELLS ?? "");
/** When the process ends, it is looked for the cell that ended it by halves: so often, because each takes a new process. */
const RESTARTS_MAX = 20;
const PREPARED_AT_ONCE = 16;
/** Between the last byte of the requests and the act: what is held is then held, and a download fills the buffers. */
const SETTLE_MS = 100;

export interface Phase {
  moment: Moment;
  action: Action;
}

/** Runs phases of the matrix on one data directory, and starts the program anew whenever it has ended. */
export async function createRunner(world: World, report: MatrixReport, lanes: readonly Lane[]) {
  let run = await world.start();
  let restarts = 0;
  /** What the process holds open when nothing is under way. */
  let openFiles = 0;

  async function restart(): Promise<void> {
    if (run.isAlive()) run.program.child.kill("SIGKILL");
    await run.program.ended;
    run = await world.start();
    restarts++;
    await settle();
  }

  /** Lets the process open what it keeps open. */
  async function settle(): Promise<void> {
    for (const path of ["/ready", "/metrics", "/health"]) await run.call("GET", path);
    await delay(SETTLE_MS);
    openFiles = run.openFiles();
  }

  /** Runs the cells of several phases side by side. Returns false if the process ended. */
  async function attempt(phases: readonly Phase[], chosen: readonly Lane[]): Promise<boolean> {
    const from = run.lines().length;
    const cells: Cell[] = [];
    let aside: string[] = [];
    try {
      for (const phase of phases) cells.push(...(await begin(phase, chosen)));
      await Promise.all(cells.map(finish));
      if (!run.isAlive()) return false;
      for (const cell of cells) checkClient(cell, world);
      aside = [...(await judgeLog(run, cells, from)), ...(await judgeProcess(run, world, openFiles))];
    } catch (error) {
      if (!run.isAlive() || !(await soon(() => run.isAlive(), 0))) return false;
      // The process may be a moment from its end.
      await delay(SETTLE_MS);
      if (!run.isAlive()) return false;
      throw error;
    } finally {
      for (const { client } of cells) client.close();
    }
    if (!run.isAlive()) return false;
    for (const { moment, action, name, problems } of cells) report.tried(moment, action, name, problems);
    for (const what of aside) report.fail(`${describe(phases)}: ${what}`);
    if (aside.length > 0) openFiles = Math.max(openFiles, run.openFiles());
    return true;
  }

  /** Brings a phase's cells to where its clients act, and lets them act. */
  async function begin({ moment, action }: Phase, chosen: readonly Lane[]): Promise<Cell[]> {
    const cells = await openCells({ moment, action }, chosen);
    if (cells.length === 0) return cells;
    const hold = holdOf(moment);
    const release = await holding(hold, cells);
    try {
      const from = run.lines().length;
      if (hold === null) await Promise.all(cells.map(sendBefore));
      if (moment === "while it is answered") {
        const written = (): number =>
          run
            .lines()
            .slice(from)
            .filter(({ msg }) => msg === "request").length;
        const small = cells.filter(({ plan }) => plan.isAnswered).length;
        await soon(() => written() >= small || !run.isAlive());
        await delay(SETTLE_MS);
      }
      // The process has had a turn with whatever came in.
      await run.call("GET", "/health");
      const isAtOnce = moment === "with the head" && action !== "silence" && action !== "drip";
      if (isAtOnce) await run.stop();
      await Promise.all(cells.map(act));
      if (isAtOnce || hold !== null) await delay(SETTLE_MS);
      if (isAtOnce) run.go();
    } finally {
      release();
    }
    return cells;
  }

  /** Holds what the cells wait for, and sends them there. Returns what lets go. */
  async function holding(hold: ReturnType<typeof holdOf>, cells: readonly Cell[]): Promise<() => void> {
    if (hold === null) return () => {};
    const store = hold === "store" ? run.holdStore() : null;
    const release = store?.release ?? world.holdDatabase();
    try {
      await Promise.all(cells.map(sendBefore));
      if (store !== null && !(await store.held(cells.length))) throw new Error("Not every request came to the store");
      for (let turn = 0; turn < 2; turn++) await run.call("GET", "/health");
      await delay(SETTLE_MS);
      for (const cell of cells) checkHeld(cell);
    } catch (error) {
      release();
      throw error;
    }
    return release;
  }

  async function openCells({ moment, action }: Phase, chosen: readonly Lane[]): Promise<Cell[]> {
    const cells: Cell[] = [];
    const rest = chosen.filter(({ name }) => CELLS.test(`${name}: ${moment}: ${action}`)).values();
    await Promise.all(
      Array.from({ length: PREPARED_AT_ONCE }, async () => {
        for (const lane of rest) {
          const cell = await openCell(world, run, { lane, moment, action });
          if (cell !== null) cells.push(cell);
        }
      }),
    );
    return cells;
  }

  /** Runs phases together, and if the process ends, finds out by halves at whose request. */
  async function runPhases(phases: readonly Phase[], chosen = lanes): Promise<void> {
    if (!run.isAlive()) await restart();
    if (await attempt(phases, chosen)) return;
    const why = lastWords(run);
    await restart();
    if (chosen.length > 1 && restarts < RESTARTS_MAX) {
      const middle = Math.ceil(chosen.length / 2);
      await runPhases(phases, chosen.slice(0, middle));
      await runPhases(phases, chosen.slice(middle));
    } else {
      const [lane] = chosen;
      const who = chosen.length === 1 ? lane?.name : `one of ${chosen.length} routes`;
      report.fail(`${who}: ${describe(phases)}: THE PROCESS ENDED: ${why}`);
    }
  }

  /** At the end: whether log and metrics agree, and the process ends as it should. */
  async function end(): Promise<void> {
    if (!run.isAlive()) return;
    for (const what of await run.miscounted()) report.fail(`metrics: ${what}`);
    run.program.child.kill("SIGTERM");
    const { exitCode } = await run.program.ended;
    if (exitCode !== 0) report.fail(`at the end: exit code ${exitCode}`);
  }

  await settle();
  return { runPhases, end };
}

function describe(phases: readonly Phase[]): string {
  const [first] = phases;
  return phases.length === 1 ? `${first?.moment}: ${first?.action}` : "silence and drip";
}

/** What the log says of the process's end. */
function lastWords(run: Run): string {
  const fatal = run.lines().findLast(({ level }) => level === "error" || level === "fatal");
  return String(fatal?.error ?? run.program.stderr().slice(-300))
    .replaceAll(/\s+/g, " ")
    .slice(0, 200);
}
