import { CopyConditions } from "minio";
import { Client, fetch } from "undici";
import { startService } from "./children.ts";
import type { BenchContext } from "./context.ts";
import type { Seed } from "./data_dirs.ts";
import { median, printTable, type Target } from "./report.ts";
import type { BenchS3 } from "./s3_server.ts";

const CONFIRMS = 300;
/** Not counted: the first ones run before the code is compiled. */
const WARM_UPS = 100;
const FILE = Buffer.alloc(1_000);
/** Store calls that a confirm may make. The cleaner's calls have other names, except for the marker, which it reads at start. */
const CONFIRM_OPERATIONS = ["stat", "copy", "read", "list"];

/** Confirms one after the other, each in turn with a bare stat and a bare copy of an object of the same size. */
export async function measureConfirm({ scale }: BenchContext, s3: BenchS3, seed: Seed): Promise<Target[]> {
  const [workspace] = seed.workspaces;
  if (workspace === undefined) throw new Error("The seed has no workspace");
  const { workspaceId, key } = workspace;
  const service = await startService(seed.dataDir, s3.env);
  const client = new Client(service.url);
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const binding = JSON.stringify({ context_type: "workspace", context_id: workspaceId });

  async function post(path: string, body: string): Promise<unknown> {
    const response = await client.request({ method: "POST", path, headers, body });
    if (response.statusCode >= 300) throw new Error(`${path} was answered with ${response.statusCode}`);
    return await response.body.json();
  }

  async function newUpload(): Promise<string> {
    const { data } = (await post("/api/v1/uploads", JSON.stringify({ filename: "file.bin", category: "file" }))) as {
      data: { upload: { id: string }; upload_url: string };
    };
    const put = await fetch(data.upload_url, { method: "PUT", body: FILE });
    await put.text();
    if (put.status !== 200) throw new Error(`A PUT was answered with ${put.status}`);
    return data.upload.id;
  }

  async function confirm(id: string): Promise<number> {
    const startedMs = performance.now();
    await post(`/api/v1/uploads/${id}`, binding);
    return performance.now() - startedMs;
  }

  async function statAndCopy(i: number): Promise<number> {
    const { bare, bucket } = s3;
    const source = `confirm/${i}/staging`;
    await bare.putObject(bucket, source, FILE);
    const startedMs = performance.now();
    const { etag } = await bare.statObject(bucket, source);
    const conditions = new CopyConditions();
    conditions.setMatchETag(etag);
    await bare.copyObject(bucket, `confirm/${i}/final`, `/${bucket}/${source}`, conditions);
    return performance.now() - startedMs;
  }

  async function storeCalls(): Promise<number> {
    const response = await client.request({ method: "GET", path: "/metrics" });
    const page = await response.body.text();
    return CONFIRM_OPERATIONS.reduce((sum, operation) => sum + callsOf(page, operation), 0);
  }

  try {
    const count = Math.ceil(CONFIRMS * scale);
    for (let i = 0; i < WARM_UPS; i++) {
      await confirm(await newUpload());
      await statAndCopy(i);
    }
    const callsBefore = await storeCalls();
    const [ours, bare]: [number[], number[]] = [[], []];
    for (let i = 0; i < count; i++) {
      ours.push(await confirm(await newUpload()));
      bare.push(await statAndCopy(WARM_UPS + i));
    }
    const calls = (await storeCalls()) - callsBefore;
    printTable(
      ["confirm, 1 connection", "runs", "p50 ms", "bare stat + copy ms", "store calls each"],
      [["1,000 bytes", String(count), median(ours).toFixed(2), median(bare).toFixed(2), (calls / count).toFixed(2)]],
    );
    return [
      { name: "confirm on S3: store calls", measured: calls / count, goal: 3, kind: "max" },
      {
        name: "confirm on S3: p50, times a bare stat + copy",
        ...{ measured: median(ours) / median(bare), goal: 1.5, kind: "max" },
      },
    ];
  } finally {
    await client.close();
    await service.stop();
  }
}

/** How many calls the service's metrics count for an operation. */
function callsOf(page: string, operation: string): number {
  const lines = page.split("\n").filter((line) => line.startsWith("stowage_store_call_duration_seconds_count"));
  return lines
    .filter((line) => line.includes(`operation="${operation}"`))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}
