// Loaded into the real program before it starts (`node --import`), so that a test can hold it at the embedded store, and
// need not wait for its longest time-outs. Two variables say what to do:
//   MATRIX_STORE_GATE=PATH  while this file exists, no call that opens, looks at or links an object begins; each call that
//                           is held adds a byte to PATH.held
//   MATRIX_HASTE=N          time-outs of ten seconds and more take an Nth of their time
import { appendFileSync, existsSync } from "node:fs";
import fs from "node:fs/promises";
import http from "node:http";
import { syncBuiltinESMExports } from "node:module";
import { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

const GATE_LOOK_MS = 5;
const LONG_MS = 10_000;

const { MATRIX_STORE_GATE: gate, MATRIX_HASTE: haste } = process.env;
if (gate !== undefined) holdStore(gate);
if (haste !== undefined) hurry(Number(haste));
syncBuiltinESMExports();

function holdStore(gate: string): void {
  for (const name of ["open", "stat", "link"] as const) {
    const before = fs[name];
    Object.assign(fs, {
      async [name](...args: unknown[]) {
        if (/\/objects\/(staging|final|tmp)\//.test(String(args[0])) && existsSync(gate)) {
          appendFileSync(`${gate}.held`, ".");
          while (existsSync(gate)) await delay(GATE_LOOK_MS);
        }
        return Reflect.apply(before, fs, args);
      },
    });
  }
}

function hurry(times: number): void {
  const shorter = (ms: unknown): unknown => (typeof ms === "number" && ms >= LONG_MS ? ms / times : ms);
  for (const name of ["setTimeout", "setInterval"] as const) {
    const before = globalThis[name];
    const after = (work: unknown, ms: unknown, ...rest: unknown[]): unknown =>
      Reflect.apply(before, globalThis, [work, shorter(ms), ...rest]);
    // What the timers module hangs on it (a way to make a promise of it) stays there.
    Object.defineProperties(after, Object.getOwnPropertyDescriptors(before));
    Object.assign(globalThis, { [name]: after });
  }
  const ofSocket = Socket.prototype.setTimeout;
  Socket.prototype.setTimeout = function (ms, onTimeout) {
    return ofSocket.call(this, Number(shorter(ms)), onTimeout);
  };
  const { createServer } = http;
  Object.assign(http, {
    createServer: (options: http.ServerOptions, ...rest: unknown[]) =>
      Reflect.apply(createServer, http, [
        { ...options, headersTimeout: shorter(options.headersTimeout), connectionsCheckingInterval: 500 },
        ...rest,
      ]),
  });
}
