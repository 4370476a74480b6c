/** Metric series that grow live: one value per key and step, in order of step whatever order they come in. */
import type { MetricItem, Series } from "../api/types";

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
