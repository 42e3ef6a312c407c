import type { Json } from "./_app.ts";
import type { World } from "./_connection_matrix_world.ts";
import type { Random } from "./_random.ts";
import { SECURITY_MATRIX } from "./_security_matrix.ts";

/** Things of each kind that are remembered, to be asked for again. */
const KNOWN_MAX = 40;
const OTHER_ID = "01890a5d-ac96-774b-bcce-b302099a8057";

/** Bytes of one request, as latin1 text, and whether something is missing at their end. */
export interface FuzzRequest {
  method: string;
  bytes: string;
}

type Kind = "upload" | "workflow" | "workspace" | "putUrl" | "getUrl";

/** What the service has answered with: without it nearly every request would meet a 404. */
export class Known {
  readonly #things: Record<Kind, string[]> = { upload: [], workflow: [], workspace: [], putUrl: [], getUrl: [] };

  constructor({ shared }: World) {
    this.#add("upload", shared.upload);
    this.#add("workflow", shared.workflow);
    this.#add("workspace", shared.workspace);
  }

  pick(random: Random, kind: Kind): string {
    return random.percent(5) ? OTHER_ID : (random.pick(this.#things[kind]) ?? OTHER_ID);
  }

  learn(text: string): void {
    if (!text.startsWith('{"data":')) return;
    const { data }: Json = JSON.parse(text);
    this.#add("putUrl", data?.upload_url);
    this.#add("upload", data?.upload?.id);
    this.#add("getUrl", data?.download_url);
    if (data?.slug !== undefined) this.#add("workspace", data.id);
    else if (data?.name !== undefined) this.#add("workflow", data.id);
  }

  #add(kind: Kind, thing: unknown): void {
    const things = this.#things[kind];
    if (typeof thing !== "string") return;
    things.push(thing);
    if (things.length > KNOWN_MAX) things.shift();
  }
}

const METHODS = [
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
  "TRACE",
  "PROPFIND",
  "CONNECT",
  "get",
  "FOO",
];
const ODD_TEXTS = [
  ...["%", "%00", "%2e%2e", "//", "/../", "?", "#", "\xe9", "\t", " ", "\\", ";", "%ff%fe", "*", "&&=", "\0", "\x7f"],
  ...["a".repeat(300), "-1", "0", "null", "'", '"', "\r", "http://x/", "[]", "%E2%82"],
];
const QUERIES = [
  ...[
    "limit=1",
    "limit=0",
    "limit=-1",
    "limit=1e9",
    "limit=x",
    "offset=99999999999999999999",
    "offset=1",
    "status=nope",
  ],
  ...[
    "status=pending",
    "range=30d",
    "timezone=Europe/Berlin",
    "timezone=%00",
    "limit=1&limit=2",
    "__proto__=1",
    "a[b]=c",
  ],
  ...["category=file", "context_id=", "upload_id=x", "cursor=abc", "activity_view=day", "=", "%=%", "q=%F0%9F%98%80"],
];
const ODD_HEADERS = [
  ...["X: a\0b", "No colon", "X : y", "Content-Length: 5", "Content-Length: -1", "Content-Length: 1, 2", "Host: other"],
  ...[
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Expect: 200-ok",
    "Upgrade: h2c",
  ],
  ...[
    "Connection: close",
    "Connection: keep-alive, X",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Range: bytes=0-0",
  ],
  ...[
    "Range: bytes=5-2",
    "Range: bytes=-0",
    "If-None-Match: *",
    "Content-Range: bytes 0-1/5",
    "If-Range: x",
    "\xff: \xff",
  ],
  ...[
    "Idempotency-Key: a",
    "Idempotency-Key: \xe9",
    `Idempotency-Key: ${"k".repeat(300)}`,
    "Origin: https://x.example",
  ],
  ...["X-Workspace-Id: x", `X-Workspace-Id: ${OTHER_ID}`, `X-Long: ${"x".repeat(17_000)}`, "Content-Encoding: gzip"],
  ...["Access-Control-Request-Method: PUT", "Accept: text/html", "Trailer: X", "TE: trailers", "Cookie: a=b", "X:"],
];
const TYPES = [
  "application/json",
  "application/json; charset=utf-8",
  "text/plain",
  "application/json; charset=x",
  "",
  "a/b/c",
];
const ODD_VALUES: readonly unknown[] = [
  ...[null, true, -1, 0, 1.5, 1e300, "", "\0", "x".repeat(2_000), [], {}, [[]], { a: 1 }, "\ud800", "../../etc/passwd"],
  ...[Number.MAX_SAFE_INTEGER, "CON.txt", "a\u202eb.txt", OTHER_ID, "workspace", { __proto__: null }],
];

/** Makes random requests, most of them nearly right: what is all wrong gets no further than the first check. */
export function createFuzzRequests(random: Random, world: World, known: Known) {
  const pick = <T>(items: readonly T[]): T => {
    const item = random.pick(items);
    if (item === undefined) throw new Error("Nothing to pick from");
    return item;
  };

  function altered(text: string): string {
    const at = random.integer(0, text.length);
    const end = Math.min(text.length, at + random.integer(0, 3));
    return text.slice(0, at) + (random.percent(70) ? pick(ODD_TEXTS) : "") + text.slice(end);
  }

  function authorization(by: "key" | "owner"): string[] {
    const right = by === "key" ? world.key : world.ownerToken;
    if (random.percent(85)) return [`Authorization: Bearer ${right}`];
    return pick([
      [],
      [`Authorization: Bearer ${altered(right)}`],
      [`Authorization: Basic ${right}`],
      [`authorization:Bearer   ${right}`],
      [`Authorization: Bearer ${by === "key" ? world.ownerToken : world.key}`],
      [`Authorization: Bearer ${right}`, "Authorization: Bearer x"],
      ["Authorization: Bearer"],
      [`Authorization: Bearer op_live_${"A".repeat(32)}`],
    ]);
  }

  /** A request that is right: its method, target, credential and body. */
  function right(): { method: string; target: string; headers: string[]; body: string } {
    const among = random.integer(1, 100);
    if (among <= 12) {
      const body = "b".repeat(random.integer(0, random.percent(10) ? 200_000 : 2_000));
      return { method: "PUT", target: localOf(known.pick(random, "putUrl")), headers: [], body };
    }
    if (among <= 20) {
      return { method: pick(["GET", "HEAD"]), target: localOf(known.pick(random, "getUrl")), headers: [], body: "" };
    }
    if (among <= 25) {
      return {
        method: "GET",
        target: pick(["/health", "/ready", "/metrics", "*", "/", "/objects/"]),
        headers: [],
        body: "",
      };
    }
    const row = pick(SECURITY_MATRIX);
    const [method = ""] = row.route.split(" ");
    const scene = {
      upload: known.pick(random, "upload"),
      deletedUpload: known.pick(random, "upload"),
      workflow: known.pick(random, "workflow"),
      workspace: known.pick(random, "workspace"),
      member: world.shared.member,
    };
    const headers = authorization(row.by);
    if (row.by === "owner" && random.percent(50)) headers.push(`X-Workspace-Id: ${scene.workspace}`);
    if (row.body === undefined) return { method, target: row.path(scene), headers, body: "" };
    headers.push(`Content-Type: ${random.percent(92) ? TYPES[0] : pick(TYPES)}`);
    return { method, target: row.path(scene), headers, body: jsonLike(row.body(scene)) };
  }

  function jsonLike(value: unknown): string {
    const among = random.integer(1, 100);
    if (among <= 65 || typeof value !== "object" || value === null) return JSON.stringify(value);
    if (among <= 80) {
      const name = random.percent(80)
        ? pick(Object.keys(value))
        : pick(["__proto__", "extra", "size_bytes", "toString"]);
      return JSON.stringify({ ...value, [name]: pick(ODD_VALUES) });
    }
    if (among <= 84) return JSON.stringify(pick(ODD_VALUES));
    if (among <= 90) return altered(JSON.stringify(value));
    if (among <= 93) return "[".repeat(random.integer(1, 500));
    if (among <= 95) return random.bytes(random.integer(0, 50)).toString("latin1");
    if (among <= 97) return JSON.stringify({ ...value, pad: "x".repeat(70_000) });
    return "";
  }

  /** The body with the headers that announce it, mostly as they should be. */
  function framed(body: string): { headers: string[]; text: string } {
    const among = random.integer(1, 100);
    if (body === "" && among <= 90) return { headers: [], text: "" };
    if (among <= 80) return { headers: [`Content-Length: ${body.length}`], text: body };
    if (among <= 92) return { headers: ["Transfer-Encoding: chunked"], text: chunked(body, "0\r\n\r\n") };
    if (among <= 95) {
      const end = pick([
        "zz\r\n",
        "-1\r\n",
        "5\r\nabc",
        "\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "0\r\nBad trailer\r\n\r\n",
      ]);
      return { headers: ["Transfer-Encoding: chunked"], text: chunked(body, end) };
    }
    if (among <= 97) {
      const length = pick(["-1", "abc", "+5", "1 2", "0x5", "", "99999999999999999999", String(body.length + 9)]);
      return { headers: [`Content-Length: ${length}`], text: body };
    }
    return { headers: [`Content-Length: ${Math.floor(body.length / 2)}`], text: body };
  }

  function chunked(body: string, end: string): string {
    let text = "";
    for (let at = 0; at < body.length; ) {
      const part = body.slice(at, at + random.integer(1, Math.max(1, body.length)));
      text += `${part.length.toString(16)}${random.percent(10) ? ";a=b" : ""}\r\n${part}\r\n`;
      at += part.length;
    }
    return text + end;
  }

  return function next(): FuzzRequest {
    const made = right();
    const method = random.percent(5) ? pick(METHODS) : made.method;
    let { target } = made;
    if (random.percent(12)) target += `${target.includes("?") ? "&" : "?"}${pick(QUERIES)}`;
    if (random.percent(12)) target = altered(target);
    const { headers, text } = framed(made.body);
    const lines = [...(random.percent(98) ? ["Host: fuzz"] : []), ...made.headers, ...headers];
    const odd = pick(ODD_HEADERS);
    // Of a request that offers another protocol node:http reports no malformed body: it stays until its time is over.
    const isUnseen = odd.includes("Upgrade:") && text !== made.body;
    if (random.percent(15) && !isUnseen) lines.splice(random.integer(0, lines.length), 0, odd);
    const version = random.percent(97)
      ? "HTTP/1.1"
      : pick(["HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", "", "http/1.1", "HTTP/1.9"]);
    return {
      method,
      bytes: `${method} ${target} ${version}\r\n${lines.map((line) => `${line}\r\n`).join("")}\r\n${text}`,
    };
  };
}

function localOf(url: string): string {
  if (!URL.canParse(url)) return `/objects/${url}`;
  const { pathname, search } = new URL(url);
  return pathname + search;
}
