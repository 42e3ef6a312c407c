import { hostInUrl } from "./addresses.ts";
import { METRICS_PATH, metricsRoutes } from "./api/metrics.ts";
import { createRoutes } from "./api/table.ts";
import { explainUnserved } from "./api/unserved.ts";
import { createAuth } from "./auth/auth.ts";
import { createKeyUses, type KeyUses } from "./auth/key_uses.ts";
import { createRateLimit } from "./auth/rate_limit.ts";
import { createSessions, type Sessions } from "./auth/sessions.ts";
import type { Books } from "./books/books.ts";
import { installationPrefix } from "./books/object_keys.ts";
import type { Permission } from "./books/permissions.ts";
import type { Principal } from "./books/principals.ts";
import { createReserve } from "./books/sqlite/db/reserve.ts";
import { takeServeLock } from "./books/sqlite/db/serve_lock.ts";
import { openBooks } from "./books/sqlite/open_books.ts";
import type { Config } from "./config/config.ts";
import { checkInitialised } from "./data_dir/data_dir.ts";
import { directoryIdOf } from "./data_dir/directory_id.ts";
import { AppError } from "./errors.ts";
import { listenProblem } from "./http/listen_problem.ts";
import { createHttpServer, type HttpOptions, type HttpServer } from "./http/server.ts";
import { trustedAddresses } from "./http/trusted_addresses.ts";
import type { Log } from "./log.ts";
import { type Cleaner, createCleaner } from "./operations/cleaner.ts";
import { createConfirm } from "./operations/confirm.ts";
import { createStoreGuard, type StoreGuard } from "./operations/store_guard.ts";
import { watchStore } from "./operations/store_watch.ts";
import { toUnavailable } from "./sqlite/sqlite_errors.ts";
import { measuredStore } from "./store/measured_store.ts";
import { type ObjectStore, StoreError } from "./store/objects.ts";
import { openStore, type StoreOptions } from "./store/open_store.ts";
import { placeOf } from "./store/place.ts";

export interface AppOptions {
  config: Config;
  log: Log;
  now?: () => number;
  monotonicNow?: () => number;
  /** Called if the process must end because the database's state is unknown. */
  onFatal: (error: unknown) => void;
  /** False: the cleaner runs only when it is told to, pass by pass. */
  cleansInBackground?: boolean;
  /** Opens the books, for tests that reach into their engine. */
  openBooks?: typeof openBooks;
  /** Wraps the store, for tests that make it fail. */
  wrapStore?: (objects: ObjectStore) => ObjectStore;
  /** How long a confirm may take; by default from the store's own time-outs. */
  leaseMs?: (sizeBytes: number) => number;
  /** Time-outs and clock of an S3 store, for tests. */
  s3?: StoreOptions["s3"];
}

export interface App {
  /** The URL that clients use. */
  url: string;
  /** The URL of the page for Prometheus. */
  metricsUrl: string;
  books: Books;
  keyUses: KeyUses;
  objects: ObjectStore;
  cleaner: Cleaner;
  guard: StoreGuard;
  /** Finishes requests in flight, stops the cleaner, closes the store and the database. */
  close: () => Promise<void>;
}

/**
 * Opens everything in order and serves; closes in reverse. The parts meet here and nowhere else. Throws an `AppError` if the data
 * directory is missing, served by another process, or newer than the program.
 */
