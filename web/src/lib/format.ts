/** Numbers, sizes and times as people read them. All of them accept null and undefined and answer "–". */

import { t } from "../texts";

const NONE = "–";
type Maybe = number | null | undefined;

// made once: a page that streams asks hundreds of times a second
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** 4 significant digits: 3.142, 0.01234, 12,346. */
export function number(value: Maybe): string {
  if (value == null || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(2);
  if (size >= 1000) return WHOLE.format(Math.round(value));
  return String(Number(value.toPrecision(4)));
}

export function count(value: Maybe): string {
  return value == null ? NONE : WHOLE.format(Math.round(value));
}

/** 41.2k, 1.3M: for a narrow column. */
export function compact(value: Maybe): string {
  if (value == null || !Number.isFinite(value)) return NONE;
  return COMPACT.format(value);
}

/** For an axis: 3 digits at most, 1.2k, 4e-5. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e15) return value.toExponential(1);
  if (size >= 10_000) return compact(value);
  if (size > 0 && size < 0.001) return value.toExponential(0);
  return String(Number(value.toPrecision(4)));
}

export function percent(fraction: Maybe): string {
  return fraction == null ? NONE : `${Math.round(fraction * 100)} %`;
}

export function bytes(value: Maybe): string {
  if (value == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = value;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/** 42 s, 3 min 05 s, 2 h 10 min, 3 d 4 h. */
export function duration(seconds: Maybe): string {
  if (seconds == null || !Number.isFinite(seconds) || seconds < 0) return NONE;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (n: number) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  const hours = Math.round(whole / 3600);
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** "just now", "5 min ago", then the date. */
export function ago(iso: string | null | undefined, now = Date.now()): string {
  if (!iso) return NONE;
  const seconds = (now - Date.parse(iso)) / 1000;
  if (seconds < 45) return t.time.now;
  if (seconds < 3600) return t.time.minutes(Math.max(1, Math.round(seconds / 60)));
  if (seconds < 86400) return t.time.hours(Math.round(seconds / 3600));
  return new Date(iso).toLocaleDateString(t.time.locale, { day: "numeric", month: "short", year: "numeric" });
}

export function moment(iso: string | null | undefined): string {
  return iso ? new Date(iso).toLocaleString(t.time.locale, { dateStyle: "medium", timeStyle: "medium" }) : NONE;
}

export function seconds(from: string | null | undefined, to: string | null | undefined, now = Date.now()): number | null {
  if (!from) return null;
  return Math.max(0, ((to ? Date.parse(to) : now) - Date.parse(from)) / 1000);
}

/** A config value on one line. */
export function value(item: unknown): string {
  return typeof item === "string" ? item : JSON.stringify(item) ?? NONE;
}
