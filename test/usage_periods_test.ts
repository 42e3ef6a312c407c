import assert from "node:assert/strict";
import { test } from "node:test";
import { activityPeriod, isTimeZone, rangeDays, type Span, spanOf } from "../lib/core/usage_periods.ts";

const HOUR_MS = 3_600_000;

const at = (text: string): number => Date.parse(text);
const utc = (ms: number): string => new Date(ms).toISOString().replace(":00.000Z", "Z");
const hours = ({ startMs, endMs }: Span): number => (endMs - startMs) / HOUR_MS;

/** The day of this date in the zone, as part of a range that ends five days later. */
function dayOf(date: string, timeZone: string) {
  const day = rangeDays("30d", timeZone, at(`${date}T12:00:00Z`) + 5 * 24 * HOUR_MS).find((day) => day.date === date);
  assert.ok(day, `${date} is among the days`);
  return day;
}

for (const { zone, date, start, length, why } of [
  { zone: "UTC", date: "2026-03-29", start: "2026-03-29T00:00Z", length: 24, why: "never changes its clocks" },
  {
    zone: "Europe/Berlin",
    date: "2026-03-28",
    start: "2026-03-27T23:00Z",
    length: 24,
    why: "the day before the change",
  },
  { zone: "Europe/Berlin", date: "2026-03-29", start: "2026-03-28T23:00Z", length: 23, why: "summer time begins" },
  {
    zone: "Europe/Berlin",
    date: "2026-03-30",
    start: "2026-03-29T22:00Z",
    length: 24,
    why: "the day after the change",
  },
  { zone: "Europe/Berlin", date: "2025-10-26", start: "2025-10-25T22:00Z", length: 25, why: "summer time ends" },
  { zone: "America/New_York", date: "2026-03-08", start: "2026-03-08T05:00Z", length: 23, why: "summer time begins" },
  { zone: "America/New_York", date: "2025-11-02", start: "2025-11-02T04:00Z", length: 25, why: "summer time ends" },
  { zone: "Australia/Lord_Howe", date: "2025-10-05", start: "2025-10-04T13:30Z", length: 23.5, why: "half an hour on" },
  {
    zone: "Australia/Lord_Howe",
    date: "2026-04-05",
    start: "2026-04-04T13:00Z",
    length: 24.5,
    why: "half an hour back",
  },
  { zone: "Asia/Kathmandu", date: "2026-03-29", start: "2026-03-28T18:15Z", length: 24, why: "5:45 ahead" },
  {
    zone: "Africa/Cairo",
    date: "2025-04-25",
    start: "2025-04-24T22:00Z",
    length: 23,
    why: "there is no midnight: it begins at 01:00",
  },
  {
    zone: "America/Havana",
    date: "2025-11-02",
    start: "2025-11-02T04:00Z",
    length: 25,
    why: "midnight comes twice: the first counts",
  },
  {
    zone: "Asia/Amman",
    date: "2021-10-29",
    start: "2021-10-28T21:00Z",
    length: 25,
    why: "the same, east of Greenwich",
  },
  {
    zone: "Pacific/Apia",
    date: "2011-12-29",
    start: "2011-12-29T10:00Z",
    length: 24,
    why: "the last day east of the date line",
  },
  { zone: "Pacific/Apia", date: "2011-12-30", start: "2011-12-30T10:00Z", length: 0, why: "this day never was" },
  { zone: "Pacific/Apia", date: "2011-12-31", start: "2011-12-30T10:00Z", length: 24, why: "the first day west of it" },
]) {
  test(`${date} in ${zone} begins at ${start} and has ${length} hours: ${why}`, () => {
    const day = dayOf(date, zone);
    assert.equal(utc(day.startMs), start);
    assert.equal(hours(day), length);
  });
}

