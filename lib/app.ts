import { createAuth } from "./auth/auth.ts";
import { createRateLimit } from "./auth/rate_limit.ts";
import { createSessions, type Sessions } from "./auth/sessions.ts";
import type { Config } from "./config/config.ts";
import { type Core, openCore } from "./core/core.ts";
import { checkInitialised } from "./db/data_dir.ts";
import { directoryIdOf } from "./db/directory_id.ts";
import { createReserve } from "./db/reserve.ts";
import { takeServeLock } from "./db/serve_lock.ts";
import { toUnavailable } from "./db/sqlite_errors.ts";
import { AppError } from "./errors.ts";
import { listenProblem } from "./http/listen_problem.ts";
import { createHttpServer, type HttpOptions, type HttpServer } from "./http/server.ts";
import { trustedAddresses } from "./http/trusted_addresses.ts";
import type { Log } from "./log.ts";
import { type Cleaner, createCleaner } from "./operations/cleaner.ts";
import { createConfirm } from "./operations/confirm.ts";
import { createStoreGuard, type StoreGuard } from "./operations/store_guard.ts";
import { watchStore } from "./operations/store_watch.ts";
import { METRICS_PATH, metricsRoutes } from "./routes/metrics.ts";
import { createRoutes } from "./routes/routes.ts";
import { measuredStore } from "./store/measured_store.ts";
import { type ObjectStore, StoreError } from "./store/objects.ts";
import { openStore, type StoreOptions } from "./store/open_store.ts";
import { placeOf } from "./store/place.ts";

/** How often the times of keys' last use are written. */
const KEY_USES_FLUSH_MS = 60_000;

export interface AppOptions {
  config: Config;
  log: Log;
  now?: () => number;
  monotonicNow?: () => number;
  /** Called where the process must end because the database's state is unknown. */
  onFatal: (error: unknown) => void;
  /** False: the cleaner runs only when it is told to, pass by pass. */
  cleansInBackground?: boolean;
  /** Wraps the store, for tests that make it fail. */
  wrapStore?: (objects: ObjectStore) => ObjectStore;
  /** How long a confirm may take; by default from the store's own time-outs. */
  leaseMs?: (sizeBytes: number) => number;
  /** Time-outs and clock of an S3 store, for tests. */
  s3?: StoreOptions["s3"];
}

export interface App {
  /** What clients see. */
  url: string;
  /** Where Prometheus finds its page. */
  metricsUrl: string;
  core: Core;
  objects: ObjectStore;
  cleaner: Cleaner;
  guard: StoreGuard;
  /** Finishes requests in flight, stops the cleaner, closes the store and the database. */
  close: () => Promise<void>;
}

