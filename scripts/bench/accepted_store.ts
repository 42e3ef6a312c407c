import { readConfig } from "../../lib/config/config.ts";
import { acceptAsItIs } from "../../lib/doctor/accept.ts";
import { withParts } from "../../lib/doctor/doctor.ts";
import { createLog } from "../../lib/log.ts";
import { StoreError } from "../../lib/store/objects.ts";

/**
 * Most rows of a seed have no objects, so the service would take any store for another than its own. It is accepted as it
 * is, as `doctor --accept-store` does. A store that does not respond stays unknown to the service.
 */
export async function acceptStore(dataDir: string, env: Record<string, string>): Promise<void> {
  const config = readConfig({ STOWAGE_DATA_DIR: dataDir, ...env });
  const log = createLog({ level: "silent", write: () => {} });
  await withParts({ config, log }, async (parts) => {
    try {
      await parts.objects.prepare({ makes: true });
      await acceptAsItIs(parts, "store", Date.now);
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
    }
  });
}
