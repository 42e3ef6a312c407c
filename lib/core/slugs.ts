import { randomInt } from "node:crypto";
import { invalidField } from "../errors.ts";

/** Characters of a slug; the schema's CHECK knows it too. */
export const SLUG_CHARS_MAX = 50;

const SLUG_PATTERN = /^[a-z0-9]+(-[a-z0-9]+)*$/;
/** What a name becomes of which no letter and no digit is left. */
const FALLBACK = "untitled";
const SUFFIX_CHARS = 6;
const SUFFIX_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz";

/** Words that an application has, or will have, under its root or in this API's paths: a slug must not stand in their place. */
const RESERVED = new Set(
  (
    "about account admin api app assets auth billing blog contact dashboard docs download health help home invite invites " +
    "legal login logout me metrics new null onboarding pricing privacy ready root security settings sign-in sign-up signin " +
    "signup slug-available static status stowage support system terms undefined upload uploads usage user users webhooks " +
    "workflow workflows workspace workspaces www"
  ).split(" "),
);

/** Throws `validation_error` where the text cannot be a slug. */
export function checkSlug(slug: string): void {
  if (slug.length < 1 || slug.length > SLUG_CHARS_MAX || !SLUG_PATTERN.test(slug)) {
    throw invalidField(
      "slug",
      `must have 1 to ${SLUG_CHARS_MAX} characters: lower-case letters and digits, with single hyphens between them`,
    );
  }
  if (RESERVED.has(slug)) throw invalidField("slug", `${JSON.stringify(slug)} is reserved: choose another`);
}

/** A slug made of a name: valid, never reserved, but perhaps taken. */
export function slugOf(name: string): string {
  const words = name
    .normalize("NFKD")
    .toLowerCase()
    // The marks that the decomposition has split off: é becomes e.
    .replace(/\p{M}+/gu, "")
    .replace(/[^a-z0-9]+/g, "-");
  const slug = trimmed(words, SLUG_CHARS_MAX);
  if (slug === "") return FALLBACK;
  return RESERVED.has(slug) ? withSuffix(slug) : slug;
}

/** The slug with a random end, for where it is taken: two billion of them leave no doubt. */
export function withSuffix(slug: string): string {
  let suffix = "";
  for (let i = 0; i < SUFFIX_CHARS; i++) suffix += SUFFIX_ALPHABET[randomInt(SUFFIX_ALPHABET.length)];
  return `${trimmed(slug, SLUG_CHARS_MAX - SUFFIX_CHARS - 1)}-${suffix}`;
}

/** Cut to a length, without hyphens at its ends. */
function trimmed(slug: string, chars: number): string {
  return slug.replace(/^-+/, "").slice(0, chars).replace(/-+$/, "");
}
