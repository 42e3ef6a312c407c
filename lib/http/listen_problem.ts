import { hostInUrl } from "../addresses.ts";
import { AppError } from "../errors.ts";

/** Says why an address cannot be listened on, and which setting to change. Other errors pass through. */
export function listenProblem(
  error: unknown,
  { host, port, setting = "STOWAGE_PORT" }: { host: string; port: number; setting?: string },
): unknown {
  if (!(error instanceof Error && "code" in error)) return error;
  const problem = (why: string, hint: string): AppError =>
    new AppError("conflict", `Cannot listen on ${hostInUrl(host)}:${port}: ${why}`, {
      hint,
      cause: error,
    });
  switch (error.code) {
    case "EADDRINUSE":
      return problem("another process uses this port", `stop it, or set ${setting} to another port`);
    case "EACCES":
      return problem("this user may not use this port", `set ${setting} to one of 1024 or higher`);
    case "EADDRNOTAVAIL":
    case "EAFNOSUPPORT":
    case "EINVAL":
      return problem("this machine has no such address", "set STOWAGE_HOST to one that it has, such as 127.0.0.1");
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return problem("the host name is not known", "set STOWAGE_HOST to an address of this machine, such as 127.0.0.1");
    default:
      return error;
  }
}
