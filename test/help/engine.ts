import type { Books } from "../../lib/books/books.ts";
import { type BooksOptions, type Engine, openEngine } from "../../lib/books/sqlite/open_books.ts";

const engines = new WeakMap<Books, Engine>();

/** Opens books whose engine `engineOf` finds again. */
export function openTestBooks(options: BooksOptions): Books {
  const engine = openEngine(options);
  engines.set(engine.books, engine);
  return engine.books;
}

/** The parts of the engine that keeps the books of a test's app. */
export function engineOf({ books }: { books: Books }): Engine {
  const engine = engines.get(books);
  if (engine === undefined) throw new Error("These books were not opened by openTestBooks");
  return engine;
}
