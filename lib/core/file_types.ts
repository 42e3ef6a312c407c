import mime from "mime";
import { invalidField } from "../errors.ts";

/** Characters (code points) of a filename. */
const FILENAME_CHARS_MAX = 255;
/** Composing makes at most four code points one, each of two units: what is longer cannot become a name. */
const RAW_UNITS_MAX = FILENAME_CHARS_MAX * 4 * 2;

const SCRIPT_TYPES: ReadonlyMap<string, string> = new Map([
  ["txt", "text/plain"],
  ["pdf", "application/pdf"],
  ["srt", "application/x-subrip"],
  ["csv", "text/csv"],
  ["json", "application/json"],
  ["xliff", "application/xliff+xml"],
  ["docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"],
]);

const DICTIONARY_TYPES: ReadonlyMap<string, string> = new Map([
  ["mp3", "audio/mpeg"],
  ["wav", "audio/wav"],
  ["m4a", "audio/mp4"],
  ["ogg", "audio/ogg"],
  ["webm", "audio/webm"],
]);

export const CATEGORIES = ["script", "dictionary", "file"] as const;
export type Category = (typeof CATEGORIES)[number];

export interface FileType {
  /** The cleaned name: what is shown and what a download is saved as. Never part of a key or a path. */
  filename: string;
  contentType: string;
  /** The extension in lower case, or null where there is none. */
  format: string | null;
}

/**
 * Cleans a client's filename and derives the type from its extension; what the client says of the type is never used.
 * Throws `validation_error` with the allowed extensions where the category does not take this one.
 */
export function fileType(rawFilename: string, category: Category): FileType {
  const filename = cleanFilename(rawFilename);
  const extension = extensionOf(filename);
  if (category === "file") {
    const contentType = (extension === null ? null : mime.getType(extension)) ?? "application/octet-stream";
    return { filename, contentType, format: extension };
  }
  const types = category === "script" ? SCRIPT_TYPES : DICTIONARY_TYPES;
  const contentType = extension === null ? undefined : types.get(extension);
  if (contentType === undefined) {
    const allowed = [...types.keys()].map((name) => `.${name}`).join(", ");
    throw invalidField(
      "filename",
      `a ${category} must end in one of ${allowed}; for any other file use the category "file"`,
    );
  }
  return { filename, contentType, format: extension };
}

/** What follows the last dot, in lower case. A dot at the beginning hides a file: ".txt" has no extension, "a..txt" has. */
function extensionOf(filename: string): string | null {
  const dot = filename.lastIndexOf(".");
  const extension = filename.slice(dot + 1);
  const hasStem = dot > 0 && /[^.]/.test(filename.slice(0, dot));
  return hasStem && extension !== "" && !/\s/.test(extension) ? extension.toLowerCase() : null;
}

/**
 * Control characters, and those that reorder or hide text. Not the two joiners: words of several scripts and many emoji
 * are written with them.
 */
const UNWANTED = /[\p{Cc}\p{Zl}\p{Zp}[\p{Cf}--[\u200c\u200d]]]/gv;

/** Keeps the last part of a path, in Unicode's composed form, without what is unwanted and without space around it. */
function cleanFilename(raw: string): string {
  if (!raw.isWellFormed()) throw invalidField("filename", "must be valid Unicode: it has half of a surrogate pair");
  // Composing takes time that grows with the square of a run of combining marks: 1 s for 64 KB of them.
  const composed = raw.length > RAW_UNITS_MAX ? raw : raw.normalize("NFC");
  if ([...composed].length > FILENAME_CHARS_MAX) {
    throw invalidField("filename", `must have 1 to ${FILENAME_CHARS_MAX} characters`);
  }
  const filename = (composed.split(/[/\\]/).at(-1) ?? "").replace(UNWANTED, "").trim();
  if (!/[^.\s\u200c\u200d]/u.test(filename)) {
    throw invalidField("filename", `must be a name of 1 to ${FILENAME_CHARS_MAX} characters, such as "notes.txt"`);
  }
  return filename;
}
