import assert from "node:assert/strict";
import { request } from "undici";

export interface MetricFamily {
  name: string;
  help: string;
  type: string;
}

export interface MetricsPage {
  text: string;
  contentType: unknown;
  families: MetricFamily[];
  /** The value of one series; 0 where there is none, as its reader would take it. */
  value: (name: string, labels?: Record<string, string | number>) => number;
  /** The labels of each series whose name begins so. */
  labelsOf: (name: string) => Record<string, string>[];
}

const LINE = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/;

/** Reads the page as Prometheus does, over HTTP. */
export async function scrape(url: string): Promise<MetricsPage> {
  const { statusCode, headers, body } = await request(url);
  const text = await body.text();
  assert.equal(statusCode, 200, text);
  const help = new Map([...text.matchAll(/^# HELP (\S+) (.*)$/gm)].map(([, name = "", words = ""]) => [name, words]));
  const series = text
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [, name = "", labels = "", value] = LINE.exec(line) ?? assert.fail(`not a sample: ${line}`);
      const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key = "", text = ""]) => [key, text] as const);
      return { name, labels: Object.fromEntries(pairs), value: value === "Nan" ? Number.NaN : Number(value) };
    });
  return {
    text,
    contentType: headers["content-type"],
    families: [...text.matchAll(/^# TYPE (\S+) (.*)$/gm)].map(([, name = "", type = ""]) => ({
      name,
      type,
      help: help.get(name) ?? "",
    })),
    value: (name, labels = {}) =>
      series
        .filter((one) => one.name === name)
        .filter((one) => Object.entries(labels).every(([key, text]) => one.labels[key] === String(text)))
        .reduce((sum, { value }) => sum + value, 0),
    labelsOf: (name) => series.filter((one) => one.name.startsWith(name)).map(({ labels }) => labels),
  };
}
