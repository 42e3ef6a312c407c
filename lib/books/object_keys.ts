import { randomHex } from "../ids.ts";

/** The part of the store that an object is in: `staging` holds what clients PUT, `final` what was confirmed. */
export type ObjectPlace = "staging" | "final";

export const OBJECT_PLACES: readonly ObjectPlace[] = ["staging", "final"];

/** An object key, taken apart. Together the parts are `place/installationId/uploadId/random`. */
export interface ObjectKeyParts {
  place: ObjectPlace;
  /** 16 hex digits. Keeps installations that share a bucket apart. */
  installationId: string;
  /** A UUID. One upload may have several objects. */
  uploadId: string;
  /** 32 hex digits, known only to those who hold a signed URL. */
  random: string;
}

const INSTALLATION_ID = "[0-9a-f]{16}";
const UPLOAD_ID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const RANDOM_BYTES = 16;
const RANDOM = `[0-9a-f]{${2 * RANDOM_BYTES}}`;

const STAGING_KEY = new RegExp(`^staging/(${INSTALLATION_ID})/(${UPLOAD_ID})/(${RANDOM})$`);
const FINAL_KEY = new RegExp(`^final/(${INSTALLATION_ID})/(${UPLOAD_ID})/(${RANDOM})$`);
const WHOLE_INSTALLATION_ID = new RegExp(`^${INSTALLATION_ID}$`);

/** A new key for one object of an upload. */
export function newObjectKey(place: ObjectPlace, installationId: string, uploadId: string): string {
  return formatObjectKey({ place, installationId, uploadId, random: randomHex(RANDOM_BYTES) });
}

export function formatObjectKey({ place, installationId, uploadId, random }: ObjectKeyParts): string {
  return `${place}/${installationId}/${uploadId}/${random}`;
}

/** The parts of an object key; null if the text is not one. */
export function parseObjectKey(text: string): ObjectKeyParts | null {
  const place = placeOfKey(text);
  const [, installationId, uploadId, random] = (place === "staging" ? STAGING_KEY : FINAL_KEY).exec(text) ?? [];
  if (installationId === undefined || uploadId === undefined || random === undefined) return null;
  return { place, installationId, uploadId, random };
}

/** The place of an object key. Only for what is known to be one: everything outside of staging counts as final. */
export function placeOfKey(objectKey: string): ObjectPlace {
  return objectKey.startsWith(placePrefix("staging")) ? "staging" : "final";
}

/**
 * The final key of a staged object that is sealed: the same upload and the same random digits, so that one key tells the
 * other. An object that is copied gets new digits instead. Only for a staging key.
 */
export function sealedKeyOf(stagingKey: string): string {
  return placePrefix("final") + stagingKey.slice(placePrefix("staging").length);
}

/** The staging key that a sealed object was PUT to; null for a key that is not final. */
export function stagingKeyOfSealed(finalKey: string): string | null {
  const prefix = placePrefix("final");
  return finalKey.startsWith(prefix) ? placePrefix("staging") + finalKey.slice(prefix.length) : null;
}

/** The id of the upload that an object key names; null if the text is not an object key. */
export function uploadIdOfKey(text: string): string | null {
  return parseObjectKey(text)?.uploadId ?? null;
}

/** All keys of one place begin with this. Ends in a slash. */
export function placePrefix(place: ObjectPlace): string {
  return `${place}/`;
}

/** All keys of one installation in one place begin with this. Ends in a slash. */
export function installationPrefix(place: ObjectPlace, installationId: string): string {
  return `${place}/${installationId}/`;
}

/** Bounds, both excluded, between which all keys of one upload in one place lie, and no others. */
export function keyBounds(place: ObjectPlace, installationId: string, uploadId: string): { from: string; to: string } {
  const prefix = installationPrefix(place, installationId) + uploadId;
  // Zero is the character after the slash.
  return { from: `${prefix}/`, to: `${prefix}0` };
}

/** The key of the ledger's marker in a store that keeps it among the objects. It cannot be the key of an upload's object. */
export function markerKey(installationId: string): string {
  return `${installationPrefix("final", installationId)}ledger-marker`;
}

/** Throws a `TypeError` if the text cannot be an installation's id. */
export function checkInstallationId(text: string): void {
  if (!WHOLE_INSTALLATION_ID.test(text)) throw new TypeError(`Not an installation id: "${text}"`);
}
