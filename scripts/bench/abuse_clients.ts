// The abusive clients, in a process of their own. Together they try every abuse once; then each goes through all of them, in
// an order of its own, until the time is up.
import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { createRandom } from "../../test/_random.ts";
import { createAttacker } from "./abuse_attacker.ts";
import { type AbuseJob, type AbuseResult, type AbuseSpan, serveJobs } from "./abuse_protocol.ts";
import { ABUSES } from "./abuse_table.ts";

const CLIENTS = 32;
/** Between two abuses of a client, at most. */
const REST_MS_MAX = 200;

async function work(job: AbuseJob, interrupted: AbortSignal): Promise<AbuseResult> {
  const abuses = ABUSES.filter(({ name }) => job.names.includes(name));
  const lines = new Map(abuses.map(({ name }) => [name, { made: 0, outcomes: new Map<string, number>() }]));
  const running = new Set<string>();
  const spans: AbuseSpan[] = [];
  const begunMs = performance.now();
  const firstRound = createRandom(job.seed).some(abuses, abuses.length);
  const stop = AbortSignal.any([AbortSignal.timeout(job.durationMs), interrupted]);
  // Everything that waits listens to it.
  setMaxListeners(0, stop);

  async function client(number: number): Promise<void> {
    const random = createRandom(job.seed + 1000 * (number + 1));
    let outcomes = new Map<string, number>();
    const { attacker, letGo, close } = createAttacker(job, {
      ...{ number, stop },
      note: (outcome) => outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1),
    });
    let order: typeof abuses = [];
    while (!stop.aborted) {
      if (order.length === 0) order = random.some(abuses, abuses.length);
      const abuse = firstRound.pop() ?? order.pop();
      const line = lines.get(abuse?.name ?? "");
      if (abuse !== undefined && line !== undefined && !(abuse.alone === true && running.has(abuse.name))) {
        const startMs = performance.now() - begunMs;
        if (abuse.alone === true) running.add(abuse.name);
        outcomes = line.outcomes;
        line.made++;
        await abuse.run(attacker).catch((error) => attacker.note(`our own failure: ${error}`));
        letGo();
        if (running.delete(abuse.name)) spans.push({ name: abuse.name, startMs, endMs: performance.now() - begunMs });
      }
      await delay(random.integer(0, REST_MS_MAX));
    }
    await close();
  }

  await Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number)));
  return {
    spans,
    lines: [...lines].map(([name, { made, outcomes }]) => ({
      ...{ name, made },
      outcomes: [...outcomes].sort(([, a], [, b]) => b - a),
    })),
  };
}

serveJobs(work);
