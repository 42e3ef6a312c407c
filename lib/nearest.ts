/**
 * The candidate that takes the fewest edits to become; undefined if none is near, because a suggestion that shares little with
 * what was typed is worse than none. For "did you mean".
 */
export function nearest(name: string, candidates: readonly string[]): string | undefined {
  const [best] = candidates
    .map((candidate) => ({ candidate, edits: distance(name, candidate) }))
    .toSorted((a, b) => a.edits - b.edits);
  if (best === undefined) return undefined;
  const editsMax = Math.max(2, Math.floor(Math.min(name.length, best.candidate.length) / 3));
  return best.edits <= editsMax ? best.candidate : undefined;
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
