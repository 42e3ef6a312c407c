import { once } from "node:events";
import { createServer } from "node:net";
import { openApp } from "../app.ts";
import { hasDatabase } from "../books/sqlite/db/schema_version.ts";
import { type Config, listServiceLinks, readConfig } from "../config/config.ts";
import { AppError } from "../errors.ts";
import { listenProblem } from "../http/listen_problem.ts";
import type { Log } from "../log.ts";
import { StoreError } from "../store/objects.ts";
import { s3Options } from "../store/open_store.ts";
import type { Arguments, Command, Terminal } from "./command_line.ts";
import { firstSteps } from "./first_steps.ts";
import { createFirstWorkspace } from "./init.ts";
import { runUntilSignal } from "./run.ts";
import { stderrLog } from "./work.ts";

export const SERVE_COMMAND: Command = {
  name: "serve",
  example: "serve --init",
  usage: "[--init]",
  summary:
    "Serve the data directory until SIGTERM or SIGINT. --init: if there is none yet, create it with a first workspace and an API key, as `init` does, once the port and the store are known to work",
  options: { init: "boolean" },
  operands: [],
  run: serve,
};

async function serve(args: Arguments, { env, out }: Terminal): Promise<void> {
  const config = readConfig(env);
  const log = stderrLog(config);
  const links = listServiceLinks(env);
  if (links.length > 0) {
    const hint = "Kubernetes made these for a Service; `enableServiceLinks: false` in the pod's spec leaves them out";
    log.warn("service_links_ignored", { variables: links, hint });
  }
  if (args.flag("init") && !hasDatabase(config.dataDir)) {
    // A first run that fails later would have printed a key for nothing.
    await checkPort(config.host, config.port, "STOWAGE_PORT");
    if (config.metricsPort !== null) await checkPort(config.host, config.metricsPort, "STOWAGE_METRICS_PORT");
    if (config.store === "s3") await checkBucket(config, log);
    const first = await createFirstWorkspace(config, {
      name: "default",
      storageBytesQuota: config.defaultQuotaBytes,
    });
    out(firstSteps(config, first));
  }
  await runUntilSignal(log, (onFatal) => openApp({ config, log, onFatal }));
}

/** Throws `conflict` if the address cannot be listened on. */
async function checkPort(host: string, port: number, setting: string): Promise<void> {
  const server = createServer();
  try {
    server.listen(port, host);
    await once(server, "listening");
  } catch (error) {
    throw listenProblem(error, { host, port, setting });
  }
  server.close();
  await once(server, "close");
}

/** Throws `storage_unavailable` if the S3 server does not accept our requests. A missing bucket is created later. */
async function checkBucket(config: Config, log: Log): Promise<void> {
  const { createS3Store } = await import("../store/s3/objects_s3.ts");
  const objects = createS3Store({ ...s3Options(config), log, now: Date.now });
  try {
    await objects.probe();
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    if (error.failure === "bucket_missing") return;
    throw new AppError("storage_unavailable", `Cannot use the S3 server at ${config.s3Endpoint}: ${error.message}`, {
      hint: "see that it is running and that the STOWAGE_S3_… settings are right, then start again; nothing was created yet",
      cause: error,
    });
  } finally {
    await objects.close();
  }
}
