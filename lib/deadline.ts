/**
 * Resolves as `work` does, or with the result of `late` if that takes longer than `ms` milliseconds. If `late` throws, rejects
 * with that error. The work itself goes on, and its later outcome is ignored.
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
