export interface TextCounts {
  /** Code points of all lines, each without the white space at its ends. Blank lines and line ends count nothing. */
  charCount: number;
  /** Lines that have more than white space. */
  lineCount: number;
}

/** As Unicode defines it: unlike `\s` with U+0085 and without U+FEFF. */
const WHITE_SPACE = /\p{White_Space}/u;

/**
 * Counts the text of a file in UTF-8 (a byte order mark is tolerated) while it streams by: memory does not grow with the
 * file, nor with its longest line. Resolves with null where the bytes are not UTF-8. Rejects where the stream fails.
 */
export async function countText(bytes: AsyncIterable<Uint8Array>): Promise<TextCounts | null> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const counter = createCounter();
  for await (const chunk of bytes) {
    const text = decode(decoder, chunk);
    if (text === null) return null;
    counter.add(text);
  }
  const rest = decode(decoder, null);
  if (rest === null) return null;
  counter.add(rest);
  return counter.finish();
}

function decode(decoder: InstanceType<typeof TextDecoder>, chunk: Uint8Array | null): string | null {
  try {
    return chunk === null ? decoder.decode() : decoder.decode(chunk, { stream: true });
  } catch {
    return null;
  }
}

function createCounter() {
  let charCount = 0;
  let lineCount = 0;
  let inLine = false;
  // White space counts only once something follows it in the same line.
  let heldSpaces = 0;

  function add(text: string): void {
    for (let i = 0; i < text.length; i++) {
      const unit = text.charCodeAt(i);
      if (unit === 0x0a || unit === 0x0d) {
        inLine = false;
        heldSpaces = 0;
      } else if (unit <= 0x20 ? unit === 0x20 || unit === 0x09 || unit === 0x0b || unit === 0x0c : isWideSpace(unit)) {
        if (inLine) heldSpaces++;
      } else if (unit < 0xdc00 || unit > 0xdfff) {
        // The second half of a surrogate pair adds nothing: the first has counted the code point.
        if (!inLine) lineCount++;
        inLine = true;
        charCount += heldSpaces + 1;
        heldSpaces = 0;
      }
    }
  }

  return { add, finish: (): TextCounts => ({ charCount, lineCount }) };
}

function isWideSpace(unit: number): boolean {
  if (unit < 0x1680) return unit === 0x85 || unit === 0xa0;
  return WHITE_SPACE.test(String.fromCharCode(unit));
}
