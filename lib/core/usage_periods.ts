/**
 * Local days, weeks and months as spans of UTC. A local day is not always 24 hours long, does not always begin at 00:00,
 * and may be missing altogether (Samoa had no 30 December 2011): so each boundary is asked of the zone's own rules, which
 * Node brings with it (`Intl`), and never reckoned from another boundary.
 */

export const USAGE_RANGES = ["30d", "60d", "90d"] as const;
export type UsageRange = (typeof USAGE_RANGES)[number];

export const ACTIVITY_VIEWS = ["daily", "weekly", "monthly"] as const;
export type ActivityView = (typeof ACTIVITY_VIEWS)[number];

/** From `startMs` up to, and not including, `endMs`. */
export interface Span {
  startMs: number;
  endMs: number;
}

export interface LocalDay extends Span {
  /** YYYY-MM-DD in the zone. */
  date: string;
}

export interface ActivityBucket extends Span {
  label: string;
}

export interface ActivityPeriod {
  bucketUnit: "day" | "week" | "month";
  rangeLabel: string;
  /** Without gaps, the newest last; the one that `now` lies in is the last. */
  buckets: ActivityBucket[];
}

const DAY_MS = 86_400_000;
const DAYS_OF_RANGE = { "30d": 30, "60d": 60, "90d": 90 } satisfies Record<UsageRange, number>;
const VIEW_DAYS = 7;
const VIEW_WEEKS = 12;
const VIEW_MONTHS = 12;
const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Asking a zone's rules costs microseconds, and a chart has a hundred boundaries: answers are kept, but not without end. */
const ZONES_HELD_MAX = 100;
const STARTS_HELD_MAX = 1_000;
interface Zone {
  /** Writes a moment as the zone's clocks show it. */
  clock: Intl.DateTimeFormat;
  /** When local days begin. */
  starts: Map<Day, number>;
}
const zones = new Map<string, Zone>();

/** Whether this is the name of a time zone in the IANA database, such as Europe/Berlin. Offsets such as +01:00 are not. */
export function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/.test(name)) return false;
  try {
    zoneOf(name);
    return true;
  } catch {
    return false;
  }
}

/** The local days of a range, oldest first; today, whole, is the last. `timeZone` must be one. */
export function rangeDays(range: UsageRange, timeZone: string, nowMs: number): LocalDay[] {
  return lastDays(DAYS_OF_RANGE[range], timeZone, nowMs).map(({ day, ...span }) => ({ date: dateOf(day), ...span }));
}

/** The buckets of an activity chart: 7 local days, 12 weeks that begin on Monday, or 12 months. `timeZone` must be one. */
export function activityPeriod(view: ActivityView, timeZone: string, nowMs: number): ActivityPeriod {
  if (view === "daily") {
    const buckets = lastDays(VIEW_DAYS, timeZone, nowMs).map(({ day, ...span }) => ({
      label: WEEKDAYS[weekdayOf(day)] ?? "",
      ...span,
    }));
    return { bucketUnit: "day", rangeLabel: `Last ${VIEW_DAYS} days`, buckets };
  }
  const today = localDayOf(timeZone, nowMs);
  if (view === "weekly") {
    const thisMonday = today - weekdayOf(today);
    const mondays = Array.from({ length: VIEW_WEEKS + 1 }, (_, i) => thisMonday + 7 * (i - VIEW_WEEKS + 1));
    const buckets = spansBetween(mondays, timeZone).map(({ day, ...span }) => ({
      label: `Week ${isoWeekOf(day)}`,
      ...span,
    }));
    return { bucketUnit: "week", rangeLabel: `Last ${VIEW_WEEKS} weeks`, buckets };
  }
  const date = new Date(today * DAY_MS);
  const firsts = Array.from(
    { length: VIEW_MONTHS + 1 },
    (_, i) => Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + i - VIEW_MONTHS + 1, 1) / DAY_MS,
  );
  const buckets = spansBetween(firsts, timeZone).map(({ day, ...span }) => ({
    label: MONTHS[new Date(day * DAY_MS).getUTCMonth()] ?? "",
    ...span,
  }));
  return { bucketUnit: "month", rangeLabel: `Last ${VIEW_MONTHS} months`, buckets };
}