export async function openApp(options: AppOptions): Promise<App> {
  const {
    config,
    log,
    onFatal,
    now = Date.now,
    monotonicNow = () => performance.now(),
    wrapStore = (objects) => objects,
  } = options;
  /** Functions that close the parts that are open, the newest last. */
  const closers: (() => Promise<void> | void)[] = [];
  async function closeAll(): Promise<void> {
    for (const close of closers.splice(0).reverse()) await close();
  }

  try {
    checkInitialised(config.dataDir);
    const reserve = createReserve(config.dataDir, log);
    closers.push(reserve.close);
    const lock = takeServeLock(config.dataDir);
    closers.push(() => lock.release());
    reserve.keep();
    // Loaded only to serve: the library takes some 50 ms to load.
    const { createMetrics } = await import("./metrics/metrics.ts");
    const metrics = createMetrics({ store: config.store, now });
    closers.push(metrics.close);
    const books = (options.openBooks ?? openBooks)({
      config,
      log,
      now,
      migrate: true,
      onFatal,
      onFull: reserve.release,
      onGroup: metrics.onGroup,
    });
    closers.push(books.close);
    closers.push(() => books.staging.flush().catch((error) => log.warn("staged_sizes_not_written", { error })));
    const { installationId, uploads, removals, idempotency, keys, users, members } = books;

    // If the system chooses the port, the URL is known only once the server listens.
    let url = config.publicUrl ?? "";
    const store = await openStore({
      config,
      installationId,
      publicUrl: () => url,
      staging: books.staging,
      onS3Call: metrics.onStoreCall,
      onFull: reserve.release,
      ...(options.s3 === undefined ? {} : { s3: options.s3 }),
      serves: true,
      log,
      now,
    });
    const wrapped = wrapStore(store.objects);
    // The S3 store reports its own calls, request by request.
    const objects = config.store === "s3" ? wrapped : measuredStore(wrapped, metrics.onStoreCall);
    closers.push(() => objects.close());
    const guard = createStoreGuard({
      ...{ objects, ledger: books.ledger, stores: books.stores, installationId, place: placeOf(config) },
      ...{ directory: directoryIdOf(config.dataDir), log, now, monotonicNow },
    });
    // Before anyone can create an upload: after that, a store without a record counts as another store.
    await guard.recordIntended().catch((error) => log.warn("store_not_recorded", { error }));
    if (config.store === "disk") await takeFolder({ config, guard, log });

    const cleaner = createCleaner({
      removals,
      uploads,
      staging: books.staging,
      clockRecords: books.clock,
      atStart: await books.clock.read(),
      idempotency,
      objects,
      backgroundMs: books.backgroundMs,
      guard,
      stagingPrefix: installationPrefix("staging", installationId),
      uploadUrlTtlMs: config.uploadUrlTtlMs,
      onRemovals: metrics.onRemovals,
      log,
      now,
      monotonicNow,
    });
    closers.push(() => cleaner.stop());

    const keyUses = createKeyUses({ keys, log });
    closers.push(keyUses.close);

    const confirm = createConfirm({
      ...{ uploads, removals, objects, guard, now, log },
      maxUploadBytes: config.maxUploadBytes,
      ...(options.leaseMs === undefined ? {} : { leaseMs: options.leaseMs }),
    });
    const sessions = openSessions({ config, log, now });
    closers.push(() => sessions?.close());
    const metricsPage = metricsRoutes({
      ...{ metrics, totals: books.totals, log, now },
      isPaused: () => cleaner.pauseReason() !== null,
    });
    const routes = createRoutes({
      books,
      objects,
      confirm,
      cleaner,
      guard,
      objectRoutes: store.objectRoutes,
      config,
    });
    const serverOptions: Omit<HttpOptions<Principal, Permission>, "routes"> = {
      ...createAuth({
        ...{ keys, keyUses, users, members, sessions, now },
        rateLimit: createRateLimit({ defaultPerMin: config.rateLimitPerMin, monotonicNow }),
      }),
      ownerOf: ({ workspaceId, userId }) => workspaceId ?? userId,
      explain: toUnavailable,
      explainMissing: explainUnserved,
      describe: ({ apiKeyId, userId }) => (apiKeyId === null ? { user_id: userId } : { api_key_id: apiKeyId }),
      corsOrigins: config.corsOrigins,
      jsonBytesMax: config.jsonBytesMax,
      bodyBytesPer10sMin: config.uploadBytesPer10sMin,
      connectionsPerAddressMax: config.connectionsPerAddressMax,
      isTrustedAddress: trustedAddresses(config.trustedProxies),
      onFinished: metrics.onFinished,
      log,
      now,
    };
    const isApart = config.metricsPort !== null;
    const http = createHttpServer({ ...serverOptions, routes: isApart ? routes : [...routes, ...metricsPage] });
    closers.push(() => http.close());
    const localUrl = await listenOn(http, { host: config.host, port: config.port, setting: "STOWAGE_PORT" });
    url ||= localUrl;
    let metricsUrl = localUrl + METRICS_PATH;
    if (config.metricsPort !== null) {
      const metricsHttp = createHttpServer({ ...serverOptions, routes: metricsPage });
      closers.push(() => metricsHttp.close());
      const at = { host: config.host, port: config.metricsPort, setting: "STOWAGE_METRICS_PORT" };
      metricsUrl = (await listenOn(metricsHttp, at)) + METRICS_PATH;
    }
    // Not earlier: a copy of the data directory that cannot even listen must not take the bucket from its original.
    if (config.store === "s3") closers.push((await watchBucket({ objects, guard, log })).close);
    lock.announce(url);
    if (options.cleansInBackground !== false) {
      closers.push(guard.watch().close);
      cleaner.start();
    }
    if (!(await books.workspaces.hasAny())) {
      log.warn("no_workspace", { hint: "run `stowage init`: it creates one, with an API key" });
    }
    if (config.store === "s3") {
      // Not awaited, because it calls the store.
      const { warnOfMainKey } = await import("./doctor/main_key.ts");
      void warnOfMainKey(config, log);
    }
    log.info("listening", { url, ...(isApart ? { metrics_url: metricsUrl } : {}), store: config.store });
    return { url, metricsUrl, books, keyUses, objects, cleaner, guard, close: closeAll };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** Takes the embedded store. Throws an `AppError` if this user may not use its folder, or if it can never be used. */
async function takeFolder({ config, guard, log }: { config: Config; guard: StoreGuard; log: Log }): Promise<void> {
  await guard.isCurrent().catch((error) => {
    if (!(error instanceof StoreError)) throw error;
    // A full or failing disk may recover: the cleaner retries.
    const { failure, hint } = error;
    if (failure !== "denied")
      return log.warn("store_unavailable", { failure, ...(hint === null ? {} : { hint }), error });
    const message = `Cannot use the objects in "${config.dataDir}": ${error.message}`;
    throw new AppError("storage_unavailable", message, { cause: error });
  });
}

/** Tries the S3 store until it can be used. */
function watchBucket({ objects, guard, log }: { objects: ObjectStore; guard: StoreGuard; log: Log }) {
  return watchStore({
    log,
    async check() {
      // A listing, because it gives a reason if it fails. A missing bucket is left to the guard.
      await objects.probe().catch((error) => {
        if (!(error instanceof StoreError && error.failure === "bucket_missing")) throw error;
      });
      await guard.isCurrent();
    },
  });
}

/** Null if no issuer is configured: then only API keys are accepted. */
function openSessions({ config, log, now }: { config: Config; log: Log; now: () => number }): Sessions | null {
  const { clerkIssuer: issuer, clerkJwksUrl, clerkAuthorizedParties: authorizedParties } = config;
  if (issuer === null) return null;
  const jwksUrl = clerkJwksUrl ?? `${issuer.replace(/\/+$/, "")}/.well-known/jwks.json`;
  return createSessions({ issuer, jwksUrl, authorizedParties, now, log });
}

/** Starts to listen and resolves with the URL. If the address cannot be used, the error names the setting to change. */
async function listenOn(http: HttpServer, at: { host: string; port: number; setting: string }): Promise<string> {
  const port = await http.listen(at.host, at.port).catch((error: unknown) => {
    throw listenProblem(error, at);
  });
  return `http://${hostInUrl(at.host)}:${port}`;
}