test("today is the day that the zone's own calendar shows", () => {
  const nowMs = at("2026-05-01T10:30:00Z");
  const todayIn = (zone: string) => rangeDays("30d", zone, nowMs).at(-1)?.date;
  assert.equal(todayIn("UTC"), "2026-05-01");
  assert.equal(todayIn("Pacific/Apia"), "2026-05-01");
  assert.equal(todayIn("Pacific/Kiritimati"), "2026-05-02");
  assert.equal(todayIn("Pacific/Pago_Pago"), "2026-04-30");
  assert.equal(todayIn("europe/berlin"), "2026-05-01", "names are compared without regard to case");
});

test("a day's first millisecond belongs to it, its last one too, and the next does not", () => {
  const zone = "America/New_York";
  const { startMs, endMs } = dayOf("2025-11-02", zone);
  const dateAt = (ms: number) => rangeDays("30d", zone, ms).at(-1)?.date;
  assert.equal(dateAt(startMs - 1), "2025-11-01");
  assert.equal(dateAt(startMs), "2025-11-02");
  assert.equal(dateAt(endMs - 1), "2025-11-02");
  assert.equal(dateAt(endMs), "2025-11-03");
});

test("a range has its number of days, leap days included, and ends with today", () => {
  const dates = (range: "30d" | "60d" | "90d", now: string) => rangeDays(range, "UTC", at(now)).map(({ date }) => date);
  assert.deepEqual(
    [dates("30d", "2024-03-01T00:00:00Z").length, dates("60d", "2024-03-01T00:00:00Z").length],
    [30, 60],
  );
  assert.equal(dates("90d", "2026-03-01T23:59:59Z").length, 90);
  assert.deepEqual(dates("30d", "2024-03-01T05:00:00Z").slice(-3), ["2024-02-28", "2024-02-29", "2024-03-01"]);
  assert.deepEqual(dates("30d", "2025-03-01T05:00:00Z").slice(-3), ["2025-02-27", "2025-02-28", "2025-03-01"]);
  assert.equal(dates("30d", "2024-03-01T05:00:00Z")[0], "2024-02-01");
  assert.equal(dates("60d", "2025-01-15T05:00:00Z")[0], "2024-11-17");
});

test("the weekly view has 12 weeks that begin on Monday, named by their ISO number", () => {
  const weekly = (now: string, zone = "UTC") => activityPeriod("weekly", zone, at(now));
  const sunday = weekly("2026-05-03T23:59:59Z");
  assert.equal(sunday.bucketUnit, "week");
  assert.equal(sunday.rangeLabel, "Last 12 weeks");
  assert.equal(sunday.buckets.length, 12);
  assert.deepEqual(sunday.buckets.at(-1), { label: "Week 18", startMs: at("2026-04-27"), endMs: at("2026-05-04") });
  assert.equal(weekly("2026-05-04T00:00:00Z").buckets.at(-1)?.startMs, at("2026-05-04"));

  assert.deepEqual(
    weekly("2021-01-05T12:00:00Z")
      .buckets.slice(-2)
      .map(({ label }) => label),
    ["Week 53", "Week 1"],
  );
  assert.equal(weekly("2024-12-30T12:00:00Z").buckets.at(-1)?.label, "Week 1");
  // Of the 12 weeks in Berlin one is an hour short: the starts stay at local midnight.
  const berlin = weekly("2026-04-15T12:00:00Z", "Europe/Berlin").buckets;
  assert.deepEqual(
    berlin.map(hours).filter((length) => length !== 168),
    [167],
  );
  assert.equal(utc(berlin[0]?.startMs ?? 0), "2026-01-25T23:00Z");
});

