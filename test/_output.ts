import type { Readable } from "node:stream";

/** What a process has written so far; grows as more comes. */
export interface Output {
  stdout: string;
  stderr: string;
}

/** Reads what a process writes, as text, from now on. */
export function collectOutput(child: { stdout: Readable; stderr: Readable }): Output {
  const output: Output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      output[name] += text;
    });
  }
  return output;
}
