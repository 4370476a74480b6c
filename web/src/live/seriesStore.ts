/** Metric series that grow live: one value per key and step, in order of step whatever order they come in. */
import type { MetricItem, Series } from "../api/types";

/** A series that is watched is halved when it reaches this many points: of every four the lowest and the highest stay,
 *  then as many as a page begins with. The service has all of them, and zooming in asks for them. */
export const MOST_POINTS = 4_000;

export class SeriesStore {
  readonly series = new Map<string, Series>();
  version = 0;

  constructor(initial: readonly Series[] = []) {
    for (const { key, x, y } of initial) this.series.set(key, { key, x: [...x], y: [...y] });
  }

  add(item: Pick<MetricItem, "step" | "values">): void {
    if (item.step === null) return;
    for (const [key, value] of Object.entries(item.values)) this.put(key, item.step, value);
    this.version += 1;
  }

  /** A new attempt starts again from `step`: what was measured after it is void. */
  rewind(step: number): void {
    for (const { x, y } of this.series.values()) {
      const keep = firstAfter(x, step);
      x.length = keep;
      y.length = keep;
    }
    this.version += 1;
  }

  private put(key: string, step: number, value: number | null): void {
    let series = this.series.get(key);
    if (!series) this.series.set(key, (series = { key, x: [], y: [] }));
    const index = firstAfter(series.x, step);
    if (index > 0 && series.x[index - 1] === step) series.y[index - 1] = value;
    else {
      series.x.splice(index, 0, step);
      series.y.splice(index, 0, value);
      if (series.x.length > MOST_POINTS) halve(series);
    }
  }
}

/** Index of the first x that is larger than `step`; the usual case, the end, is found at once. */
function firstAfter(x: readonly number[], step: number): number {
  let low = 0;
  let high = x.length;
  if (high === 0 || (x[high - 1] as number) <= step) return high;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((x[middle] as number) <= step) low = middle + 1;
    else high = middle;
  }
  return low;
}

function halve(series: Series): void {
  const { x, y } = series;
  const kept: number[] = [];
  for (let start = 0; start < x.length; start += 4) {
    let low = start;
    let high = start;
    for (let i = start; i < Math.min(x.length, start + 4); i += 1) {
      if ((y[i] ?? Infinity) < (y[low] ?? Infinity)) low = i;
      if ((y[i] ?? -Infinity) > (y[high] ?? -Infinity)) high = i;
    }
    kept.push(...(low === high ? [low] : [Math.min(low, high), Math.max(low, high)]));
  }
  series.x = kept.map((i) => x[i] as number);
  series.y = kept.map((i) => y[i] ?? null);
}
