import type { Config } from "../../config/config.ts";
import { type ObjectStore, StoreError } from "../../store/objects.ts";
import { adviceOn } from "../objects.ts";
import type { Report } from "../report.ts";
import type { TrialAdvice } from "./advice.ts";
import { describeNoResponse, type Got, type Sent, sendRequest } from "./request.ts";

/** How long the URLs live that doctor makes and uses at once. */
const URL_LIFE_MS = 5 * 60_000;

/** The content that is uploaded and fetched again. */
export const CONTENT_TYPE = "text/plain";
export const CONTENT = "doctor of stowage";

export interface TrialOptions {
  config: Config;
  objects: ObjectStore;
  /** A key of the trial's own that a client may PUT to. */
  stagingKey: () => string;
  advice: TrialAdvice;
  /** Told of each response to a PUT. */
  onPut: (got: Got) => void;
  now: () => number;
}

export interface Trial extends Pick<TrialOptions, "config" | "stagingKey" | "advice"> {
  report: Report;
  putUrl: (key: string, options?: PutUrlWish) => string;
  getUrl: (key: string, filename: string) => string;
  put: (url: string, sent: Omit<Sent, "method">) => Promise<Got>;
  /** The size of the object as the service sees it; null if there is none. */
  sizeOf: (key: string) => Promise<number | null>;
  /** The bytes of a short object. */
  textOf: (key: string) => Promise<string>;
  /** Runs one check. If it fails, that is a finding too. Resolves with whether it found no problem. */
  attempt: (check: string, work: () => Promise<void>) => Promise<boolean>;
}

interface PutUrlWish {
  sizeBytes?: number | null;
  /** From now on; below 0, the URL has expired. */
  lifeMs?: number;
  checksumSha256?: string | null;
}

/** Makes the tools that the checks of a store share: real URLs, requests to them as clients make them, and the report. */
export function createTrial(report: Report, options: TrialOptions): Trial {
  const { config, objects, stagingKey, advice, onPut, now } = options;

  return {
    ...{ report, config, stagingKey, advice },
    putUrl: (key, { sizeBytes = null, lifeMs = URL_LIFE_MS, checksumSha256 = null } = {}) =>
      objects.presignPut(key, { contentType: CONTENT_TYPE, sizeBytes, checksumSha256, expiresAtMs: now() + lifeMs }),
    getUrl: (key, filename) =>
      objects.presignGet(key, { contentType: CONTENT_TYPE, filename, expiresAtMs: now() + URL_LIFE_MS }),
    async put(url, sent) {
      const headers = { "Content-Type": CONTENT_TYPE, ...sent.headers };
      const got = await sendRequest(url, { method: "PUT", ...sent, headers });
      onPut(got);
      return got;
    },
    sizeOf: async (key) => (await objects.stat(key))?.sizeBytes ?? null,
    async textOf(key) {
      const chunks: Buffer[] = [];
      for await (const chunk of await objects.read(key)) chunks.push(chunk);
      return Buffer.concat(chunks).toString();
    },
    async attempt(check, work) {
      const before = report.findings.length;
      try {
        await work();
      } catch (error) {
        const isOfStore = error instanceof StoreError;
        report.problem(check, isOfStore ? error.message : describeNoResponse(error), {
          advice: isOfStore ? adviceOn(error) : advice.noResponse,
        });
      }
      return report.findings.slice(before).every(({ result }) => result === "ok" || result === "note");
    },
  };
}
