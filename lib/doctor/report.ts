/** Examples that are kept of one finding: enough to act on, while memory stays flat. */
export const EXAMPLES_MAX = 1_000;
/** Examples that are printed for people. */
const EXAMPLES_PRINTED_MAX = 10;

export type Result =
  | "ok"
  /** Worth knowing; nothing is wrong. */
  | "note"
  /** Something is wrong, and the exit code says so. */
  | "problem"
  /** It was a problem until now. */
  | "fixed"
  /** It could not be checked, and the exit code says so. */
  | "unknown";

/** The result of one check. */
export interface Finding {
  check: string;
  result: Result;
  what: string;
  /** How to fix it. */
  advice?: string;
  count?: number;
  examples?: readonly string[];
}

export interface Report {
  findings: readonly Finding[];
  add: (finding: Finding) => void;
  ok: (check: string, what: string) => void;
  note: (check: string, what: string, more?: FindingMore) => void;
  problem: (check: string, what: string, more: FindingMore & { advice: string }) => void;
  /** Whether everything was checked and nothing is wrong any more. */
  isFine: () => boolean;
}

export type FindingMore = Pick<Finding, "advice" | "count" | "examples">;

/** Collects the findings of the checks, in their order. */
export function createReport(): Report {
  const findings: Finding[] = [];
  const add = (finding: Finding): void => void findings.push(finding);
  return {
    findings,
    add,
    ok: (check, what) => add({ check, result: "ok", what }),
    note: (check, what, more = {}) => add({ check, result: "note", what, ...more }),
    problem: (check, what, more) => add({ check, result: "problem", what, ...more }),
    isFine: () => findings.every(({ result }) => result !== "problem" && result !== "unknown"),
  };
}

/** The report for machines. */
export function reportJson({ findings, isFine }: Report): Record<string, unknown> {
  return { fine: isFine(), ...countsOf(findings), findings };
}

/** The report for people. */
export function reportText({ findings }: Report): string {
  const width = Math.max(...findings.map(({ check }) => check.length));
  const lines = findings.map(({ check, result, what, advice, count = 0, examples = [] }) => {
    const indent = " ".repeat(9);
    const printed = examples.slice(0, EXAMPLES_PRINTED_MAX);
    const more = Math.max(count, examples.length) - printed.length;
    return [
      `${result.padEnd(8)} ${check.padEnd(width)}  ${what}`,
      ...printed.map((example) => `${indent}  ${example}`),
      ...(printed.length > 0 && more > 0 ? [`${indent}  and ${more} more; --json names up to ${EXAMPLES_MAX}`] : []),
      ...(advice === undefined
        ? []
        : advice.split("\n").map((line, i) => `${indent}${i === 0 ? "do: " : "    "}${line}`)),
    ].join("\n");
  });
  const { problems, fixed, unknown, notes } = countsOf(findings);
  const counts = [
    `${problems} ${problems === 1 ? "problem" : "problems"}`,
    ...(fixed > 0 ? [`${fixed} fixed`] : []),
    ...(unknown > 0 ? [`${unknown} not checked`] : []),
    ...(notes > 0 ? [`${notes} ${notes === 1 ? "note" : "notes"}`] : []),
  ];
  return `${lines.join("\n")}\n\n${counts.join(", ")}`;
}

function countsOf(findings: readonly Finding[]) {
  const count = (wanted: Result): number => findings.filter(({ result }) => result === wanted).length;
  return { problems: count("problem"), fixed: count("fixed"), unknown: count("unknown"), notes: count("note") };
}

/** A number of things, with the first of them as examples. */
export interface Tally {
  count: number;
  bytes: number;
  examples: string[];
}

export function createTally(): Tally {
  return { count: 0, bytes: 0, examples: [] };
}

export function addTo(tally: Tally, example: string, bytes = 0): void {
  tally.count++;
  tally.bytes += bytes;
  if (tally.examples.length < EXAMPLES_MAX) tally.examples.push(example);
}

/** A number with the right form of a noun: "1 object", "2 objects". */
export function counted(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
