import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { FAULTS } from "./_matrix_faults.ts";
import { STORES, type StoreName } from "./_matrix_rig.ts";
import { STEPS } from "./_matrix_steps.ts";

const FILE = fileURLToPath(new URL("../docs/crash-matrix.md", import.meta.url));
const NAMES: Record<StoreName, string> = {
  ...{ disk: "Embedded store", minio: "MinIO", versitygw: "versitygw", garage: "Garage" },
};

/** What came of a cell; `null` in place of a result: the fault cannot meet this step. */
export type Outcome = { result: string } | { failed: string } | { notRun: string };

const LEGEND = `Each cell is one run: a service with data of its own comes to that call of its store, the fault happens at that call, and
nothing else is wrong. Then the fault ends (a killed process is started again), what was asked for is asked for once more,
two days go by on the service's clock, and BOOKS, ONCE, ROW-FIRST, NO-ORPHAN and NO-GHOST are checked from the raw database
and a listing of the bucket by a client of its own, before and after those two days. A cell with a result has passed all of
that. The result tells what was seen during the fault and, after the comma, when it was over:

- a number is the status of the answer to the confirm, or to the delete;
- \`waits\`: the cleaner left its entries as they were, with no attempt burnt; \`refused\`: it booked a failure for each key;
  \`part\`: for some; \`removed\`, \`found n\`: it did its work;
- \`killed\`: SIGKILL while the proxy held back the request or the answer;
- \`-\`, or no row at all: that fault cannot meet that call; \`not run\`: the reason stands below the table.
`;

/** Collects the results and makes the page of them. */
export function createReport() {
  const cells = new Map<string, Outcome>();
  const notRun = new Map<StoreName, string>();
  const keyOf = (store: StoreName, fault: string, step: string): string => `${store} ${fault} ${step}`;

  function countsOf(store: StoreName) {
    const counts = { passed: 0, failed: 0, notRun: 0 };
    for (const { name: fault } of FAULTS) {
      for (const { name: step } of STEPS) {
        const outcome = cells.get(keyOf(store, fault, step));
        if (outcome === undefined) continue;
        if ("result" in outcome) counts.passed++;
        else if ("failed" in outcome) counts.failed++;
        else counts.notRun++;
      }
    }
    return counts;
  }

  function tableOf(store: StoreName): string {
    const why = notRun.get(store);
    if (why !== undefined) return `Not run: ${why}.\n`;
    const reasons = new Set<string>();
    const rows = FAULTS.flatMap(({ name: fault }) => {
      const results = STEPS.map(({ name: step }) => {
        const outcome = cells.get(keyOf(store, fault, step));
        if (outcome === undefined) return "-";
        if ("result" in outcome) return outcome.result;
        if ("failed" in outcome) return "**FAILED**";
        reasons.add(outcome.notRun);
        return "not run";
      });
      return results.every((result) => result === "-") ? [] : [`| ${fault} | ${results.join(" | ")} |`];
    });
    const head = `| | ${STEPS.map(({ name }) => name).join(" | ")} |\n|---|${STEPS.map(() => "---|").join("")}`;
    const below = [...reasons].map((reason) => `\nNot run: ${reason}.\n`).join("");
    return `${head}\n${rows.join("\n")}\n${below}`;
  }

  function text(): string {
    const all = STORES.map((store) => ({ store, ...countsOf(store) }));
    const sum = (name: "passed" | "failed" | "notRun"): number =>
      all.reduce((total, counts) => total + counts[name], 0);
    const counts = all.map(
      ({ store, passed, failed, notRun }) => `| ${NAMES[store]} | ${passed} | ${failed} | ${notRun} |`,
    );
    counts.push(`| all | ${sum("passed")} | ${sum("failed")} | ${sum("notRun")} |`);
    const tables = STORES.map((store) => `## ${NAMES[store]}\n\n${tableOf(store)}`);
    return [
      "# Crash matrix",
      "Written by `test/crash_matrix_test.ts`; do not edit.",
      LEGEND,
      `| store | passed | failed | not run |\n|---|---|---|---|\n${counts.join("\n")}`,
      ...tables,
    ].join("\n\n");
  }

  return {
    set: (store: StoreName, fault: string, step: string, outcome: Outcome) =>
      void cells.set(keyOf(store, fault, step), outcome),
    /** A whole store was left out. */
    skipped: (store: StoreName, why: string) => void notRun.set(store, why),
    /** Prints the matrix; where it is asked for also keeps it in the docs. */
    finish() {
      const page = `${text()
        .replace(/\n{3,}/g, "\n\n")
        .trimEnd()}\n`;
      process.stdout.write(`\n${page}\n`);
      if (process.env.STOWAGE_TEST_WRITE_MATRIX !== "1" && process.env.CI !== "true") return;
      mkdirSync(dirname(FILE), { recursive: true });
      writeFileSync(FILE, page);
    },
  };
}
