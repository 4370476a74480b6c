/** Metric series that grow live: one value per key and step, in order of step whatever order they come in. */
import type { MetricItem, Series } from "../api/types";
import type { Curve } from "../lib/curve";

/** A series that is watched is halved when it has this many points and one more comes: of every four the lowest and the
 *  highest stay, then as many as a page begins with. The service has all of them, and zooming in asks for them. */
export const MOST_POINTS = 4_000;

export class SeriesStore {
  /** A curve is replaced by another whenever it changed. */
  readonly series = new Map<string, Curve>();
  version = 0;

  constructor(initial: readonly Series[] = []) {
    for (const { key, x, y } of initial) this.series.set(key, fitted(key, Float64Array.from(x), Float64Array.from(y, (value) => value ?? NaN)));
  }

  add(item: Pick<MetricItem, "step" | "values">): void {
    if (item.step === null) return;
    for (const [key, value] of Object.entries(item.values)) this.put(key, item.step, value ?? NaN);
    this.version += 1;
  }

  /** A new attempt starts again from `step`: what was measured after it is void. */
  rewind(step: number): void {
    for (const { key, x, y } of this.series.values()) {
      const keep = firstAfter(x, step);
      this.series.set(key, roomy(key, x.subarray(0, keep), y.subarray(0, keep)));
    }
    this.version += 1;
  }

  private put(key: string, step: number, value: number): void {
    let { x, y } = this.series.get(key) ?? roomy(key, NOTHING, NOTHING);
    let index = firstAfter(x, step);
    if (index === 0 || x[index - 1] !== step) {
      if (x.length === MOST_POINTS) {
        ({ x, y } = halved(key, x, y));
        index = firstAfter(x, step);
      }
      [x, y] = [longer(x), longer(y)];
      x.copyWithin(index + 1, index);
      y.copyWithin(index + 1, index);
      index += 1;
    }
    x[index - 1] = step;
    y[index - 1] = value;
    this.series.set(key, { key, x, y });
  }
}

const NOTHING = new Float64Array();

/** A copy with room for `MOST_POINTS`: it takes no more memory while it grows, and the memory that was before stays as
 *  it is for whoever still draws from it. */
function roomy(key: string, x: Float64Array, y: Float64Array): Curve {
  const room = (values: Float64Array) => {
    const all = new Float64Array(MOST_POINTS);
    all.set(values);
    return all.subarray(0, values.length);
  };
  return { key, x: room(x), y: room(y) };
}

const fitted = (key: string, x: Float64Array, y: Float64Array): Curve => (x.length <= MOST_POINTS ? roomy(key, x, y) : halved(key, x, y));

/** One more value of the same room. */
const longer = (values: Float64Array): Float64Array => new Float64Array(values.buffer, 0, values.length + 1);

/** Index of the first x that is larger than `step`; the usual case, the end, is found at once. */
function firstAfter(x: Float64Array, step: number): number {
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

function halved(key: string, x: Float64Array, y: Float64Array): Curve {
  const kept: number[] = [];
  for (let start = 0; start < x.length; start += 4) {
    let low = start;
    let high = start;
    for (let i = start; i < Math.min(x.length, start + 4); i += 1) {
      if (above(y[low]) > above(y[i])) low = i;
      if (below(y[high]) < below(y[i])) high = i;
    }
    kept.push(...(low === high ? [low] : [Math.min(low, high), Math.max(low, high)]));
  }
  const take = (values: Float64Array) => Float64Array.from(kept, (i) => values[i] as number);
  return fitted(key, take(x), take(y));
}

/** A gap is neither the lowest nor the highest. */
const above = (value = NaN): number => (Number.isNaN(value) ? Infinity : value);
const below = (value = NaN): number => (Number.isNaN(value) ? -Infinity : value);
