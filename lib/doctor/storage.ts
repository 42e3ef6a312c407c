import { findServer } from "../db/serve_lock.ts";
import { StoreError } from "../store/objects.ts";
import { s3Options } from "../store/open_store.ts";
import { type DoctorOptions, withParts } from "./doctor.ts";
import { createDoctorQueries } from "./queries.ts";
import { createReport, type Report } from "./report.ts";
import { checkDiskStorage } from "./storage_disk.ts";
import { checkS3Storage } from "./storage_s3.ts";
import { adviceOn } from "./store.ts";

/** Tries the store the way clients use it: through the public endpoint, with real URLs, on objects of its own. */
export async function runDoctorStorage(options: Omit<DoctorOptions, "fix" | "wrapStore">): Promise<Report> {
  const { config, now = Date.now } = options;
  const report = createReport();
  if (config.store === "s3") await tryS3(report, options);
  else {
    const server = findServer(config.dataDir);
    const publicUrl = config.publicUrl ?? server?.url ?? "";
    if (server === null || publicUrl === "") {
      report.add({
        ...{ check: "server", result: "unknown", what: `nothing serves "${config.dataDir}" at the moment` },
        advice: "the embedded store's URLs are served by `stowage serve`: start it, then run this again",
      });
      return report;
    }
    const withUrl = { ...options, config: { ...config, publicUrl } };
    await withParts(withUrl, async ({ core, objects, installationId }) => {
      const queries = createDoctorQueries(core.db);
      try {
        await checkDiskStorage(report, { config, objects, queries, installationId, publicUrl, now });
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        report.problem("store", error.message, { advice: adviceOn(error) });
      }
    });
  }
  return report;
}

async function tryS3(report: Report, options: Omit<DoctorOptions, "fix" | "wrapStore">): Promise<void> {
  const { config, log, now = Date.now } = options;
  const { createS3Store } = await import("../store/s3/objects_s3.ts");
  await withParts(options, async ({ core, installationId }) => {
    let lacksMultiDelete = false;
    const store = createS3Store({
      ...s3Options(config),
      now,
      log: {
        ...log,
        warn: (msg, fields) => {
          if (msg === "multi_delete_unsupported") lacksMultiDelete = true;
          else log.warn(msg, fields);
        },
      },
    });
    try {
      await checkS3Storage(report, {
        ...{ config, store, installationId, removals: core.removals, now },
        write: core.db.write,
        lacksMultiDelete: () => lacksMultiDelete,
      });
    } finally {
      await store.close();
    }
  });
}
