import type { Books } from "../books/books.ts";
import type { Config } from "../config/config.ts";
import type { Cleaner } from "../operations/cleaner.ts";
import type { createConfirm } from "../operations/confirm.ts";
import type { StoreGuard } from "../operations/store_guard.ts";
import type { ObjectRoutes } from "../store/disk/object_routes.ts";
import type { ObjectStore } from "../store/objects.ts";

/** The parts of the service that the handlers use. */
export interface RouteParts {
  books: Books;
  objects: ObjectStore;
  confirm: ReturnType<typeof createConfirm>;
  cleaner: Cleaner;
  guard: StoreGuard;
  /** Null if clients speak to an S3 server. */
  objectRoutes: ObjectRoutes | null;
  config: Config;
}
