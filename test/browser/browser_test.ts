import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { type TestContext, test } from "node:test";
import { startAppOn } from "../help/each_store.ts";
import { skipLoudly } from "../help/loud_skip.ts";

// Goal: pages of another origin can do everything that a client does, with the libraries that people use and their defaults.
// Method: a real Chromium, which enforces CORS, on a page of another origin than the service; on the embedded store and on MinIO.

const CHROMIUM = "/usr/bin/chromium";
// Installed apart from the other packages: 50 MB that no other test needs.
const MODULES = new URL("node_modules/", import.meta.url);
const SCRIPTS = ["uppy/dist/uppy.min.js", "dropzone/dist/dropzone-min.js", "axios/dist/axios.min.js"];

/** What the test uses of playwright-core. */
interface Playwright {
  chromium: {
    launch: (options: { executablePath: string; args: string[] }) => Promise<{
      newPage: () => Promise<{
        goto: (url: string) => Promise<unknown>;
        evaluate: (script: string) => Promise<unknown>;
      }>;
      close: () => Promise<void>;
    }>;
  };
}

const CLIENTS = ["fetch", "xhr", "uppyAwsS3", "uppyXhr", "dropzone", "axios"];
const TEXT = "0123456789".repeat(20_000);

for (const store of ["disk", "minio"] as const) {
  test(`a page of another origin: create, PUT, confirm, list, download, delete: ${store}`, async (t) => {
    const evaluate = await openPage(t);
    if (evaluate === null) return;
    const started = await startAppOn(t, store, { env: { STOWAGE_CORS_ORIGINS: evaluate.origin } });
    if (started === null) return;
    const { app, owner } = started;
    const target = { url: app.url, key: owner.key, workspaceId: owner.workspaceId };
    for (const client of CLIENTS) {
      await t.test(client, async () => {
        const { requestId, ...seen } = Object(await evaluate.run("life", { ...target, client, text: TEXT }));
        assert.match(requestId, /^[0-9A-Z]{26}$/);
        assert.deepEqual(seen, {
          statuses: [201, 200, 200, 206, 200],
          sizeBytes: TEXT.length,
          total: 1,
          part: "123",
          contentRange: `bytes 1-3/${TEXT.length}`,
          acceptRanges: "bytes",
        });
      });
    }
    await t.test("a typo is a response that the page can read", async () => {
      const seen = await evaluate.run("mistakes", target);
      assert.deepEqual(seen, [
        [404, "NOT_FOUND"],
        [405, "METHOD_NOT_ALLOWED"],
      ]);
    });
  });
}

/** A page of an origin of its own in a browser; null if this machine has none. */
async function openPage(t: TestContext) {
  const missing = [...SCRIPTS, "playwright-core"].filter((name) => !existsSync(new URL(name, MODULES)));
  if (!existsSync(CHROMIUM) || missing.length > 0) {
    const how = "apt-get install chromium; npm ci --prefix test/browser";
    skipLoudly(t, "Chromium, or a library that drives it or runs in it, is not installed", how);
    return null;
  }
  const files = new Map([
    ["/", { type: "text/html", text: `<!doctype html>${scriptTags()}` }],
    ["/page.js", script(new URL("page.js", import.meta.url))],
    ...SCRIPTS.map((name) => [`/${name}`, script(new URL(name, MODULES))] as const),
  ]);
  const server = createServer((req, res) => {
    const file = files.get(req.url ?? "");
    if (file === undefined) return void res.writeHead(404).end();
    res.writeHead(200, { "Content-Type": `${file.type}; charset=utf-8` }).end(file.text);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  const origin = `http://127.0.0.1:${address.port}`;
  // Not a literal: it need not be installed for the types to be checked.
  const playwright = "playwright-core";
  const { chromium }: Playwright = await import(playwright);
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  t.after(() => browser.close());
  const page = await browser.newPage();
  await page.goto(`${origin}/`);
  return {
    origin,
    run: (name: string, argument: object) => page.evaluate(`${name}(${JSON.stringify(argument)})`),
  };
}

function scriptTags(): string {
  return [...SCRIPTS, "page.js"].map((name) => `<script src="/${name}"></script>`).join("");
}

function script(path: URL) {
  return { type: "text/javascript", text: readFileSync(path, "utf8") };
}
