/**
 * What `work` resolves with, or what `late` returns if that takes longer than `ms` milliseconds. What `late` throws rejects.
 * The work itself goes on; what becomes of it later is nobody's concern.
 */
export async function orAfter<T>(ms: number, work: Promise<T>, late: () => T): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  }).then(late);
  try {
    return await Promise.race([work, deadline]);
  } finally {
    clearTimeout(timer);
  }
}
