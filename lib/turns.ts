/** What waits, by owner. Owners take turns, one item each: one with a hundred does not keep another's single one waiting. */
export interface Turns<T> {
  add: (ownerId: string, item: T) => void;
  /** Takes out what is next; undefined if nothing waits. */
  next: () => T | undefined;
  isEmpty: () => boolean;
}

export function createTurns<T>(): Turns<T> {
  /** In the order of their turns: a Map keeps the order in which its keys were set. */
  const waiting = new Map<string, T[]>();

  function add(ownerId: string, item: T): void {
    const own = waiting.get(ownerId);
    if (own === undefined) waiting.set(ownerId, [item]);
    else own.push(item);
  }

  function next(): T | undefined {
    for (const [ownerId, own] of waiting) {
      const item = own.shift();
      // To the end of the line.
      waiting.delete(ownerId);
      if (own.length > 0) waiting.set(ownerId, own);
      return item;
    }
    return undefined;
  }

  return { add, next, isEmpty: () => waiting.size === 0 };
}
