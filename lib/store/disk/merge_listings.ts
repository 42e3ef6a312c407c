import { setImmediate as nextTurn } from "node:timers/promises";
import type { ListedObject } from "../objects.ts";

/**
 * Objects of `first` after which others get a turn: those come without waiting for anything, and a million in a row would
 * hold up every request.
 */
const GIVE_WAY_AFTER = 256;

/** Merges two listings in the order of their keys. If both have an object under one key, that of `first` counts. */
export async function* mergeListings(
  first: Iterable<ListedObject>,
  second: AsyncIterable<ListedObject>,
): AsyncGenerator<ListedObject> {
  const rest = first[Symbol.iterator]();
  let taken = 0;

  async function takeNext(): Promise<IteratorResult<ListedObject>> {
    taken++;
    if (taken % GIVE_WAY_AFTER === 0) await nextTurn();
    return rest.next();
  }

  let next = await takeNext();
  for await (const object of second) {
    while (next.done !== true && next.value.objectKey < object.objectKey) {
      yield next.value;
      next = await takeNext();
    }
    if (next.done === true || next.value.objectKey !== object.objectKey) yield object;
  }
  for (; next.done !== true; next = await takeNext()) yield next.value;
}
