/** Servers whose own commands are known here. */
export type ServerMake = "MinIO" | "versitygw" | "Garage" | "another";

/** Tells by its responses which server it is. A proxy may hide it. */
export function makeOf(serverHeader: string | undefined, region: string): ServerMake {
  if (/^minio/i.test(serverHeader ?? "")) return "MinIO";
  if (/^versitygw/i.test(serverHeader ?? "")) return "versitygw";
  // It has no such header, and names its region after itself in every example.
  return serverHeader === undefined && region === "garage" ? "Garage" : "another";
}
