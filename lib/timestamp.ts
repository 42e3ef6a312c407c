let lastAtMs = Number.NaN;
let lastText = "";

/**
 * A moment as the wire and the log have it: ISO 8601 in UTC with milliseconds. The last one is kept, because one request
 * writes the same moment several times and requests that share a commit mostly do too; making one anew takes 0.7 us.
 */
export function timestamp(atMs: number): string {
  if (atMs !== lastAtMs) {
    lastText = new Date(atMs).toISOString();
    lastAtMs = atMs;
  }
  return lastText;
}
