/** An element of an XML answer: S3's answers have no attributes that matter and no mixed content. */
export interface XmlElement {
  name: string;
  /** What stands directly in the element, entities resolved. */
  text: string;
  children: XmlElement[];
}

/** Deeper than any S3 answer (four levels), shallow enough to stay a bounded amount of work. */
const DEPTH_MAX = 16;

const TOKEN = new RegExp(
  [
    "<\\?[^>]*\\?>", // declaration
    "<!--[\\s\\S]*?-->",
    "<!\\[CDATA\\[(?<cdata>[\\s\\S]*?)\\]\\]>",
    "<(?<close>/)?(?:[A-Za-z_][\\w.-]*:)?(?<name>[A-Za-z_][\\w.-]*)(?:\\s[^<>]*?)?(?<empty>/)?\\s*>",
    "(?<text>[^<]+)",
  ].join("|"),
  "y",
);

const ENTITIES: Record<string, string> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

/**
 * Reads a whole XML document and returns its root. Throws where the document is not complete, closed and well formed:
 * an answer that was cut short, or a proxy's page in its place, must never count as an answer. A library's parser is
 * made to accept such text, which is why this one is our own. Namespaces are dropped; a DTD is refused.
 */
export function parseXml(source: string): XmlElement {
  const document: XmlElement = { name: "", text: "", children: [] };
  const open = [document];
  TOKEN.lastIndex = 0;
  while (TOKEN.lastIndex < source.length) {
    const atChar = TOKEN.lastIndex;
    const token = TOKEN.exec(source)?.groups;
    const parent = open.at(-1);
    if (!token || !parent) throw new Error(`Cannot read the XML at character ${atChar}`);
    if (token.name === undefined) {
      const text = token.cdata ?? resolveEntities(token.text ?? "");
      if (parent !== document) parent.text += text;
      else if (text.replace("\ufeff", "").trim() !== "")
        throw new Error("Cannot read the XML: text outside of the root");
    } else if (token.close !== undefined) {
      if (parent.name !== token.name || token.empty !== undefined) {
        throw new Error(`Cannot read the XML: "${token.name}" is closed where "${parent.name}" is open`);
      }
      open.pop();
    } else {
      const element: XmlElement = { name: token.name, text: "", children: [] };
      parent.children.push(element);
      if (token.empty === undefined) open.push(element);
      if (open.length > DEPTH_MAX) throw new Error("Cannot read the XML: nested too deeply");
    }
  }
  const [root, second] = document.children;
  if (open.length !== 1) throw new Error(`Cannot read the XML: it ends while "${open.at(-1)?.name}" is open`);
  if (!root || second) throw new Error("Cannot read the XML: it must have one root element");
  return root;
}

/** The text of the first child with this name, or null. */
export function childText(element: XmlElement, name: string): string | null {
  return element.children.find((child) => child.name === name)?.text ?? null;
}

/** Text made safe to stand inside an element. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

function resolveEntities(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&(#x[0-9a-fA-F]{1,6}|#[0-9]{1,7}|\w+);|&/g, (whole, name: string | undefined) => {
    const resolved = name?.startsWith("#") ? fromCodePoint(name) : ENTITIES[name ?? ""];
    if (resolved === undefined) throw new Error(`Cannot read the XML: unknown entity "${whole}"`);
    return resolved;
  });
}

function fromCodePoint(name: string): string | undefined {
  const code = name.startsWith("#x") ? Number.parseInt(name.slice(2), 16) : Number.parseInt(name.slice(1), 10);
  return code <= 0x10ffff ? String.fromCodePoint(code) : undefined;
}
