/** Curves as they are drawn: arrays of doubles, so that a point takes 16 bytes and a longer curve may be a longer view
 *  of the same memory. */

/** Points in order of x; y is NaN where nothing was measured. */
export type Curve = { readonly key: string; readonly x: Float64Array; readonly y: Float64Array };

/** What charts take as well: numbers with null in gaps, and undefined where another curve was measured, as `uPlot.join`
 *  makes them. */
export type Values = Float64Array | readonly (number | null | undefined)[];

export const isGap = (value: number | null | undefined): boolean => value == null || Number.isNaN(value);

/** The first `count` doubles of `room`, or of a new one where that is too small. */
export const fill = (room: Float64Array | undefined, count: number): Float64Array =>
  room && room.length >= count ? room.subarray(0, count) : new Float64Array(count);

/** What uPlot draws from: null in gaps, and where zero has no place on a log axis. No copy where nothing is to be changed. */
export function drawable(y: Values, log: boolean): Values {
  // undefined stays: there the crosshair looks for the next point that was measured
  const none = (value: number | null | undefined) => value != null && (isGap(value) || (log && value <= 0));
  return y.some(none) ? Array.from(y, (value) => (none(value) ? null : value)) : y;
}

/** Without the points where nothing was measured. */
export function measured({ key, x, y }: Curve): Curve {
  if (!y.some(isGap)) return { key, x, y };
  return { key, x: x.filter((_, i) => !isGap(y[i])), y: y.filter((value) => !isGap(value)) };
}
