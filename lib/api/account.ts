import { PERMISSIONS } from "../books/permissions.ts";
import { type Operation, operation } from "./operation.ts";
import { CreditsOut, NO_CREDITS, PlanLimitsOut, presentLimits, presentPrincipal, WhoamiOut } from "./wire/account.ts";

/** The caller: identity and limits. */
export const accountOperations: readonly Operation[] = [
  operation({
    method: "GET",
    path: "/api/v1/auth/whoami",
    operationId: "whoami",
    summary: "Show what the credential is and may do",
    access: PERMISSIONS.identify,
    response: WhoamiOut,
    handle: ({ principal }) => ({ data: presentPrincipal(principal) }),
  }),

  operation({
    method: "GET",
    path: "/api/v1/users/me/limits",
    operationId: "getMyLimits",
    summary: "Show the limits that the caller is bound by",
    access: PERMISSIONS.readLimits,
    response: PlanLimitsOut,
    async handle({ principal: { workspaceId } }, { books, config }) {
      const workspace = workspaceId === null ? null : ((await books.workspaces.find(workspaceId)) ?? null);
      return { data: presentLimits(config, workspace) };
    },
  }),

  operation({
    method: "GET",
    path: "/api/v1/users/me/credits",
    operationId: "getMyCredits",
    summary: "Show the caller's credits: there are none here, and nothing costs any",
    access: PERMISSIONS.readLimits,
    response: CreditsOut,
    handle: () => ({ data: NO_CREDITS }),
  }),
];
