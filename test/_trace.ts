import { readFileSync } from "node:fs";

/** A system call, with the places in the trace at which it began and ended. */
export interface TracedCall {
  name: string;
  /** As strace prints it: name, arguments, result. */
  text: string;
  began: number;
  ended: number;
}

/** The calls of a `strace -f` trace that have ended, in the order in which they began. */
export function readTrace(path: string): TracedCall[] {
  const open = new Map<string, TracedCall>();
  const calls: TracedCall[] = [];
  for (const [place, line] of readFileSync(path, "utf8").split("\n").entries()) {
    const [, thread, text] = /^(\d+) +(.*)$/.exec(line) ?? [];
    if (thread === undefined || text === undefined) continue;
    // Another thread's call came in between: strace then writes the beginning and the end on lines of their own.
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(text)?.[1];
    if (resumed !== undefined) {
      const call = open.get(thread);
      if (call === undefined) continue;
      open.delete(thread);
      call.text += resumed;
      call.ended = place;
      continue;
    }
    const name = /^(\w+)\(/.exec(text)?.[1];
    if (name === undefined) continue;
    const call: TracedCall = { name, text: text.replace(/ *<unfinished \.\.\.>$/, ""), began: place, ended: place };
    calls.push(call);
    if (!text.endsWith("<unfinished ...>")) continue;
    call.ended = Number.POSITIVE_INFINITY;
    open.set(thread, call);
  }
  return calls.filter(({ ended }) => Number.isFinite(ended));
}
