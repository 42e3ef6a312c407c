// Takes one object through its life in a fresh folder and says after each step what has resolved. Run under strace by
// objects_disk_sync_test.ts:  node test/_disk_store_life.ts <objects folder> <staging key> <final key> <MiB>
import { writeSync } from "node:fs";
import { Readable } from "node:stream";
import { createLog } from "../lib/log.ts";
import { createDiskStore } from "../lib/store/disk/objects_disk.ts";
import { uncounted } from "./_disk_store.ts";

const [objectsDir = "", stagingKey = "", finalKey = "", mib = "0"] = process.argv.slice(2);
const store = createDiskStore({
  objectsDir,
  installationId: stagingKey.split("/")[1] ?? "",
  publicUrl: () => "http://127.0.0.1:8000",
  signingKey: Buffer.alloc(32),
  maxUploadBytes: 1024 ** 3,
  minFreeBytes: 0,
  staging: uncounted(() => "owner"),
  sweep: true,
  now: Date.now,
  log: createLog({ level: "silent", write: () => {} }),
});
await store.prepare({ makes: true });
writeSync(1, "opened\n");
const body = Readable.from(Array.from({ length: Number(mib) }, () => Buffer.alloc(1024 ** 2)));
const source = await store.receive(stagingKey, body, { sizeBytes: null, maxBytes: 1024 ** 3, contentLength: null });
writeSync(1, "received\n");
await store.promote(stagingKey, finalKey, { source, contentType: "text/plain" });
writeSync(1, "promoted\n");
await store.remove([stagingKey, finalKey]);
writeSync(1, "removed\n");
