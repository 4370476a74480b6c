/** The curve behind the noise. */
import { fill, type Values } from "./curve";

/** How far a point's weight reaches, from a slider's 0…1: a share of the run, so that short and long runs look
 *  alike. 0: no smoothing. */
export function decay(strength: number, points: number): number {
  const reach = strength ** 2 * points * 0.1;
  return reach / (1 + reach);
}

/** At every point the value there of the line that fits its neighbours on both sides best, each weighted by `weight` per
 *  point away (local linear regression, Cleveland 1979, with exponential weights). A mean would lag behind a falling loss at
 *  both ends, where all neighbours are on one side; a line does not. Never lower or higher than all values: beside a spike the
 *  line may lead there. Gaps stay gaps: NaN. `room`: where the result may stand. Two passes, whatever the weight. */
export function smooth(values: Values, weight: number, room?: Float64Array): Float64Array {
  const result = fill(room, values.length);
  const before = new Neighbours(weight);
  const after = new Neighbours(weight);
  const seen = new Float64Array(SUMS * values.length);
  let [lowest, highest] = [Infinity, -Infinity];
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i];
    if (!isNumber(value)) continue;
    lowest = Math.min(lowest, value);
    highest = Math.max(highest, value);
    before.save(seen, SUMS * i);
    before.pass(value);
  }
  for (let i = values.length - 1; i >= 0; i -= 1) {
    const value = values[i];
    if (!isNumber(value)) {
      result[i] = NaN;
      continue;
    }
    before.load(seen, SUMS * i);
    // those before are at -d
    const s0 = before.w + 1 + after.w;
    const s1 = after.wd - before.wd;
    const s2 = before.wdd + after.wdd;
    const t0 = before.wv + value + after.wv;
    const t1 = after.wdv - before.wdv;
    const spread = s0 * s2 - s1 * s1;
    const fitted = spread > 1e-9 * s0 * s2 ? (s2 * t0 - s1 * t1) / spread : t0 / s0;
    result[i] = Math.min(highest, Math.max(lowest, fitted));
    after.pass(value);
  }
  return result;
}

const SUMS = 5;

/** Of the points on one side: sums of w, w·d, w·d², w·v and w·d·v; d is how far away a point is, w its weight. */
class Neighbours {
  w = 0;
  wd = 0;
  wdd = 0;
  wv = 0;
  wdv = 0;
  constructor(readonly weight: number) {}

  /** Go on by one point, past this one. */
  pass(value: number): void {
    const { weight, w, wd, wdd, wv, wdv } = this;
    this.w = weight * (w + 1);
    this.wd = weight * (wd + w + 1);
    this.wdd = weight * (wdd + 2 * wd + w + 1);
    this.wv = weight * (wv + value);
    this.wdv = weight * (wdv + wv + value);
  }

  save(to: Float64Array, at: number): void {
    to[at] = this.w;
    to[at + 1] = this.wd;
    to[at + 2] = this.wdd;
    to[at + 3] = this.wv;
    to[at + 4] = this.wdv;
  }

  load(from: Float64Array, at: number): void {
    this.w = from[at] as number;
    this.wd = from[at + 1] as number;
    this.wdd = from[at + 2] as number;
    this.wv = from[at + 3] as number;
    this.wdv = from[at + 4] as number;
  }
}

const isNumber = (value: number | null | undefined): value is number => value != null && Number.isFinite(value);