/**
 * Opens everything in order and serves; closes in reverse. The one place where the parts meet. Throws an `AppError` where
 * the data directory is missing, served by another process, or newer than the program.
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
  /** What closes the parts that are open, the newest last. */
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
    const core = openCore({
      config,
      log,
      now,
      migrate: true,
      onFatal,
      onFull: reserve.release,
      onGroup: metrics.onGroup,
    });
    closers.push(() => core.db.close());
    closers.push(() => core.unconfirmed.flushNotes().catch((error) => log.warn("staged_sizes_not_written", { error })));
    const { workspaces, rights, uploads, removals, idempotency, contexts, keys, users } = core;
    const installationId = workspaces.installationId();

    // Known only once the port is, where it was left to the system.
    let url = config.publicUrl ?? "";
    const store = await openStore({
      config,
      installationId,
      publicUrl: () => url,
      staging: core.staging,
      onS3Call: metrics.onStoreCall,
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
      ...{ objects, ledger: core.ledger, stores: core.stores, installationId, place: placeOf(config) },
      ...{ directory: directoryIdOf(config.dataDir), log, now, monotonicNow },
    });
    // Before anyone can create an upload: from then on a store without a record is another.
    await guard.noteIntended().catch((error) => log.warn("store_not_noted", { error }));
    if (config.store === "disk") await takeFolder({ config, guard, log });

    const uploadUrlTtlMs = config.uploadUrlTtlSeconds * 1000;
    const cleaner = createCleaner({
      removals,
      uploads,
      noteStaged: core.unconfirmed.noteStaged,
      times: core.times,
      idempotency,
      objects,
      backgroundMs: core.backgroundMs,
      guard,
      stagingPrefix: `staging/${installationId}/`,
      uploadUrlTtlMs,
      onRemovals: metrics.onRemovals,
      log,
      now,
      monotonicNow,
    });
    closers.push(() => cleaner.stop());

    const keyUses = setInterval(
      () => void keys.flushUses().catch((error) => log.warn("key_uses_not_written", { error })),
      KEY_USES_FLUSH_MS,
    );
    closers.push(async () => {
      clearInterval(keyUses);
      await keys.flushUses().catch((error) => log.warn("key_uses_not_written", { error }));
    });

    const confirm = createConfirm({
      ...{ uploads, contexts, workspaces, rights, removals, idempotency, objects, guard, now, log },
      maxUploadBytes: config.maxUploadBytes,
      ...(options.leaseMs === undefined ? {} : { leaseMs: options.leaseMs }),
    });
    const sessions = openSessions({ config, log, now });
    closers.push(() => sessions?.close());
    const metricsPage = metricsRoutes({
      ...{ metrics, totals: core.totals, logFigures: core.db.logFigures, log, now },
      isPaused: () => cleaner.pauseReason() !== null,
    });
    const routes = createRoutes({
      core,
      objects,
      confirm,
      cleaner,
      guard,
      objectRoutes: store.objectRoutes,
      config,
    });
    const serverOptions: Omit<HttpOptions, "routes"> = {
      ...createAuth({
        ...{ keys, users, workspaces, sessions, now },
        rateLimit: createRateLimit({ defaultPerMin: config.rateLimitPerMin, monotonicNow }),
      }),
      ownerOf: ({ workspaceId, userId }) => workspaceId ?? userId,
      explain: toUnavailable,
      describe: ({ apiKeyId, userId }) => (apiKeyId === null ? { user_id: userId } : { api_key_id: apiKeyId }),
      corsOrigins: config.corsOrigins,
      bodyBytesPer10sMin: config.uploadBytesPer10sMin,
      connectionsPerAddressMax: config.connectionsPerAddressMax,
      isTrustedAddress: trustedAddresses(config.trustedProxies),
      onAnswered: metrics.onAnswered,
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
    // Not before: a copy of the data directory that cannot even listen must take no bucket from its original.
    if (config.store === "s3") closers.push((await watchBucket({ objects, guard, log })).close);
    lock.announce(url);
    if (options.cleansInBackground !== false) {
      closers.push(guard.watch().close);
      cleaner.start();
    }
    if (!workspaces.hasAny()) {
      log.warn("no_workspace", { hint: "run `stowage init`: it makes one, with an API key" });
    }
    if (config.store === "s3") {
      // Nobody waits for it: it asks the store.
      const { warnOfMainKey } = await import("./doctor/main_key.ts");
      void warnOfMainKey(config, log);
    }
    log.info("listening", { url, ...(isApart ? { metrics_url: metricsUrl } : {}), store: config.store });
    return { url, metricsUrl, core, objects, cleaner, guard, close: closeAll };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** Asks the embedded store. Throws an `AppError` where its folder may not, or can never, be used. */
async function takeFolder({ config, guard, log }: { config: Config; guard: StoreGuard; log: Log }): Promise<void> {
  await guard.isCurrent().catch((error) => {
    if (!(error instanceof StoreError)) throw error;
    // A disk that is full or fails may mend itself: the cleaner asks again.
    if (error.failure !== "denied") return log.warn("store_unavailable", { failure: error.failure, error });
    const message = `Cannot use the objects in "${config.dataDir}": ${error.message}`;
    throw new AppError("storage_unavailable", message, { cause: error });
  });
}

/** Asks the S3 store, until it can be used. */
function watchBucket({ objects, guard, log }: { objects: ObjectStore; guard: StoreGuard; log: Log }) {
  return watchStore({
    log,
    async check() {
      // A listing, because its answer has a reason where it fails. A bucket that is missing is the guard's concern.
      await objects.probe().catch((error) => {
        if (!(error instanceof StoreError && error.failure === "bucket_missing")) throw error;
      });
      await guard.isCurrent();
    },
  });
}

/** Null where no issuer is configured: then only API keys are accepted. */
function openSessions({ config, log, now }: { config: Config; log: Log; now: () => number }): Sessions | null {
  const { clerkIssuer: issuer, clerkJwksUrl, clerkAuthorizedParties: authorizedParties } = config;
  if (issuer === null) return null;
  const jwksUrl = clerkJwksUrl ?? `${issuer.replace(/\/+$/, "")}/.well-known/jwks.json`;
  return createSessions({ issuer, jwksUrl, authorizedParties, now, log });
}

/** Starts to listen and resolves with the URL of the address; says which setting to change where it cannot be used. */
async function listenOn(http: HttpServer, at: { host: string; port: number; setting: string }): Promise<string> {
  const port = await http.listen(at.host, at.port).catch((error: unknown) => {
    throw listenProblem(error, at);
  });
  return `http://${at.host.includes(":") ? `[${at.host}]` : at.host}:${port}`;
}
