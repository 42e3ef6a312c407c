import assert from "node:assert/strict";
import { test } from "node:test";
import {
  formatObjectKey,
  installationPrefix,
  keyBounds,
  markerKey,
  newObjectKey,
  OBJECT_PLACES,
  parseObjectKey,
  placeOfKey,
  uploadIdOfKey,
} from "../../lib/books/object_keys.ts";
import { newId } from "../../lib/ids.ts";

const INSTALLATION_ID = "0123456789abcdef";

test("a new key has all its parts, and no other key of the upload is the same", () => {
  const uploadId = newId();
  for (const place of OBJECT_PLACES) {
    const key = newObjectKey(place, INSTALLATION_ID, uploadId);
    const parts = parseObjectKey(key);
    assert.ok(parts);
    assert.deepEqual({ ...parts, random: "" }, { place, installationId: INSTALLATION_ID, uploadId, random: "" });
    assert.equal(formatObjectKey(parts), key);
    assert.equal(placeOfKey(key), place);
    assert.ok(key.startsWith(installationPrefix(place, INSTALLATION_ID)));
    assert.notEqual(newObjectKey(place, INSTALLATION_ID, uploadId), key);
  }
});

test("no other text is taken for a key", () => {
  const key = newObjectKey("final", INSTALLATION_ID, newId());
  const texts = ["", "final", markerKey(INSTALLATION_ID), ` ${key}`, `${key}\n`, `${key}0`, key.slice(0, -1)];
  texts.push(key.toUpperCase(), key.replace("final", "finale"), key.replace("final", "tmp"), key.replace("/", "//"));
  texts.push(key.replace(INSTALLATION_ID, ".."), `final/../${key}`, `/${key}`);
  for (const text of texts) assert.equal(uploadIdOfKey(text), null, JSON.stringify(text));
});

test("the bounds of an upload hold its keys and no other upload's", () => {
  const uploadId = newId();
  const { from, to } = keyBounds("staging", INSTALLATION_ID, uploadId);
  const isInside = (key: string): boolean => from < key && key < to;
  assert.ok(isInside(newObjectKey("staging", INSTALLATION_ID, uploadId)));
  assert.ok(!isInside(newObjectKey("final", INSTALLATION_ID, uploadId)));
  assert.ok(!isInside(newObjectKey("staging", INSTALLATION_ID, newId())));
});
