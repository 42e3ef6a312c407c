import type { ListedObject } from "../objects.ts";

/** Two listings in the order of their keys as one. Of two objects under one key the one of `first` counts. */
export async function* mergeListings(
  first: Iterable<ListedObject>,
  second: AsyncIterable<ListedObject>,
): AsyncGenerator<ListedObject> {
  const rest = first[Symbol.iterator]();
  let next = rest.next();
  for await (const object of second) {
    while (next.done !== true && next.value.objectKey < object.objectKey) {
      yield next.value;
      next = rest.next();
    }
    if (next.done === true || next.value.objectKey !== object.objectKey) yield object;
  }
  for (; next.done !== true; next = rest.next()) yield next.value;
}