test("the monthly view has 12 calendar months, also on the 31st and on leap days", () => {
  const monthly = (now: string, zone = "UTC") => activityPeriod("monthly", zone, at(now));
  const march = monthly("2026-03-31T23:00:00Z");
  assert.equal(march.bucketUnit, "month");
  assert.equal(march.rangeLabel, "Last 12 months");
  assert.deepEqual(
    march.buckets.map(({ label }) => label),
    ["Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb", "Mar"],
  );
  assert.deepEqual(
    march.buckets.map((month) => hours(month) / 24),
    [30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 28, 31],
  );
  const leap = monthly("2024-02-29T12:00:00Z").buckets;
  assert.equal(utc(leap[0]?.startMs ?? 0), "2023-03-01T00:00Z");
  assert.equal(hours(leap.at(-1) ?? { startMs: 0, endMs: 0 }), 29 * 24);
  // In New York it is still April.
  assert.equal(monthly("2026-05-01T03:59:59Z", "America/New_York").buckets.at(-1)?.label, "Apr");
  assert.equal(monthly("2026-05-01T04:00:00Z", "America/New_York").buckets.at(-1)?.label, "May");
});

test("the daily view has 7 local days, named by their weekday", () => {
  const { bucketUnit, rangeLabel, buckets } = activityPeriod("daily", "Asia/Kathmandu", at("2026-05-03T18:15:00Z"));
  assert.deepEqual([bucketUnit, rangeLabel], ["day", "Last 7 days"]);
  assert.deepEqual(
    buckets.map(({ label }) => label),
    ["Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Mon"],
  );
  assert.equal(utc(spanOf(buckets).endMs), "2026-05-04T18:15Z");
});

// Goal: whatever the zone does, no moment is lost between two buckets and none is in two.
// Method: ask another formatter of the platform for the date at each edge, in zones with every kind of oddity.
test("spans have no gaps, hold now in the last, and begin with their date, in every zone and season", () => {
  for (const zone of [
    ...["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"],
    ...["America/Havana", "Africa/Cairo", "Africa/Casablanca", "America/St_Johns", "Pacific/Chatham", "Asia/Beirut"],
    ...["Antarctica/Troll", "America/Asuncion", "Pacific/Kiritimati", "Europe/Dublin"],
  ]) {
    const calendar = new Intl.DateTimeFormat("sv-SE", { timeZone: zone, dateStyle: "short" });
    for (let nowMs = at("2023-01-01T00:30:00Z"); nowMs < at("2026-01-01"); nowMs += 79 * 24 * HOUR_MS + 13 * HOUR_MS) {
      const days = rangeDays("90d", zone, nowMs);
      for (const spans of [
        days,
        ...(["daily", "weekly", "monthly"] as const).map((v) => activityPeriod(v, zone, nowMs).buckets),
      ]) {
        for (const [i, { startMs, endMs }] of spans.entries()) {
          assert.ok(startMs < endMs);
          assert.equal(spans[i + 1]?.startMs ?? endMs, endMs, `${zone}: no gap after ${utc(startMs)}`);
          assert.ok(
            calendar.format(startMs - 1) < calendar.format(startMs),
            `${zone}: a date begins at ${utc(startMs)}`,
          );
        }
        const last = spans.at(-1);
        assert.ok(
          last !== undefined && last.startMs <= nowMs && nowMs < last.endMs,
          `${zone}: now is in the last span`,
        );
      }
      for (const { date, startMs, endMs } of days) {
        assert.deepEqual([calendar.format(startMs), calendar.format(endMs - 1)], [date, date], zone);
      }
    }
  }
});

test("a time zone is a name of the IANA database, in any case, and nothing else", () => {
  for (const name of [
    "UTC",
    "Europe/Berlin",
    "europe/berlin",
    "America/Argentina/Buenos_Aires",
    "Etc/GMT+5",
    "Asia/Katmandu",
    "Europe/Kyiv",
  ]) {
    assert.equal(isTimeZone(name), true, name);
  }
  for (const name of [
    "",
    " ",
    "Mars/Base",
    "+01:00",
    "+0100",
    "-05",
    "-05:00",
    "GMT+1",
    "Europe/",
    "Europe/Berlin ",
    "Europe\\Berlin",
    "Europe/Berlin\0",
    "../../etc/passwd",
    "local",
    "x".repeat(1_000),
  ]) {
    assert.equal(isTimeZone(name), false, JSON.stringify(name));
  }
});
