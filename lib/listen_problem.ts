import { AppError } from "./errors.ts";

/** Says why an address cannot be listened on, and which setting to change. Other errors pass through. */
export function listenProblem(error: unknown, { host, port }: { host: string; port: number }): unknown {
  if (!(error instanceof Error && "code" in error)) return error;
  const problem = (why: string, hint: string): AppError =>
    new AppError("conflict", `Cannot listen on ${host.includes(":") ? `[${host}]` : host}:${port}: ${why}`, {
      hint,
      cause: error,
    });
  switch (error.code) {
    case "EADDRINUSE":
      return problem("another process uses this port", "stop it, or set STOWAGE_PORT to another port");
    case "EACCES":
      return problem("this user may not use this port", "set STOWAGE_PORT to one of 1024 or higher");
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
