/** The candidate that takes the fewest edits to become; undefined where there is none. For "did you mean". */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  return candidates.toSorted((a, b) => distance(name, a) - distance(name, b))[0];
}

/** Edits between two names (Levenshtein). */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, i) => i);
  for (const [i, char] of [...from].entries()) {
    const next = [i + 1];
    for (const [j, other] of [...to].entries()) {
      next.push(Math.min((row[j] ?? 0) + (char === other ? 0 : 1), (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
