import type { Books } from "../../lib/books/books.ts";
import { openBooks } from "../../lib/books/sqlite/open_books.ts";
import type { Config } from "../../lib/config/config.ts";
import { makeDataDir } from "../../lib/data_dir/data_dir.ts";
import { silentLog } from "./app.ts";

/** An engine that keeps books. */
export interface BooksEngine {
  name: string;
  /** Opens the books of a data directory, and makes both if they are new. */
  open: (config: Config, now: () => number) => Promise<Books>;
}

/** Every engine. The tests in `test/books/contract` run on each of them. */
export const BOOKS_ENGINES: readonly BooksEngine[] = [
  {
    name: "sqlite",
    async open(config, now) {
      await makeDataDir(config.dataDir);
      const onFatal = (error: unknown) => {
        throw error;
      };
      return openBooks({ config, log: silentLog, now, migrate: true, onFatal });
    },
  },
];
