import assert from "node:assert/strict";
import { test } from "node:test";
import { clientAddress } from "../../lib/http/client_address.ts";
import { trustedAddresses } from "../../lib/http/trusted_addresses.ts";
import { startTestApp } from "../help/app.ts";
import { keptLog, rawClient } from "../help/raw_http.ts";
import { until } from "../help/until.ts";

const isTrusted = trustedAddresses(["10.0.0.0/8", "fd00::/8"]);

test("the client is the rightmost address that is not a trusted proxy's", () => {
  const cases: [socket: string, headers: Record<string, string>, client: string][] = [
    ["203.0.113.9", {}, "203.0.113.9"],
    ["::ffff:203.0.113.9", {}, "203.0.113.9"],
    ["203.0.113.9", { "x-forwarded-for": "198.51.100.1" }, "203.0.113.9"],
    ["203.0.113.9", { forwarded: "for=198.51.100.1" }, "203.0.113.9"],
    ["10.0.0.1", {}, "10.0.0.1"],
    ["10.0.0.1", { "x-forwarded-for": "198.51.100.1" }, "198.51.100.1"],
    ["::ffff:10.0.0.1", { "x-forwarded-for": "198.51.100.1" }, "198.51.100.1"],
    ["10.0.0.1", { "x-forwarded-for": "192.0.2.66, 198.51.100.1" }, "198.51.100.1"],
    ["10.0.0.1", { "x-forwarded-for": "192.0.2.66,198.51.100.1 , 10.1.2.3" }, "198.51.100.1"],
    ["10.0.0.1", { "x-forwarded-for": "10.9.9.9, 10.1.2.3" }, "10.9.9.9"],
    ["10.0.0.1", { "x-forwarded-for": "192.0.2.66, unknown" }, "10.0.0.1"],
    ["10.0.0.1", { "x-forwarded-for": "192.0.2.66, , 10.1.2.3" }, "10.1.2.3"],
    ["10.0.0.1", { "x-forwarded-for": "" }, "10.0.0.1"],
    ["10.0.0.1", { "x-forwarded-for": '198.51.100.1", "msg":"request' }, "10.0.0.1"],
    ["10.0.0.1", { "x-forwarded-for": "198.51.100.1:4711" }, "198.51.100.1"],
    ["fd00::1", { "x-forwarded-for": "[2001:db8::1]:4711" }, "2001:db8::1"],
    ["fd00::1", { "x-forwarded-for": "2001:db8::1" }, "2001:db8::1"],
    ["10.0.0.1", { forwarded: 'For="[2001:db8::1]:4711";proto=https' }, "2001:db8::1"],
    ["10.0.0.1", { forwarded: "for=192.0.2.66, proto=https;for=198.51.100.1;by=10.0.0.1" }, "198.51.100.1"],
    ["10.0.0.1", { forwarded: "for=198.51.100.1, for=_hidden" }, "10.0.0.1"],
    ["10.0.0.1", { "x-forwarded-for": "198.51.100.1", forwarded: "for=192.0.2.66" }, "198.51.100.1"],
    ["", { "x-forwarded-for": "198.51.100.1" }, ""],
  ];
  for (const [socket, headers, client] of cases) {
    assert.equal(clientAddress(socket, headers, isTrusted), client, JSON.stringify([socket, headers]));
  }
});

test("the log has the client's address with each request, refused or not, for programs such as fail2ban", async (t) => {
  for (const [trusted, wanted] of [
    ["", "127.0.0.1"],
    ["127.0.0.1", "198.51.100.1"],
  ] as const) {
    const { log, lines, text } = keptLog();
    const { app, call } = await startTestApp(t, { env: { STOWAGE_TRUSTED_PROXIES: trusted }, log });
    const headers = { "X-Forwarded-For": "192.0.2.66, 198.51.100.1" };
    const { json } = await call("GET", "/api/v1/uploads", { key: `op_live_${"0".repeat(32)}`, headers });
    await until(() => text().includes('"request"'), "the request's line");
    const { status, address } = lines().find(({ request_id }) => request_id === json.meta.request_id);
    assert.deepEqual([status, address], [401, wanted]);

    const client = await rawClient(t, app.url);
    client.send("nonsense\r\n\r\n");
    assert.equal((await client.response()).status, 400);
    await until(() => text().includes("request_refused"), "the refusal's line");
    assert.equal(lines().find(({ msg }) => msg === "request_refused").address, "127.0.0.1");
  }
});
