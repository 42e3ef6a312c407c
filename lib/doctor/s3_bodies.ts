import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { CHECKSUM_HEADER, checksumHeaderOf } from "../store/checksum.ts";
import { describeAnswer, sendCut } from "./request.ts";
import { CONTENT, type Trial } from "./trial.ts";

/** Some servers read nothing of a body that is far shorter; a proxy may take no more than 1 MiB. */
const CUT_BYTES = 512 * 1024;
/** A server may store what came only after the connection has ended. */
const SETTLE_MS = 1_000;
const SETTLE_CHECK_MS = 100;

/** Whether the store keeps what came of an upload whose client stopped half way. */
export async function checkCut({ report, ...trial }: Trial): Promise<void> {
  const check = "cut upload";
  const key = trial.stagingKey();
  const sent = Buffer.alloc(CUT_BYTES / 2);
  await sendCut(trial.putUrl(key), { announcedBytes: CUT_BYTES, sent });
  const keptBytes = await sizeWithin(SETTLE_MS, () => trial.sizeOf(key));
  if (keptBytes === null) return report.ok(check, "nothing of it is kept");
  report.note(check, `the store keeps ${keptBytes} of ${CUT_BYTES} bytes, as if they were the whole file`, {
    advice: [
      "let clients state size_bytes when they create an upload: a file that was cut is then refused when it is confirmed;",
      "or checksum_sha256: the store then keeps nothing of it. Without either a part may be confirmed as the whole.",
      ...(trial.make() === "versitygw" ? ["versitygw 1.8.0 does this (its issue 2414): use a later release"] : []),
    ].join("\n"),
  });
}

/** The size once there is one; null if there is none in all that time. */
async function sizeWithin(ms: number, sizeOf: () => Promise<number | null>): Promise<number | null> {
  for (let leftMs = ms; ; leftMs -= SETTLE_CHECK_MS) {
    const sizeBytes = await sizeOf();
    if (sizeBytes !== null || leftMs <= 0) return sizeBytes;
    await delay(SETTLE_CHECK_MS);
  }
}

/** Whether a URL that is signed for a checksum takes the bytes that have it, and no others. */
export async function checkChecksum({ report, ...trial }: Trial): Promise<void> {
  const check = "signed checksum";
  const key = trial.stagingKey();
  const checksumSha256 = createHash("sha256").update(CONTENT).digest("hex");
  const url = trial.putUrl(key, { checksumSha256 });
  const headers = { [CHECKSUM_HEADER]: checksumHeaderOf(checksumSha256) };
  const right = await trial.put(url, { body: CONTENT, headers });
  if (right.status !== 200) {
    return report.problem(check, `a PUT of the bytes whose checksum was signed is answered ${describeAnswer(right)}`, {
      advice: `a proxy must pass the header ${CHECKSUM_HEADER} on; if the store does not know it, clients must not state checksum_sha256`,
    });
  }
  const damaged = CONTENT.toUpperCase();
  for (const sent of [headers, {}]) await trial.put(url, { body: damaged, headers: sent });
  const other = { [CHECKSUM_HEADER]: checksumHeaderOf(createHash("sha256").update(damaged).digest("hex")) };
  await trial.put(url, { body: damaged, headers: other });
  if ((await trial.textOf(key)) === CONTENT) return report.ok(check, "other bytes are refused");
  report.problem(check, "the store takes other bytes than those whose checksum was signed", {
    advice: "a checksum that clients state proves nothing then: use another store",
  });
}
