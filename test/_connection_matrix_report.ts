import { ACTIONS, type Action, MOMENTS, type Moment } from "./_connection_matrix_rules.ts";

export type MatrixReport = ReturnType<typeof createMatrixReport>;

/** Collects what was tried and what failed. */
export function createMatrixReport() {
  const tried = new Map<string, number>();
  const failures: string[] = [];
  const keyOf = (moment: Moment, action: Action): string => `${moment}: ${action}`;

  /** What was tried, as a table: cells by what the client did and when. */
  function table(): string {
    const rows = MOMENTS.map((moment) => [
      moment,
      ...ACTIONS.map((action) => String(tried.get(keyOf(moment, action)) ?? "-")),
    ]);
    const lines = [["", ...ACTIONS], ...rows];
    const widths = lines[0]?.map((_, i) => Math.max(...lines.map((line) => line[i]?.length ?? 0))) ?? [];
    return lines.map((line) => line.map((text, i) => text.padEnd(widths[i] ?? 0)).join("  ")).join("\n");
  }

  return {
    /** One cell was run to its end. */
    tried(moment: Moment, action: Action, name: string, problems: readonly string[]): void {
      tried.set(keyOf(moment, action), (tried.get(keyOf(moment, action)) ?? 0) + 1);
      if (problems.length > 0) failures.push(`${name}: ${problems.join("; ")}`);
    },
    fail: (what: string) => void failures.push(what),
    cells: () => [...tried.values()].reduce((sum, count) => sum + count, 0),
    table,
    failures,
  };
}
