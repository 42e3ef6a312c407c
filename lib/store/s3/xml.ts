/** An element of an XML response. S3's have no attributes that matter and no mixed content. */
export interface XmlElement {
  name: string;
  /** The text directly inside the element, with entities resolved. */
  text: string;
  children: XmlElement[];
}

/** Deeper than any S3 response (four levels), shallow enough to stay a bounded amount of work. */
const DEPTH_MAX = 16;

/** Far more than any S3 name has. Bounds the text that the pattern of names is applied to. */
const NAME_CHARS_MAX = 100;
/** The longest entity: `&#1114111;`. */
const ENTITY_CHARS_MAX = 10;

const NAME = /^[A-Za-z_][\w.-]*$/;
const ENTITIES: Record<string, string> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

/**
 * Reads a whole XML document and returns its root. Throws if the document is not complete and well formed: a response that was
 * cut short, or a proxy's page in its place, must never be taken for the store's. Parsers of libraries accept such text, which
 * is why this one is our own. Namespaces are dropped; a DTD is refused.
 *
 * Each character is passed a fixed number of times, whatever the text, because it comes from outside and blocks the event loop.
 */
export function parseXml(source: string): XmlElement {
  const document: XmlElement = { name: "", text: "", children: [] };
  const open = [document];
  let at = 0;

  /** Moves past the next `end` and returns the text before it. */
  function through(begin: number, end: string): string {
    const found = source.indexOf(end, begin);
    if (found === -1) throw new Error(`Cannot read the XML: no "${end}" follows character ${at}`);
    at = found + end.length;
    return source.slice(begin, found);
  }

  function addText(text: string): void {
    const parent = open.at(-1) ?? document;
    if (parent !== document) parent.text += text;
    else if (text.replace("\ufeff", "").trim() !== "") throw new Error("Cannot read the XML: text outside of the root");
  }

  while (at < source.length) {
    if (source[at] !== "<") {
      const next = source.indexOf("<", at);
      const text = source.slice(at, next === -1 ? source.length : next);
      addText(resolveEntities(text));
      at += text.length;
    } else if (source.startsWith("<?", at)) through(at + 2, "?>");
    else if (source.startsWith("<!--", at)) through(at + 4, "-->");
    else if (source.startsWith("<![CDATA[", at)) addText(through(at + 9, "]]>"));
    else if (source.startsWith("</", at)) {
      const name = localName(through(at + 2, ">").trimEnd());
      const closed = open.length > 1 ? open.pop() : undefined;
      if (closed?.name !== name) {
        throw new Error(`Cannot read the XML: "${name}" is closed while "${closed?.name ?? ""}" is open`);
      }
    } else {
      const tag = through(at + 1, ">");
      // A tag that was cut short would otherwise take the next one for an attribute.
      if (tag.includes("<")) throw new Error("Cannot read the XML: a tag is not closed");
      const trimmed = tag.trimEnd();
      const isEmpty = trimmed.endsWith("/");
      const name = localName(firstWord(isEmpty ? trimmed.slice(0, -1) : trimmed));
      const element: XmlElement = { name, text: "", children: [] };
      open.at(-1)?.children.push(element);
      if (!isEmpty) open.push(element);
      if (open.length > DEPTH_MAX) throw new Error("Cannot read the XML: nested too deeply");
    }
  }
  const [root, second] = document.children;
  if (open.length !== 1) throw new Error(`Cannot read the XML: it ends while "${open.at(-1)?.name}" is open`);
  if (!root || second) throw new Error("Cannot read the XML: it must have one root element");
  return root;
}

/** The name in a tag, without the attributes, which do not matter. */
function firstWord(tag: string): string {
  for (let i = 0; i < Math.min(tag.length, NAME_CHARS_MAX + 1); i++) {
    const char = tag.charCodeAt(i);
    if (char === 0x20 || (char >= 0x09 && char <= 0x0d)) return tag.slice(0, i);
  }
  return tag;
}

/** A name without its prefix. Throws if it cannot be a name. */
function localName(name: string): string {
  const [first = "", second, ...more] = name.length > NAME_CHARS_MAX ? [] : name.split(":");
  const isName = NAME.test(first) && (second === undefined || NAME.test(second)) && more.length === 0;
  if (!isName) throw new Error(`Cannot read the XML: ${JSON.stringify(name.slice(0, NAME_CHARS_MAX))} is no name`);
  return second ?? first;
}

/** The text of the first child with this name, or null. */
export function childText(element: XmlElement, name: string): string | null {
  return element.children.find((child) => child.name === name)?.text ?? null;
}

/** Escapes text for use inside an element. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

function resolveEntities(text: string): string {
  let resolved = "";
  let at = 0;
  for (let next = text.indexOf("&"); next !== -1; next = text.indexOf("&", at)) {
    const name = text.slice(next + 1, next + ENTITY_CHARS_MAX).split(";", 1)[0] ?? "";
    const char = name.startsWith("#")
      ? fromCodePoint(name)
      : Object.hasOwn(ENTITIES, name)
        ? ENTITIES[name]
        : undefined;
    if (char === undefined || text[next + 1 + name.length] !== ";") {
      throw new Error(`Cannot read the XML: unknown entity "&${name}"`);
    }
    resolved += text.slice(at, next) + char;
    at = next + name.length + 2;
  }
  return at === 0 ? text : resolved + text.slice(at);
}

function fromCodePoint(name: string): string | undefined {
  if (!/^#(x[0-9a-fA-F]{1,6}|[0-9]{1,7})$/.test(name)) return undefined;
  const code = name.startsWith("#x") ? Number.parseInt(name.slice(2), 16) : Number.parseInt(name.slice(1), 10);
  return code <= 0x10ffff ? String.fromCodePoint(code) : undefined;
}