/** From the start of the first to the end of the last of spans without gaps. */
export function spanOf(spans: readonly Span[]): Span {
  return { startMs: spans[0]?.startMs ?? 0, endMs: spans.at(-1)?.endMs ?? 0 };
}

/** Calendar dates are counted as days since 1970-01-01, which knows nothing of zones. */
type Day = number;

function lastDays(count: number, timeZone: string, nowMs: number): (Span & { day: Day })[] {
  const today = localDayOf(timeZone, nowMs);
  return spansBetween(
    Array.from({ length: count + 1 }, (_, i) => today + i - count + 1),
    timeZone,
  );
}

/** The spans from each date to the next. */
function spansBetween(days: readonly Day[], timeZone: string): (Span & { day: Day })[] {
  const starts = days.map((day) => startOfDay(timeZone, day));
  return days.slice(0, -1).map((day, i) => ({ day, startMs: starts[i] ?? 0, endMs: starts[i + 1] ?? 0 }));
}

/** The first moment at which the date in the zone is `day`, or later where the zone never had that day. */
function startOfDay(timeZone: string, day: Day): number {
  const { starts } = zoneOf(timeZone);
  let startMs = starts.get(day);
  if (startMs === undefined) {
    startMs = findStartOfDay(timeZone, day);
    if (starts.size >= STARTS_HELD_MAX) starts.clear();
    starts.set(day, startMs);
  }
  return startMs;
}

function findStartOfDay(timeZone: string, day: Day): number {
  const utcMidnightMs = day * DAY_MS;
  const offset = offsetMs(timeZone, utcMidnightMs);
  const guessMs = utcMidnightMs - offset;
  if (offsetMs(timeZone, guessMs) === offset && localDayOf(timeZone, guessMs - 1) < day) return guessMs;
  // The clocks change near this midnight, or it never comes, or comes twice. No offset is a day long.
  let beforeMs = utcMidnightMs - DAY_MS;
  let afterMs = utcMidnightMs + DAY_MS;
  while (afterMs - beforeMs > 1) {
    const middleMs = Math.floor((beforeMs + afterMs) / 2);
    if (localDayOf(timeZone, middleMs) < day) beforeMs = middleMs;
    else afterMs = middleMs;
  }
  return afterMs;
}

function localDayOf(timeZone: string, atMs: number): Day {
  return Math.floor((atMs + offsetMs(timeZone, atMs)) / DAY_MS);
}

/** What the zone's clocks showed at this moment, less what UTC's did. */
function offsetMs(timeZone: string, atMs: number): number {
  const shown = zoneOf(timeZone).clock.format(atMs).match(/\d+/g)?.map(Number) ?? [];
  const [month = 1, day = 1, year = 1970, hour = 0, minute = 0, second = 0] = shown;
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(atMs / 1_000) * 1_000;
}

/** Throws a `RangeError` where there is no such zone. */
function zoneOf(timeZone: string): Zone {
  const name = timeZone.toLowerCase();
  let zone = zones.get(name);
  if (zone === undefined) {
    // The fields come in this locale's order: month, day, year, hour, minute, second.
    const clock = new Intl.DateTimeFormat("en-US", {
      timeZone,
      calendar: "gregory",
      numberingSystem: "latn",
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    });
    zone = { clock, starts: new Map() };
    if (zones.size >= ZONES_HELD_MAX) zones.clear();
    zones.set(name, zone);
  }
  return zone;
}

function dateOf(day: Day): string {
  return new Date(day * DAY_MS).toISOString().slice(0, 10);
}

/** 0 for Monday; 1970-01-01 was a Thursday. */
function weekdayOf(day: Day): number {
  return (((day + 3) % 7) + 7) % 7;
}

/** The number of the week that begins on this Monday, by ISO 8601: week 1 is the one with the year's first Thursday. */
function isoWeekOf(monday: Day): number {
  const thursday = monday + 3;
  const newYear = Date.UTC(new Date(thursday * DAY_MS).getUTCFullYear(), 0, 1) / DAY_MS;
  return Math.floor((thursday - newYear) / 7) + 1;
}
