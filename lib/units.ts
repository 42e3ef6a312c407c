// Sizes, durations and rates as people write them, in settings and on the command line.

const SIZE_UNITS = new Map([
  ["", 1n],
  ["b", 1n],
  ["kb", 10n ** 3n],
  ["mb", 10n ** 6n],
  ["gb", 10n ** 9n],
  ["tb", 10n ** 12n],
  ["kib", 2n ** 10n],
  ["mib", 2n ** 20n],
  ["gib", 2n ** 30n],
  ["tib", 2n ** 40n],
]);
const SECONDS_BY_UNIT = new Map([
  ["", 1n],
  ["s", 1n],
  ["m", 60n],
  ["min", 60n],
  ["h", 3_600n],
  ["d", 86_400n],
]);
/** Up to three decimals, so that `1.5GiB` can be written. */
const QUANTITY = /^(\d{1,16})(?:\.(\d{1,3}))? ?([A-Za-z]*)$/;

/** For messages about a size that cannot be read. */
export const SIZE_SYNTAX = "a number of bytes, or a size such as 500MB or 10GiB";
/** For messages about a duration that cannot be read. */
export const DURATION_SYNTAX = "a number of seconds, or a time such as 90s, 15m, 24h or 7d";

/** Bytes of a size such as `10GiB`, `5 GB` or `1048576`; null if the text is not a whole number of bytes. */
export function parseSize(text: string): number | null {
  return parseQuantity(text, SIZE_UNITS);
}

/** Seconds of a duration such as `15m`, `24h` or `900`; null if the text is not a whole number of seconds. */
export function parseSeconds(text: string): number | null {
  return parseQuantity(text, SECONDS_BY_UNIT);
}

/** Requests per minute of a rate such as `10/s`, `3000/h`, `600/min` or `600`; null if the text is not a whole number of them. */
export function parseRatePerMin(text: string): number | null {
  const [, count, unit = "min"] = /^(\d{1,12})(?:\/(s|min|h))?$/.exec(text) ?? [];
  if (count === undefined) return null;
  if (unit === "h") return Number(count) % 60 === 0 ? Number(count) / 60 : null;
  return Number(count) * (unit === "s" ? 60 : 1);
}

/** Bytes per 10 seconds of a rate such as `1KiB/s` or, without a time, `10240`; null if the text is not a whole number of them. */
export function parseBytesPer10s(text: string): number | null {
  const [, size = "", isPerSecond] = /^([^/]*)(\/s)?$/.exec(text) ?? [];
  const bytes = parseSize(size);
  if (bytes === null || isPerSecond === undefined) return bytes;
  return Number.isSafeInteger(bytes * 10) ? bytes * 10 : null;
}

/** A size in both forms, such as `10 GiB (10737418240 bytes)`. Below 1 KiB it is in bytes alone. */
export function formatSize(bytes: number): string {
  const unit = ["TiB", "GiB", "MiB", "KiB"].find((name) => bytes >= Number(SIZE_UNITS.get(name.toLowerCase())));
  if (unit === undefined) return `${bytes} bytes`;
  const value = bytes / Number(SIZE_UNITS.get(unit.toLowerCase()));
  return `${Number(value.toFixed(2))} ${unit} (${bytes} bytes)`;
}

/** Exact: binary fractions would turn some sizes into another number of bytes. */
function parseQuantity(text: string, units: ReadonlyMap<string, bigint>): number | null {
  const [, whole, decimals = "", unit = ""] = QUANTITY.exec(text) ?? [];
  const factor = units.get(unit.toLowerCase());
  if (whole === undefined || factor === undefined) return null;
  const thousandths = BigInt(whole + decimals.padEnd(3, "0")) * factor;
  const value = Number(thousandths / 1_000n);
  return thousandths % 1_000n === 0n && Number.isSafeInteger(value) ? value : null;
}
