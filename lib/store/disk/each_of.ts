/** Files touched at once. The file system's calls share four threads anyway. */
const AT_ONCE_MAX = 8;

/** Calls `work` for each item, for a few of them at a time. Rejects with the first failure. */
export async function eachOf<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values();
  async function worker(): Promise<void> {
    for (const item of rest) await work(item);
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE_MAX, items.length) }, worker));
}
