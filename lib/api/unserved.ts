const API = "/api/v1/";

/** Areas of the published OnePin API that are not about files, by what a path begins with below `API`. */
const AREAS = [
  "api-keys",
  "dictionary",
  "nodes",
  "providers",
  "templates",
  "voices",
  "workflows/name-availability",
  "workflows/validate",
  "workspaces/invites",
  "workspaces/slug-available",
  "users/me/notification-preferences",
  "users/me/templates",
];
/** Parts of a workflow and of a workspace, below its id. */
const PARTS: Record<string, readonly string[]> = {
  workflows: ["duplicate", "estimate", "markdown", "runs"],
  workspaces: ["billing", "invites", "subscription"],
};

/** Explains the absence of a path that is in the published OnePin API and not here; null for any other path. */
export function explainUnserved(path: string): string | null {
  if (!path.startsWith(API)) return null;
  const local = path.slice(API.length);
  const [noun = "", , part = ""] = local.split("/");
  const isKnown =
    AREAS.some((area) => local === area || local.startsWith(`${area}/`)) ||
    (Object.hasOwn(PARTS, noun) && PARTS[noun]?.includes(part) === true);
  if (!isKnown) return null;
  return "this part of the OnePin API is not served here, because Stowage stores files and runs nothing";
}
