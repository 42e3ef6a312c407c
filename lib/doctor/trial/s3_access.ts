import { publicAdvice, separateKeysAdvice } from "./advice.ts";
import { describeResponse, sendRequest } from "./request.ts";
import { type S3Trial, SECRET } from "./s3_trial.ts";

/** Checks that nobody who knows only an object's key can read it. */
export async function checkUnsigned({ report, config, ...trial }: S3Trial, final: string): Promise<void> {
  const check = "unsigned request";
  const got = await sendRequest(trial.getUrl(final, "a.txt").replace(/\?.*/, ""), { method: "GET" });
  if (got.body !== SECRET) return report.ok(check, `refused (${describeResponse(got)})`);
  report.problem(check, "everyone may read the bucket, without a signature", {
    advice: publicAdvice(trial.make(), config),
  });
}

/** Checks that an upload URL cannot be made to copy another object: see the S3 notes in the documentation. */
export async function checkSmuggled({ report, config, ...trial }: S3Trial, final: string): Promise<void> {
  const check = "smuggled copy";
  const key = trial.stagingKey();
  const got = await trial.put(trial.putUrl(key), {
    headers: { "x-amz-copy-source": `/${config.s3Bucket}/${final}` },
  });
  const advice = separateKeysAdvice(trial.make(), config);
  if (((await trial.sizeOf(key)) ?? 0) > 0) {
    return report.problem(
      check,
      "whoever has an upload URL and knows another object's key can copy that object into an upload of theirs",
      { advice },
    );
  }
  report.ok(check, got.status < 300 ? "not made" : `refused (${describeResponse(got)})`);
  if (config.s3UploadAccessKey === null && trial.make() === "MinIO") {
    report.note(check, "upload URLs are signed with the main key, and something before MinIO refuses the copy", {
      advice,
    });
  }
}
